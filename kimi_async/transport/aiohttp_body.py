"""
The body of a reply that aiohttp brought.
"""
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.base_protocol import BaseProtocol

from .aiohttp_faults import translated
from .aiohttp_patches import Connection, Reply, inside_of, socket_of
from .exchange import Request

__all__ = ["ReplyBody"]


class ReplyBody:
    """The body of a reply, as bytes come."""

    __slots__ = ("_content", "_fault", "_inside", "_loop", "_pool", "_reply", "_request", "_started")

    def __init__(
        self,
        reply: aiohttp.ClientResponse | Reply,
        request: Request,
        loop: asyncio.AbstractEventLoop,
        started: float,
        pool: object,
    ) -> None:
        self._pool = pool  # whoever holds a stream may have let go of the client
        self._reply = reply
        self._content = reply.content
        self._request = request
        self._loop = loop
        self._started = started
        self._fault: BaseException | None = None
        self._inside = inside_of(self._content)

    async def readany(self) -> bytes:
        if self._fault is None:
            try:
                content = self._inside
                if content is not None:
                    # `StreamReader.readany`, without six calls.
                    buffer, protocol = content._buffer, content._protocol
                    if (
                        not (buffer or content._eof or content._exception or content._waiter)
                        and protocol.transport
                    ):
                        waiter = content._waiter = self._loop.create_future()
                        try:
                            await waiter
                        finally:
                            content._waiter = None
                    if len(buffer) == 1 and not (
                        content._exception or content._buffer_offset or content._http_chunk_splits
                    ):
                        data = buffer.popleft()
                        size = len(data)
                        content._cursor += size
                        content._size = left = content._size - size
                        if protocol._reading_paused and left < content._low_water:
                            protocol.resume_reading()
                        return data
                return await self._content.readany()
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as exc:
                self._fault = exc
            # When data and a reset arrive in one turn of a busy loop, aiohttp raises before it hands out the data
            # (StreamReader.readany looks at its exception first). What reached us goes to the user before the bad news.
            rest: Callable[[int], bytes] | None = getattr(self._content, "_read_nowait", None)
            if rest is not None and (data := rest(-1)):
                return data
        raise translated(self._fault, self._request, "body", self._loop.time() - self._started)

    def gate(self, on: bool) -> None:
        """Takes up the reading of the connection, or stops it. One that has been given back already is left alone."""
        protocol = self._connection()
        if isinstance(protocol, Connection):
            protocol.hold(not on)
            return
        # A session of the caller's has connections of another kind: each piece that is handed out takes up their reading too.
        transport = None if protocol is None else socket_of(protocol.transport)
        if transport is None or transport.is_closing():
            return
        if not on:
            transport.pause_reading()
        elif not getattr(protocol, "_reading_paused", False):
            transport.resume_reading()

    def sip(self) -> bytes:
        """What has come behind the gate; nothing where it has to be opened for that, or for an end or a fault."""
        content, protocol = self._content, self._connection()
        if not isinstance(protocol, Connection):
            return b""
        protocol.sip()
        if content.is_eof():
            protocol.hold(False)  # it has gone back to the pool with that
        return self.arrived()

    def _connection(self) -> BaseProtocol | None:
        connection = self._reply.connection
        return None if connection is None else connection.protocol

    def whole(self, at_most: int) -> bytes | None:
        """
        The body, if it is here to its end and unharmed and of which nothing was taken; not more than so many bytes of it.
        """
        content = self._content
        if content.is_eof() and content.exception() is None and content.total_bytes <= at_most:
            return content.read_nowait(-1)
        return None

    def arrived(self) -> bytes:
        content = self._content
        return content.read_nowait(-1) if content.exception() is None else b""

    def close(self) -> None:
        if self._content.is_eof():
            self._reply.release()
        else:
            self._reply.close()
