"""
What we mend in aiohttp, and the request that goes out in one write: nothing else is here, so that it can be deleted one day.

Each leans on private parts of aiohttp, as read in 3.14. What is missing in another release is looked for, once or at each use, and
aiohttp's own way is then taken: slower, or with its fault, and never broken.
"""

import inspect
from typing import Any, cast

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter

__all__ = ["Connection", "request_class"]


class Connection(ResponseHandler):
    """
    One connection.

    Mends three things of aiohttp 3.14, two of them met by a bad chunk size. Its parser gives nothing at all of a packet in which
    it meets nonsense, head and good events before it included: so the head is parsed apart. When the nonsense comes in a later
    packet, it tells whoever waits for a head, but not the reader of the body, who would wait for ever. Nor does it tell that
    reader when the connection is closed from this side.
    """

    used = False
    """Whether it has carried a request before."""
    awaits_head: bool = True

    def data_received(self, data: bytes) -> None:
        if self.awaits_head and (end := data.find(b"\r\n\r\n") + 4) > 3:
            self.awaits_head = False
            super().data_received(data[:end])
            data = data[end:]
            if not data:
                return
        super().data_received(data)

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


# aiohttp makes a task to write a body, however small: before Python 3.12 that is a task, a turn of the loop and a poll more, 20 µs of
# the 150 that a small call costs here; from 3.12 it starts the task at once, which leaves 10. A body that cannot fill the writer's
# buffer, 64 KiB with the headers, needs no task, since writing it never waits.
AT_ONCE = 32 << 10


class OneWriteRequest(aiohttp.ClientRequest):
    """Writes head and body of a small request in one go, without a task."""

    _small: bytes | None = None

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        # Without a payload object around the bytes: 2 µs.
        if type(body) is bytes and len(body) <= AT_ONCE and hdrs.CONTENT_TYPE in self.headers:
            self._small = body
            self.headers[hdrs.CONTENT_LENGTH] = str(len(body))
        else:
            super().update_body_from_data(body, _stacklevel)

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        own = cast("Any", self)
        body, protocol = self._small, conn.protocol
        if (
            body is None
            or protocol.writing_paused
            or own._continue is not None
            or own._traces
            or getattr(own, "_upload_tracker", None) is not None  # not in every 3.14
            or own.chunked is not None
            or own.compress
            or own.proxy
        ):
            if body is not None:
                super().update_body_from_data(body)
            return await super().send(conn)
        writer = StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await writer.write(body)
        writer.set_eof()
        protocol.start_timeout()
        self.response: Any = own.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=own._timer,
            request_info=self.request_info,
            traces=own._traces,
            loop=self.loop,
            session=own._session,
            stream_writer=writer,
        )
        return cast("aiohttp.ClientResponse", self.response)


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


def request_class() -> type[aiohttp.ClientRequest]:
    """
    `OneWriteRequest` where a reply is made of the things that it hands over, and the writer and connection have what it calls.
    """
    fits = (
        _PARAMETERS == list(inspect.signature(aiohttp.ClientResponse.__init__).parameters)
        and ["self", "body", "_stacklevel"]
        == list(inspect.signature(aiohttp.ClientRequest.update_body_from_data).parameters)
        and all(hasattr(StreamWriter, name) for name in ("write_headers", "write", "set_eof"))
        and all(hasattr(ResponseHandler, name) for name in ("writing_paused", "start_timeout"))
    )
    return OneWriteRequest if fits else aiohttp.ClientRequest
