"""
The simulator without sockets, for tests under a virtual clock.

    service = KimiService(limits="tier5", pace=Pace(first_token=0.8, tokens_per_second=50))
    client = AsyncKimi(api_key=service.api_key, transport=in_memory(service))

Everything a `KimiService` does works here, limits and most faults included. What lives below HTTP does not: a fault
that writes raw bytes or breaks the framing ends in a connection error at that point.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlsplit

from ..transport.exchange import Request
from .memory_transport import MemoryTransport, Reply
from .simulator.replies import Cut, End, Head, Pause, Raw, Send, Step
from .simulator.service import KimiService

__all__ = ["in_memory"]


def in_memory(service: KimiService) -> MemoryTransport:
    """
    A transport whose requests `service` answers; it waits on the running loop's clock.

    A concurrency slot is held until the body has been read to its end or closed.
    """

    async def handler(request: Request) -> Reply:
        body = request.body
        if body is not None and not isinstance(body, bytes):
            body = await body.read()
        loop = asyncio.get_running_loop()
        parts = urlsplit(request.url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        scripted = service.reply(request.method, path, request.headers, body or b"", loop.time())
        steps, closing = scripted.steps, scripted.answer.closing
        try:
            for step in steps:
                if isinstance(step, Head):
                    await _pause(step.trickle)
                    return Reply(step.status, step.headers, _Body(steps, closing))
                if isinstance(step, Pause):
                    await _pause(step.seconds)
                elif isinstance(step, (Cut, Raw)):
                    raise ConnectionResetError("the connection was closed before the headers")
            raise ConnectionResetError("the connection was closed before the headers")
        except BaseException:
            if closing is not None:
                closing()
            raise

    return MemoryTransport(handler)


class _Body:
    """The body of one reply. `close` is called by the transport when the reply is closed early."""

    def __init__(self, steps: Iterator[Step], closing: Callable[[], None] | None) -> None:
        self._steps = steps
        self._closing = closing

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for step in self._steps:
            if isinstance(step, Send):
                return step.data
            if isinstance(step, Pause):
                await _pause(step.seconds)
            elif isinstance(step, (Cut, Raw)):
                self.close()
                raise ConnectionResetError("the connection was closed inside the body")
            elif isinstance(step, End):
                break
        self.close()
        raise StopAsyncIteration

    def close(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing()


async def _pause(seconds: float) -> None:
    if seconds == math.inf:
        await asyncio.get_running_loop().create_future()
    if seconds > 0:
        await asyncio.sleep(seconds)
