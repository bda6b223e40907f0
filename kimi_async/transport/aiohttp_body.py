"""
The body of a reply that aiohttp brought.
"""

import asyncio

import aiohttp
from aiohttp.base_protocol import BaseProtocol

from .aiohttp_faults import translated
from .aiohttp_patches import Connection, Reply, socket_of
from .exchange import Request

__all__ = ["ReplyBody"]


class ReplyBody:
    """The body of a reply, as bytes come."""

    __slots__ = ("_content", "_fault", "_loop", "_pool", "_reply", "_request", "_started")

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

    async def readany(self) -> bytes:
        if self._fault is None:
            try:
                return await self._content.readany()
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as exc:
                self._fault = exc
            # When data and a reset arrive in one turn of a busy loop, aiohttp raises before it hands out the data
            # (StreamReader.readany looks at its exception first). What reached us goes to the user before the bad news.
            left = getattr(self._content, "_read_nowait", None)
            if left is not None:
                data: bytes = left(-1)
                if data:
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
