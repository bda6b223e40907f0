"""
What we mend in aiohttp, and the request that goes out in one write: nothing else is here, so that it can be deleted one day.

Each leans on private parts of aiohttp, as read in 3.14. What is missing in another release is looked for, once or at each use, and
aiohttp's own way is then taken: slower, or with its fault, and never broken.
"""
# pyright: reportPrivateUsage=false

import asyncio
import inspect
import os
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any, Protocol, cast

import aiohttp
from aiohttp import hdrs, http_writer
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection as Lent
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from yarl import URL

from .chunked import ChunkedBody

__all__ = ["AT_ONCE", "Connection", "Reply", "Straight", "inside_of", "reused", "socket_of", "straight"]

reused: ContextVar[bool] = ContextVar("kimi_async_reused", default=False)
"""Whether the connection of the request under way came out of the pool: only then may a disconnect be blamed on its age."""


class Inside(Protocol):
    """What is inside an aiohttp `StreamReader`, whose `feed_data` and `readany` make eight calls more for each packet."""

    _buffer: deque[bytes]
    _buffer_offset: int
    _cursor: int
    _eof: bool
    _exception: BaseException | None
    _high_water: int
    _http_chunk_splits: deque[int] | None
    _low_water: int
    _protocol: "Connection"
    _size: int
    _waiter: asyncio.Future[None] | None
    total_bytes: int

    def begin_http_chunk_receiving(self) -> None: ...


class Connection(ResponseHandler):
    """
    One connection.

    Mends three things of aiohttp 3.14, two of them met by a bad chunk size. Its parser gives nothing at all of a packet in which
    it meets nonsense, head and good events before it included: so the head is parsed apart. When the nonsense comes in a later
    packet, it tells whoever waits for a head, but not the reader of the body, who would wait for ever. Nor does it tell that
    reader when the connection is closed from this side.

    The data of a chunked body goes past aiohttp's parser, which makes three calls for each chunk, and its reader one more that
    takes up the reading of the socket: 2.5 µs an event where one join does it. The parser is left at the beginning of a chunk, so
    that it can go on at any, and does with whatever is no plain chunk, the last one included.
    """

    used: bool = False
    """Whether it has carried a request before."""
    awaits_head: bool = True
    held: bool = False
    """Whether its reading is stopped from our side: then nothing else takes it up."""
    _unwrapped: ChunkedBody | None = None
    """What unwraps the body under way, while that is ours to do."""
    _body: Inside | None = None

    def begin(self) -> None:
        """For another exchange."""
        self.used = self.awaits_head = True
        self.held = False
        self._unwrapped = None

    def feed_data(self, data: Any, size: int = 0) -> None:
        self._body = chunked_body_of(data)
        super().feed_data(data, size)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if getattr(transport, "max_size", 0) > AT_A_READ:
            transport.max_size = AT_A_READ  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._unwrapped is not None and data:
            self._unwrap(self._unwrapped, data)
            return
        if self.awaits_head and (end := data.find(b"\r\n\r\n") + 4) > 3:
            self.awaits_head = False
            self._body = None
            super().data_received(data[:end])
            data = data[end:]
            body = cast("Inside | None", self._body)  # which that has set
            if body is not None and body._http_chunk_splits is None and not self._reading_paused:
                # Nothing but the head has been parsed. aiohttp's parser wants this to have come before any data.
                body.begin_http_chunk_receiving()
                self._unwrapped = ChunkedBody()
                if data:
                    self._unwrap(self._unwrapped, data)
                return
            if not data:
                return
        super().data_received(data)

    def _unwrap(self, unwrapped: ChunkedBody, data: bytes) -> None:
        body = self._body
        if body is not None and (payload := unwrapped.payload(data)):
            size = len(payload)
            body._buffer.append(payload)
            body._size += size
            body.total_bytes += size
            waiter = body._waiter
            if waiter is not None:
                body._waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            if body._size > body._high_water:
                self.pause_reading()
        if unwrapped.rest is not None:
            self._unwrapped = None
            super().data_received(unwrapped.rest)

    def pause_reading(self) -> None:
        if self._unwrapped is None:
            super().pause_reading()
        else:
            # Not the parser, which has nothing to stop with.
            self._reading_paused = True
            self._pause_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if _UNWRAPS and not self._reading_paused:
            return  # aiohttp asks at each read, and would call the parser with nothing, 6 µs of a small call
        if self._unwrapped is None:
            super().resume_reading(resume_parser)
        else:
            self._reading_paused = False
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not self.held:
            super()._resume_transport_reading()

    def hold(self, on: bool) -> None:
        """Stops the reading of the socket, or takes it up, unless aiohttp has stopped it, or it is gone."""
        self.held = on
        transport = socket_of(self.transport)
        if transport is None or transport.is_closing():
            return
        if on:
            transport.pause_reading()
        elif not (self._reading_paused or getattr(self, "_buffer_paused", False)):
            transport.resume_reading()

    def sip(self) -> None:
        """
        Reads, once, what has come to a connection that is held. Having the loop watch the socket for one read and then no more
        costs twice the read.
        """
        transport = socket_of(self.transport)
        if transport is None or not self.held or self._reading_paused or transport.is_closing():
            return
        read = getattr(transport, "_read_ready", None)
        if read is not None:
            read()
            return
        # uvloop's: with TLS in it there is no way; without, what it has stopped reading can be read here.
        socket = transport.get_extra_info("socket")
        if socket is None or transport.get_extra_info("sslcontext") is not None:
            return
        try:
            data = os.read(socket.fileno(), AT_A_READ)
        except OSError:
            return  # nothing has come, or a fault, which shows where the connection is taken up
        if data:
            self.data_received(data)

    def close(self) -> None:
        if self.held:
            self.hold(False)  # TLS waits for the other side's goodbye
        self._tell_reader()
        super().close()

    def abort(self) -> None:
        self._tell_reader()
        super().abort()

    def _tell_reader(self) -> None:
        # aiohttp forgets the body when a connection is closed from this side, and whoever reads it waits for ever.
        body = getattr(self, "_payload", None)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientConnectionError("closed from this side"))

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().set_exception(exc, *cause)
        body = getattr(self, "_payload", None)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError(str(exc)), *cause)


def socket_of(transport: asyncio.BaseTransport | None) -> asyncio.Transport | None:
    """
    What reads the socket: under TLS asyncio's own transport goes on reading while the one above it is stopped, packet by packet,
    up to half a megabyte.
    """
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return cast("asyncio.Transport | None", below or transport)


_UNWRAPS = all(
    hasattr(StreamReader, name) for name in ("begin_http_chunk_receiving", *Inside.__annotations__)
) and all(
    hasattr(ResponseHandler, name)
    for name in (
        "_pause_transport_reading",
        "_resume_transport_reading",
        "_reading_paused",
        "_buffer_paused",
    )
)
"""Whether what `Connection` leans on to unwrap a body is there."""


def chunked_body_of(reply: tuple[Any, Any]) -> Inside | None:
    """Where the chunks of a reply go as they come; None for a reply that has none, or is to be decompressed first."""
    message, body = reply
    return inside_of(body) if message.chunked and not message.compression else None


def inside_of(content: object) -> Inside | None:
    """What a body's bytes can be taken from without its calls. No timer of aiohttp's runs on a connection of ours."""
    inside = cast("Inside", content)
    return (
        inside
        if _UNWRAPS and type(content) is StreamReader and type(inside._protocol) is Connection
        else None
    )


# Half of what may wait in a connection before its reading stops. aiohttp's 256 KiB let three reads of the socket wait where others have the
# loop: new memory all the time, 40 % more for reading 16 streams at full speed.
READ_AHEAD = 64 << 10

# What is read at once. asyncio's transports ask for 256 KiB each time, however little has come: glibc maps so much memory anew, and
# unmaps it, until the program happens to have freed a piece as large. Three system calls and a page fault: 16 of the 37 µs of an event
# that comes alone.
AT_A_READ = 120 << 10
# What goes straight: as much as a connection takes without waiting.
AT_ONCE = 32 << 10


class Reply:
    """
    What came back: as much of an `aiohttp.ClientResponse` as is used here, which is made, started and released twice. With the look
    at the idle connections a small call takes 13 µs less (64 at once: 137 to 124).
    """

    __slots__ = (
        "_connector",
        "_key",
        "_loop",
        "content",
        "headers",
        "protocol",
        "reason",
        "status",
        "version",
    )

    def __init__(self, connector: Any, key: Any, protocol: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._connector = connector
        self._key = key
        self._loop = loop
        self.protocol: Any = protocol
        """The connection; None once it has been given back."""

    def begin(self, message: RawResponseMessage, content: StreamReader) -> None:
        """Its head has come."""
        self.status: int = message.code
        self.reason: str | None = message.reason
        self.version: Any = message.version
        self.headers: Mapping[str, str] = message.headers
        self.content: StreamReader = content
        content.on_eof(self._ended)

    @property
    def connection(self) -> "Reply | None":
        """This, while it has one."""
        return None if self.protocol is None else self

    def _ended(self) -> None:
        if self.protocol is not None and not self.protocol.upgraded:
            self._give_back(False)

    def _give_back(self, should_close: bool) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None and not (should_close and self._loop.is_closed()):
            self._connector._release(self._key, protocol, should_close=should_close)

    def release(self) -> None:
        """Gives the connection back, its body having been read."""
        self._forbid()
        self._give_back(False)

    def close(self) -> None:
        self._forbid()
        self._give_back(True)

    def _forbid(self) -> None:
        content: StreamReader | None = getattr(self, "content", None)
        if content is not None and content.exception() is None:
            content.set_exception(aiohttp.ClientConnectionError("Connection closed"))


class Straight:
    """
    Sends small requests of one session straight over its connector, in place of `ClientSession.request`.

    That makes, for each request, what redirects, cookies, proxies, credentials and traces may need, none of which there are here,
    and a task to write a body, however small: 20 µs before Python 3.12, which starts a task at once, and 10 from there on.
    """

    def __init__(self, session: aiohttp.ClientSession, max_header_size: int) -> None:
        self._session = session
        self._connector: Any = session.connector
        self._loop = asyncio.get_running_loop()
        self._max_header_size = max_header_size
        self._known: dict[URL, tuple[aiohttp.ClientRequest, object, Any, aiohttp.RequestInfo, str]] = {}

    def takes(self, url: URL) -> bool:
        """Whether it may go straight: not with a user and password in it."""
        return url in self._known or (url.raw_user is None and url.raw_password is None)

    async def post(
        self, url: URL, headers: Mapping[str, str], body: bytes, timeout: aiohttp.ClientTimeout
    ) -> Reply:
        """What `ClientSession.post` gives and raises, but for errors of connecting, which come as the connector has them."""
        request, key, defaults, info, line = self._known.get(url) or self._meet(url)
        protocol = self._idle(key)
        if protocol is None:
            connection = await self._connector.connect(request, traces=[], timeout=timeout)
            protocol, connection._protocol = connection._protocol, None
        reply = Reply(self._connector, key, protocol, self._loop)
        try:
            protocol.set_response_params(
                read_until_eof=True,
                max_line_size=self._max_header_size,
                max_field_size=self._max_header_size,
                read_bufsize=READ_AHEAD,
            )
            _write(protocol.transport, line, defaults.copy(), headers, body)
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
            reply.begin(message, content)
        except HttpProcessingError as exc:
            reply.close()
            raise aiohttp.ClientResponseError(
                info, (), status=exc.code, message=exc.message, headers=exc.headers
            ) from exc
        except BaseException:
            reply.close()
            raise
        return reply

    def _idle(self, key: Any) -> Any:
        """The next of the connector's idle connections, as its `connect` would take it; None where it had to look further."""
        connector = self._connector
        idle = connector._conns.get(key)
        if not idle:
            return None
        protocol, since = idle[0]
        if (
            type(protocol) is not Connection
            or not protocol.is_connected()
            or monotonic() - since > connector._keepalive_timeout
        ):
            return None
        idle.popleft()
        if not idle:
            del connector._conns[key]
        connector._acquired.add(protocol)
        reused.set(True)
        protocol.begin()
        return protocol

    def _meet(self, url: URL) -> tuple[aiohttp.ClientRequest, object, Any, aiohttp.RequestInfo, str]:
        """What is alike for all requests to one address: aiohttp's own, made once, for its connector and its headers."""
        request = aiohttp.ClientRequest("POST", url, loop=self._loop, session=self._session)
        if len(self._known) >= 256:
            self._known.clear()
        known = self._known[url] = (
            request,
            request.connection_key,
            request.headers.copy(),
            request.request_info,
            f"POST {url.raw_path_qs} HTTP/1.1",
        )
        return known


def _write(transport: Any, line: str, head: Any, headers: Mapping[str, str], body: bytes) -> None:
    # Apart, since a frame that awaits may come to be in a traceback, and this one's bytes hold the key.
    if transport is None or transport.is_closing():
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
    head.update(headers)
    head[hdrs.CONTENT_LENGTH] = str(len(body))
    transport.write(cast("Any", http_writer)._serialize_headers(line, head) + body)


def straight(session: aiohttp.ClientSession, max_header_size: int) -> Straight | None:
    """
    For a session of ours; None where aiohttp is not made of the parts that it uses.
    """
    connector = session.connector
    fits = (
        all(hasattr(connector, name) for name in ("_acquired", "_conns", "_keepalive_timeout", "_release"))
        and ["self", "req", "traces", "timeout"]
        == list(inspect.signature(aiohttp.TCPConnector.connect).parameters)
        and hasattr(aiohttp.ClientRequest, "connection_key")
        and hasattr(aiohttp.ClientRequest, "request_info")
        and hasattr(http_writer, "_serialize_headers")
        and hasattr(Lent, "protocol")
        and hasattr(ResponseHandler, "set_response_params")
    )
    return Straight(session, max_header_size) if fits else None
