"""
A server for benchmarks: every reply is bytes that were prepared once.

    async with PrerenderedServer(Prerendered(deltas=100_000, events_per_write=64)) as server:
        client = AsyncKimi(base_url=server.base_url, api_key="sk-any")

It reads requests with the least that HTTP/1.1 allows (a length, no chunked bodies) and writes buffers that all streams
share, so that the client is what is measured. Run it as a process of its own for that:
`python -m kimi_async.testing.simulator --deltas 100000 --events-per-write 64`.
"""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Self

from ..sse import encode_event
from .simulator.chat_model import MODELS, Generated, vocabulary
from .simulator.records import SimulatorStats
from .simulator.replies import chunks, completion, json_bytes, usage_of

__all__ = ["Prerendered", "PrerenderedServer"]

_ID = "chatcmpl-6911668985355ab7ab43bc2b"
_CREATED = 1_762_748_041


@dataclass(frozen=True)
class Prerendered:
    """
    One reply for everybody: `deltas` content chunks of about 220 bytes, in writes of `events_per_write` events.

    `interval` is the time in seconds between two writes of one stream (0: as fast as the client reads).
    `reasoning` of the deltas carry `reasoning_content` instead of content. `padding` bytes are added to each text.
    """

    deltas: int = 1_000
    events_per_write: int = 1
    interval: float = 0.0
    reasoning: int = 0
    padding: int = 0
    model: str = "kimi-k3"

    @cached_property
    def generated(self) -> Generated:
        """The reply's tokens: the same ones on every machine."""
        dice = random.Random(self.deltas)
        words = [" " + word + "x" * self.padding for word in vocabulary()]
        tokens = dice.choices(words, k=self.deltas)
        return Generated(tuple(tokens[: self.reasoning]), tuple(tokens[self.reasoning :]), (), "stop")

    @property
    def text(self) -> str:
        """The content a client must end up with."""
        return "".join(self.generated.content)

    @cached_property
    def events(self) -> Sequence[bytes]:
        """The stream's events, `[DONE]` last."""
        usage = usage_of(self.generated, 93)
        payloads = chunks(self.generated, id=_ID, created=_CREATED, model=self.model, usage=usage)
        return [encode_event(payload) for payload in payloads]

    @cached_property
    def writes(self) -> Sequence[bytes]:
        """What is written after the head, chunk sizes and the end of the body included."""
        found: list[bytes] = []
        source = iter(self.events)
        while group := b"".join(itertools.islice(source, max(1, self.events_per_write))):
            found.append(b"%x\r\n%b\r\n" % (len(group), group))
        found[-1] += b"0\r\n\r\n"
        return found

    @cached_property
    def stream_head(self) -> bytes:
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nMsh-Request-Id: "
            b"e1c6b6b8-a655-11f1-90aa-ea0972be230a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    @cached_property
    def whole(self) -> bytes:
        """The reply to a request without `stream`: at most 100 deltas of the text."""
        start = Generated(self.generated.reasoning[:100], self.generated.content[:100], (), "stop")
        value = completion(start, id=_ID, created=_CREATED, model=self.model, usage=usage_of(start, 93))
        return _json_reply(json_bytes(value))

    @cached_property
    def models(self) -> bytes:
        return _json_reply(json_bytes({"object": "list", "data": [model.public() for model in MODELS]}))


def _json_reply(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nMsh-Request-Id: "
        b"e1c6b6b8-a655-11f1-90aa-ea0972be230a\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


class PrerenderedServer:
    """The server; an async context manager. Any key opens it. `stats` counts as the simulator's does."""

    def __init__(self, reply: Prerendered | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.reply: Prerendered = reply or Prerendered()
        self.host = host
        self.port: int = port
        self.api_key = "sk-simulator"
        self.stats: SimulatorStats = SimulatorStats()
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    async def start(self) -> None:
        _ = self.reply.writes, self.reply.whole, self.reply.models  # rendered now, not on the first request
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self, loop), self.host, self.port, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection. Idempotent."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for connection in list(self.connections):
            connection.abort()
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Connection(asyncio.Protocol):
    __slots__ = (
        "_at",
        "_buffer",
        "_busy",
        "_loop",
        "_next",
        "_paused",
        "_reply",
        "_server",
        "_stats",
        "_timer",
        "_transport",
    )

    def __init__(self, server: PrerenderedServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._reply = server.reply
        self._stats = server.stats
        self._loop = loop
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._paused = False
        self._next = 0
        self._at = 0.0

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)
        self._stats.connections_opened += 1
        self._stats.connections_open += 1

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        self._server.connections.discard(self)
        self._stats.connections_open -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            self._busy = False
            self._stats.in_flight -= 1
            self._stats.clients_gone += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._read()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._busy and self._timer is None:
            self._write()

    def _read(self) -> None:
        """Answer the first whole request in the buffer, if there is one."""
        buffer, transport = self._buffer, self._transport
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or transport is None:
            return
        head = buffer[:end]
        lowered = head.lower()
        at = lowered.find(b"\r\ncontent-length:")
        length = int(lowered[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        total = end + 4 + length
        if b"\r\nexpect: 100-continue" in lowered and len(buffer) < total:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(buffer) < total:
            return
        body = buffer[end + 4 : total]
        self._buffer = buffer[total:]
        stats = self._stats
        stats.requests += 1
        stats.bytes_received += length
        stats.in_flight += 1
        stats.peak_in_flight = max(stats.peak_in_flight, stats.in_flight)
        if head.startswith(b"GET"):
            self._whole(self._reply.models)
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._busy = True
            self._next = 0
            self._at = self._loop.time()
            transport.write(self._reply.stream_head)
            self._write()
        else:
            self._whole(self._reply.whole)

    def _whole(self, reply: bytes) -> None:
        assert self._transport is not None
        self._transport.write(reply)
        self._stats.bytes_sent += len(reply)
        self._stats.in_flight -= 1
        if self._buffer:
            self._read()

    def _write(self) -> None:
        """Write until the socket is full, the next write is not due yet, or the stream has ended."""
        self._timer = None
        writes, transport, interval = self._reply.writes, self._transport, self._reply.interval
        while transport is not None and self._next < len(writes):
            if self._paused:
                return
            data = writes[self._next]
            self._next += 1
            transport.write(data)
            self._stats.bytes_sent += len(data)
            if interval > 0 and self._next < len(writes):
                self._at += interval
                self._timer = self._loop.call_at(self._at, self._write)
                return
        if transport is None:
            return
        self._busy = False
        self._stats.in_flight -= 1
        self._stats.events_sent += len(self._reply.events)
        if self._buffer:
            self._read()
