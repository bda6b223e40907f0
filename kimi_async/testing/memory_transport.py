"""
A transport without a socket, for tests of code that uses the client: requests go to a function, replies come from it.

    async def handler(request: Request) -> Reply:
        return Reply(body=b'{"object": "list", "data": []}')

    client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler))

The handler may sleep: all waiting is on the running loop's clock, so that a virtual clock (`kimi_async.testing.clock`) plays
ten minutes in no time.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import APIConnectionError
from ..transport.exchange import Headers, Request, Response

__all__ = ["MemoryTransport", "Reply"]


@dataclass(slots=True)
class Reply:
    """What a handler answers. A body of bytes comes at once; an (async) iterable of bytes comes piece by piece."""

    status: int = 200
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = field(default_factory=dict[str, str])
    body: bytes | str | Iterable[bytes] | AsyncIterable[bytes] = b""


class MemoryTransport:
    """
    Hands every request to `handler` and its `Reply` back. An `OSError` from the handler, or from the body it gave, reaches
    the client as the connection error it would be on a socket.

    `requests` lists what was sent; `open` counts the replies whose body has been neither read to its end nor closed.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Reply]]) -> None:
        self._handler = handler
        self.requests: list[Request] = []
        self.open = 0
        self.closed: bool = False

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        try:
            reply = await self._handler(request)
        except OSError as exc:
            raise _broken(exc, request, "headers") from exc
        headers = Headers(reply.headers)
        if isinstance(reply.body, (bytes, str)):
            body = reply.body.encode() if isinstance(reply.body, str) else reply.body
            return Response(reply.status, headers, request=request, body=body)
        pieces = _Pieces(self, reply.body, request)
        return Response(reply.status, headers, request=request, reader=pieces.readany, closer=pieces.close)

    async def aclose(self) -> None:
        self.closed = True


def _broken(exc: OSError, request: Request, phase: str) -> APIConnectionError:
    return APIConnectionError(
        message=f"Connection error ({type(exc).__name__}: {exc}; phase {phase})", request=request, phase=phase
    )


class _Pieces:
    """A body that comes from an iterable. Empty pieces are skipped: on a socket they could not be seen."""

    def __init__(
        self, owner: MemoryTransport, body: Iterable[bytes] | AsyncIterable[bytes], request: Request
    ) -> None:
        self._iterator: AsyncIterator[bytes] = (
            body.__aiter__() if isinstance(body, AsyncIterable) else _as_async(body)
        )
        self._request = request
        self._owner = owner
        self._ended = False
        owner.open += 1

    async def readany(self) -> bytes:
        if self._ended:
            return b""
        try:
            async for data in self._iterator:
                if data:
                    return data
        except OSError as exc:
            self.close()
            raise _broken(exc, self._request, "body") from exc
        self.close()
        return b""

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._owner.open -= 1
            # A body that holds something back until it is closed says so with a plain `close` (memory_service.py does).
            if (close := getattr(self._iterator, "close", None)) is not None:
                close()


async def _as_async(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
