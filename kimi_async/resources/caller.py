"""
Who sends for a resource: the client, as far as a resource knows it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypedDict, TypeVar, Unpack, cast

from .. import codec
from ..config import hide
from ..providers.hosts import Provider
from ..streaming.fold import Accumulator
from ..streaming.stream import AsyncStream
from ..transport.exchange import Body, Response, TimeoutLike
from ..transport.phases import whole

if TYPE_CHECKING:
    from ..middleware.rate_limit.limiter import Limiter
    from ..tools.run import AroundTool

__all__ = ["CallOptions", "Caller", "TimeoutLike"]

T = TypeVar("T")


class CallOptions(TypedDict, total=False):
    """What every call takes beside its own arguments."""

    extra_headers: Mapping[str, object] | None
    """Headers for this call; None as a value takes one away."""
    extra_query: Mapping[str, object] | None
    """Query parameters for this call."""
    extra_body: Any
    """Fields that are merged over the named ones, for what this client does not know."""
    timeout: TimeoutLike
    """In place of the client's: a number of seconds, a `Timeout`, or None for no limit."""


class Caller(Protocol):
    """
    Sends a request through the whole chain and gives what its reply means.

    `call` is all that has to be written; the others are made of it.
    """

    @property
    def provider(self) -> Provider | None:
        """The row of `kimi_async.providers` that requests are made for."""
        ...

    @property
    def account(self) -> str:
        """Which account calls go to: the address and a digest of the key."""
        ...

    @property
    def gives_advice(self) -> bool:
        """Whether requests are looked through for what the official host refuses."""
        ...

    @property
    def around_tool(self) -> "AroundTool | None":
        """What is entered around each tool that `run_tools` runs, where a middleware wants to watch."""
        return None

    @property
    def max_retries(self) -> int: ...

    @property
    def max_event_size(self) -> int: ...

    @property
    def limiter(self) -> "Limiter": ...

    def with_options(
        self, *, max_retries: int = ..., timeout: TimeoutLike = ..., priority: int = ...
    ) -> Self: ...

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | Body | None = None,
        *,
        accept: Callable[[Response], Awaitable[T]],
        stream: bool = False,
        unlisted: bool = False,
        follow_redirects: bool = True,
        **options: Unpack[CallOptions],
    ) -> T:
        """
        Sends one request; what comes back is what `accept` makes of a reply with a good status.

        :param accept: reads as much of the reply as shows that the attempt worked, and returns what it means.
        :param stream: whether the body is taken piece by piece.
        :param unlisted: whether the path may be one that the provider is not known to have.
        :param follow_redirects: whether a redirect within the origin is followed; with False it is an error.

        :raises APIStatusError: the server's error, with the attempts before it.
        :raises APIConnectionError: no reply.
        """
        ...

    async def request(
        self, method: str, path: str, cast_to: type[T], *, body: Any = None, **options: Unpack[CallOptions]
    ) -> T:
        """One call with a JSON body and a JSON reply."""
        hide(options)
        extra_body = options.pop("extra_body", None)
        if extra_body:
            body = cast("dict[str, Any]", {**(body or {}), **extra_body})
        data = None if body is None else codec.encode(body)
        response = await self.call(method, path, data, accept=whole, **options)
        value = codec.decode_reply(response.content, cast_to, response)
        beside = getattr(value, "__dict__", None)
        if beside is not None:
            beside["_rid"] = response.request_id
        return value

    async def open_stream(
        self,
        method: str,
        path: str,
        body: bytes | Body | None,
        cast_to: Any = None,
        *,
        refuse_empty: bool = False,
        usage_follows: bool = False,
        **options: Unpack[CallOptions],
    ) -> AsyncStream[Any]:
        """A streamed call, its first event received. `cast_to` None means chat chunks, folded and checked for completeness."""

        hide(options)
        row = self.provider
        finishes = row is not None and row.finishes

        async def accept(response: Response) -> "AsyncStream[Any]":
            stream: AsyncStream[Any] = AsyncStream(
                response,
                decode=None
                if cast_to is None
                else codec.decoder_for(Any if cast_to is object else cast_to).decode,
                fold=Accumulator(usage_follows=usage_follows) if cast_to is None else None,
                max_event_size=self.max_event_size,
                refuse_empty=refuse_empty,
                finishes=finishes,
            )
            await stream.prime()
            return stream

        return await self.call(method, path, body, accept=accept, stream=True, **options)
