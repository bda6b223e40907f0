"""
What we mend in aiohttp, and the request that goes out in one write: nothing else is here, so that it can be deleted one day.

Each leans on private parts of aiohttp, as read in 3.14. What is missing in another release is looked for, once or at each use, and
aiohttp's own way is then taken: slower, or with its fault, and never broken.
"""

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, cast

import aiohttp
from aiohttp import hdrs, http_writer
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader
from yarl import URL

from .chunked import ChunkedBody

__all__ = ["AT_ONCE", "Connection", "Straight", "straight"]


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
    _body: StreamReader | None = None

    def begin(self) -> None:
        """For another exchange."""
        self.used = self.awaits_head = True
        self.held = False
        self._unwrapped = None

    def feed_data(self, data: Any, size: int = 0) -> None:
        self._body = chunked_body_of(data)
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if self._unwrapped is not None and data:
            self._unwrap(data)
            return
        if self.awaits_head and (end := data.find(b"\r\n\r\n") + 4) > 3:
            self.awaits_head = False
            self._body = None
            super().data_received(data[:end])
            data = data[end:]
            body: Any = self._body
            if body is not None and body._http_chunk_splits is None and not self._reading_paused:
                # Nothing but the head has been parsed. aiohttp's parser wants this to have come before any data.
                body.begin_http_chunk_receiving()
                self._unwrapped = ChunkedBody()
                if data:
                    self._unwrap(data)
                return
            if not data:
                return
        super().data_received(data)

    def _unwrap(self, data: bytes) -> None:
        unwrapped, body = cast("ChunkedBody", self._unwrapped), cast("Any", self._body)
        if payload := unwrapped.payload(data):
            body.feed_data(payload)
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
        if self._unwrapped is None:
            super().resume_reading(resume_parser)
        elif self._reading_paused:
            self._reading_paused = False
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not self.held:
            super()._resume_transport_reading()

    def hold(self, on: bool) -> None:
        """Stops the reading of the socket, or takes it up, unless aiohttp has stopped it, or it is gone."""
        self.held = on
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if on:
            transport.pause_reading()
        elif not (self._reading_paused or getattr(self, "_buffer_paused", False)):
            transport.resume_reading()

    def close(self) -> None:
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


_UNWRAPS = (
    hasattr(StreamReader, "begin_http_chunk_receiving")
    and hasattr(StreamReader, "_http_chunk_splits")
    and all(
        hasattr(ResponseHandler, name)
        for name in (
            "_pause_transport_reading",
            "_resume_transport_reading",
            "_reading_paused",
            "_buffer_paused",
        )
    )
)
"""Whether what `Connection` leans on to unwrap a body is there."""


def chunked_body_of(reply: tuple[Any, Any]) -> StreamReader | None:
    """Where the chunks of a reply go as they come; None for a reply that has none, or is to be decompressed first."""
    message, body = reply
    return (
        body
        if _UNWRAPS and type(body) is StreamReader and message.chunked and not message.compression
        else None
    )


# What goes straight: as much as a connection takes without waiting.
AT_ONCE = 32 << 10

_PARAMETERS = [
    "self",
    "method",
    "url",
    "writer",
    "continue100",
    "timer",
    "request_info",
    "traces",
    "loop",
    "session",
    "stream_writer",
]


class _Written:
    """Stands for the writer of a request that has been written."""

    output_size = 0


class Straight:
    """
    Sends small requests of one session straight over its connector, in place of `ClientSession.request`.

    That makes, for each request, what redirects, cookies, proxies, credentials and traces may need, none of which there are here,
    and a task to write a body, however small: 20 µs before Python 3.12, which starts a task at once, and 10 from there on.
    """

    def __init__(self, session: aiohttp.ClientSession, max_header_size: int) -> None:
        self._session = session
        self._connector = cast("Any", session.connector)
        self._loop = asyncio.get_running_loop()
        self._max_header_size = max_header_size
        self._known: dict[URL, tuple[aiohttp.ClientRequest, Any, aiohttp.RequestInfo, str]] = {}

    async def post(
        self, url: URL, headers: Mapping[str, str], body: bytes, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """What `ClientSession.post` gives and raises, but for errors of connecting, which come as the connector has them."""
        request, defaults, info, line = self._known.get(url) or self._meet(url)
        connection = await self._connector.connect(request, traces=[], timeout=timeout)
        try:
            protocol = connection.protocol
            protocol.set_response_params(
                read_until_eof=True,
                max_line_size=self._max_header_size,
                max_field_size=self._max_header_size,
            )
            _write(protocol.transport, line, defaults.copy(), headers, body)
            reply = aiohttp.ClientResponse(
                "POST",
                url,
                writer=cast("Any", None),
                continue100=None,
                timer=request._timer,  # pyright: ignore[reportPrivateUsage]
                request_info=info,
                traces=[],
                loop=self._loop,
                session=self._session,
                stream_writer=cast("Any", _Written),
            )
            try:
                return await reply.start(connection)
            except BaseException:
                reply.close()
                raise
        except BaseException:
            connection.close()
            raise

    def _meet(self, url: URL) -> tuple[aiohttp.ClientRequest, Any, aiohttp.RequestInfo, str]:
        """What is alike for all requests to one address: aiohttp's own, made once, for its connector and its headers."""
        request = aiohttp.ClientRequest("POST", url, loop=self._loop, session=self._session)
        if len(self._known) >= 256:
            self._known.clear()
        known = self._known[url] = (
            request,
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
    fits = (
        _PARAMETERS == list(inspect.signature(aiohttp.ClientResponse.__init__).parameters)
        and ["self", "req", "traces", "timeout"]
        == list(inspect.signature(aiohttp.TCPConnector.connect).parameters)
        and hasattr(http_writer, "_serialize_headers")
        and hasattr(ResponseHandler, "set_response_params")
        and hasattr(aiohttp.ClientRequest, "request_info")
    )
    return Straight(session, max_header_size) if fits else None
