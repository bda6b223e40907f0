"""
A call's request: address, headers, key, and what the options of client and call say of it.
"""

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, Unpack, cast

from ..config import (
    Configured,
    KeyFunction,
    check_headers,
    check_key,
    check_query,
    hide,
    merge_headers,
    query_string,
)
from ..errors import ConfigurationError
from ..providers.hosts import Provider, missing_endpoint_message
from ..redact import Secret
from ..transport.exchange import Body, Headers, Request, Timeout
from ..transport.urls import url_below
from ..types._base import NOT_GIVEN, Omit, is_given
from .arguments import CALL_OPTIONS, unknown_argument
from .caller import CallOptions

__all__ = ["RequestBuilder"]


class RequestBuilder(Configured):
    """Makes requests of what a client was told."""

    _row: Provider | None
    _targets: dict[str, str]
    """Where the paths lead that were called lately."""

    @property
    def provider(self) -> Provider | None:
        """The row of `kimi_async.providers` that this client goes by: the one it was given, or the one whose host it calls."""
        return self._row

    async def build_request(
        self,
        method: str,
        path: str,
        body: bytes | Body | None = None,
        *,
        stream: bool = False,
        unlisted: bool = False,
        follow_redirects: bool = True,
        **options: Unpack[CallOptions],
    ) -> Request:
        """
        A request of this client's: address, key, headers, timeout, retries, deadline and priority as for any other call.

        :param path: below `base_url`: `"chat/completions"`; a whole URL is taken if it has the same origin.
        :param body: JSON as bytes, or a `Body` that is produced while it is sent.
        :param stream: whether the body of the reply will be taken piece by piece.
        :param unlisted: whether the path may be one that the provider is not known to have.
        :param follow_redirects: whether a redirect within the origin is followed; else it is a reply like any other.

        :raises ConfigurationError: a path that leaves `base_url`, an endpoint that the provider does not have, a bad header.
        """
        hide(options)
        return self._request(method, path, body, stream, unlisted, follow_redirects, options)

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | Body | None,
        stream: bool,
        unlisted: bool,
        follow_redirects: bool,
        options: CallOptions,
    ) -> Request:
        config = self._config
        headers = Headers(self._stream_headers if stream else self._headers)
        extra_query, timeout = None, NOT_GIVEN
        own: Mapping[str, str | Omit] = {}
        if options:
            for name in options:
                if name not in CALL_OPTIONS and is_given(cast("dict[str, Any]", options)[name]):
                    raise unknown_argument(method.lower(), name, CALL_OPTIONS)
            extra_query, timeout = options.get("extra_query"), options.get("timeout", NOT_GIVEN)
            if extra_headers := options.get("extra_headers"):
                own = check_headers(extra_headers)
                merge_headers(headers, own)
        if body is None:
            headers.popall("Content-Type", None)
        elif not isinstance(body, bytes):
            headers["Content-Type"] = body.content_type
        url = self._targets.get(path) or self._target(path, unlisted)
        if config.default_query or extra_query:
            query = query_string({**config.default_query, **check_query(extra_query)})
            if query:
                url = f"{url}{'&' if '?' in url else '?'}{query}"
        request = Request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=config.timeout if timeout is NOT_GIVEN or not is_given(timeout) else Timeout.of(timeout),
            stream=stream,
            max_retries=config.max_retries,
            deadline=None if config.deadline is None else asyncio.get_running_loop().time() + config.deadline,
            priority=config.priority,
            cost=config.cost,
            mode=config.mode,
        )
        if not follow_redirects:
            request.extensions["follow_redirects"] = False
        if callable(config.api_key) and not any(
            name.lower() == "authorization" for name in (*config.default_headers, *own)
        ):
            request.authorize = self._authorize
        return request

    async def _authorize(self, request: Request) -> None:
        key = self._config.api_key
        if callable(key):
            key = check_key(await _told_by(key), "what the api_key function returns")
        request.headers["Authorization"] = Secret(f"Bearer {key}")

    def _target(self, path: str, unlisted: bool) -> str:
        url = url_below(self._config.base_url, path)
        row = self._row
        missing = row is not None and not row.supports(path)
        if missing and not unlisted:
            raise ConfigurationError(missing_endpoint_message(cast("Provider", row), path))
        if not missing:
            if len(self._targets) >= 64:
                self._targets.clear()
            self._targets[path] = url
        return url


async def _told_by(function: KeyFunction) -> str:
    key = function()
    return await key if inspect.isawaitable(key) else key
