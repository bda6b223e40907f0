"""
The verbs of HTTP, for endpoints that have no method yet: `client.post("/something/new", ...)`.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast, overload

from .. import codec
from ..config import hidden
from ..transport.exchange import Response
from ..transport.phases import whole
from ..types._base import NOT_GIVEN, is_given
from .arguments import unknown_argument
from .caller import Caller

__all__ = ["Verbs"]

T = TypeVar("T")

_MORE = ("extra_headers", "extra_query", "extra_body", "timeout", "stream", "stream_cls")
_OPTIONS = (
    "extra_json",
    "follow_redirects",
    "headers",
    "idempotency_key",
    "max_retries",
    "params",
    "timeout",
)


class Verbs(Caller):
    """Calls by path, for whoever can send."""

    @overload
    async def get(
        self, path: str, *, cast_to: type[T], options: Mapping[str, Any] = ..., **more: Any
    ) -> T: ...

    @overload
    async def get(
        self, path: str, *, cast_to: Any = ..., options: Mapping[str, Any] = ..., **more: Any
    ) -> Any: ...

    async def get(
        self, path: str, *, cast_to: Any = object, options: Mapping[str, Any] = {}, **more: Any
    ) -> Any:
        """Calls an endpoint that has no method yet. See `post`."""
        return await self._raw("GET", path, cast_to, None, options, more)

    async def post(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        content: bytes | None = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        """
        Calls an endpoint that has no method yet.

        :param path: below `base_url`: `"/chat/completions"`. A whole URL is taken if it has the same origin.
        :param cast_to: what the reply is decoded to: a msgspec struct, dataclass or other type; `object` for plain dicts and
            lists; `str` or `bytes` for the body as it is; `kimi_async.transport.Response` for the reply itself.
        :param body: sent as JSON.
        :param stream: with True, an `AsyncStream` of `cast_to` is returned, or of what `stream_cls=AsyncStream[X]` names.
        :param extra_headers, extra_query, extra_body, timeout: as for every other call; `options={…}` is understood too, with
            `headers`, `params`, `extra_json`, `timeout`, `max_retries`, `idempotency_key` (sent as the header `Idempotency-Key`)
            and `follow_redirects` (within the same origin; with False a redirect is an error).
        """
        return await self._raw("POST", path, cast_to, content if content is not None else body, options, more)

    async def put(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        return await self._raw("PUT", path, cast_to, body, options, more)

    async def patch(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        return await self._raw("PATCH", path, cast_to, body, options, more)

    async def delete(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        return await self._raw("DELETE", path, cast_to, body, options, more)

    async def _raw(
        self,
        method: str,
        path: str,
        cast_to: Any,
        body: Any,
        options: Mapping[str, Any],
        more: dict[str, Any],
    ) -> Any:
        for name in more:
            if name not in _MORE:
                raise unknown_argument(method.lower(), name, _MORE)
        for name in options:
            if name not in _OPTIONS:
                raise unknown_argument(f"{method.lower()}(options=...)", name, _OPTIONS)
        timeout = more.get("timeout", options.get("timeout", NOT_GIVEN))
        extra_headers: dict[str, Any] = {
            **(hidden(options.get("headers")) or {}),
            **(hidden(more.get("extra_headers")) or {}),
        }
        if is_given(key := options.get("idempotency_key")) and key is not None:
            extra_headers.setdefault("Idempotency-Key", key)
        extra_query: dict[str, Any] = {**(options.get("params") or {}), **(more.get("extra_query") or {})}
        extra_body: dict[str, Any] = {**(options.get("extra_json") or {}), **(more.get("extra_body") or {})}
        caller: Caller = self
        if is_given(max_retries := options.get("max_retries", NOT_GIVEN)):
            caller = self.with_options(max_retries=max_retries)
        follow = options.get("follow_redirects")
        follow = True if follow is None or not is_given(follow) else bool(follow)
        if isinstance(body, Mapping):
            body = {**codec.given(cast("Mapping[str, Any]", body)), **extra_body}
        elif extra_body:
            body = extra_body
        stream_cls = more.get("stream_cls")
        if stream_cls is not None:
            arguments = getattr(stream_cls, "__args__", None)
            cast_to = arguments[0] if arguments else cast_to
        data = body if body is None or isinstance(body, bytes) else codec.encode(body)
        if more.get("stream"):
            return await caller.open_stream(
                method,
                path,
                data,
                cast_to,
                extra_headers=extra_headers,
                extra_query=extra_query,
                timeout=timeout,
            )
        # `httpx.Response` is what code written for the OpenAI SDK says when it means the reply itself.
        raw = cast_to is Response or getattr(cast_to, "__module__", "").partition(".")[0] in (
            "httpx",
            "httpx2",
        )
        response = await caller.call(
            method,
            path,
            data,
            accept=whole,
            unlisted=True,
            follow_redirects=follow,
            extra_headers=extra_headers,
            extra_query=extra_query,
            timeout=timeout,
        )
        return response if raw else codec.decode_reply(response.content, cast_to, response)
