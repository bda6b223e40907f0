"""
The verbs of HTTP, for endpoints that have no method yet: `client.post("/something/new", ...)`.
"""

from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar, Unpack, cast, overload

from .. import codec
from ..config import hide
from ..transport.exchange import Response
from ..transport.phases import whole
from ..types._base import NOT_GIVEN, NotGiven, Omit, is_given
from .arguments import unknown_argument
from .caller import Caller, CallOptions, TimeoutLike

__all__ = ["RequestOptions", "VerbOptions", "Verbs"]

T = TypeVar("T")


class RequestOptions(TypedDict, total=False):
    """What `options={…}` holds in code written for the OpenAI SDK."""

    headers: Mapping[str, object] | None
    params: Mapping[str, object] | None
    extra_json: Mapping[str, object] | None
    timeout: TimeoutLike
    max_retries: int | NotGiven | Omit
    idempotency_key: str | NotGiven | None
    """Sent as the header `Idempotency-Key`."""
    follow_redirects: bool | NotGiven | None
    """Within the same origin; with False a redirect is an error."""


class VerbOptions(CallOptions, total=False):
    """What a call by path takes beside what it sends, and what its reply becomes."""

    options: RequestOptions
    stream: bool
    """With True, an `AsyncStream` of `cast_to` is returned, or of what `stream_cls` names."""
    stream_cls: object
    """`AsyncStream[X]`: chunks are decoded to `X`."""


class Verbs(Caller):
    """Calls by path, for whoever can send."""

    @overload
    async def get(self, path: str, *, cast_to: type[T], **more: Unpack[VerbOptions]) -> T: ...

    @overload
    async def get(self, path: str, *, cast_to: Any = ..., **more: Unpack[VerbOptions]) -> Any: ...

    async def get(self, path: str, *, cast_to: Any = object, **more: Unpack[VerbOptions]) -> Any:
        """Calls an endpoint that has no method yet. See `post`."""
        hide(more)
        return await self._raw("GET", path, cast_to, None, more)

    async def post(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        content: bytes | None = None,
        **more: Unpack[VerbOptions],
    ) -> Any:
        """
        Calls an endpoint that has no method yet.

        :param path: below `base_url`: `"/chat/completions"`. A whole URL is taken if it has the same origin.
        :param cast_to: what the reply is decoded to: a msgspec struct, dataclass or other type; `object` for plain dicts and
            lists; `str` or `bytes` for the body as it is; `kimi_async.transport.Response` for the reply itself.
        :param body: sent as JSON.
        :param more: as for every other call, and those of `VerbOptions`: `stream`, `stream_cls`, `options={…}`.
        """
        hide(more)
        return await self._raw("POST", path, cast_to, content if content is not None else body, more)

    async def put(
        self, path: str, *, cast_to: Any = object, body: Any = None, **more: Unpack[VerbOptions]
    ) -> Any:
        hide(more)
        return await self._raw("PUT", path, cast_to, body, more)

    async def patch(
        self, path: str, *, cast_to: Any = object, body: Any = None, **more: Unpack[VerbOptions]
    ) -> Any:
        hide(more)
        return await self._raw("PATCH", path, cast_to, body, more)

    async def delete(
        self, path: str, *, cast_to: Any = object, body: Any = None, **more: Unpack[VerbOptions]
    ) -> Any:
        hide(more)
        return await self._raw("DELETE", path, cast_to, body, more)

    async def _raw(self, method: str, path: str, cast_to: Any, body: object, more: VerbOptions) -> Any:
        options = more.get("options") or {}
        for name in more:
            if name not in VerbOptions.__annotations__:
                raise unknown_argument(method.lower(), name, list(VerbOptions.__annotations__))
        for name in options:
            if name not in RequestOptions.__annotations__:
                raise unknown_argument(
                    f"{method.lower()}(options=...)", name, list(RequestOptions.__annotations__)
                )
        timeout = more.get("timeout", options.get("timeout", NOT_GIVEN))
        extra_headers: dict[str, object] = {
            **(options.get("headers") or {}),
            **(more.get("extra_headers") or {}),
        }
        if is_given(key := options.get("idempotency_key")) and key is not None:
            extra_headers.setdefault("Idempotency-Key", key)
        extra_query: dict[str, object] = {**(options.get("params") or {}), **(more.get("extra_query") or {})}
        extra_body: dict[str, object] = {
            **(options.get("extra_json") or {}),
            **(more.get("extra_body") or {}),
        }
        caller: Caller = self
        max_retries = options.get("max_retries", NOT_GIVEN)
        if not isinstance(max_retries, (NotGiven, Omit)):
            caller = self.with_options(max_retries=max_retries)
        follow = options.get("follow_redirects")
        follow = True if follow is None or not is_given(follow) else bool(follow)
        if isinstance(body, Mapping):
            body = {**codec.given(cast("Mapping[str, object]", body)), **extra_body}
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
