"""
A server that only copies bytes: `python -m benchmarks.server`.

A raw `asyncio.Protocol`, in a process of its own and on a core of its own. It renders a shape before it is measured,
and answers with the rendered bytes, in the chunked transfer coding that the real host uses; nothing is encoded while
the clock runs. It counts its own CPU time, and each result says how busy it was, so that a figure which is really the
server's can be seen to be (`busy` in the results).

    GET /_stats               its CPU seconds, connections accepted so far, connections open
    GET /_prepare/<shape>     renders a shape
    POST /<shape>/…           answers with it, whatever follows in the path
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import resource
import sys
import time
from collections import deque
from typing import Any

import msgspec

from benchmarks import shapes
from benchmarks.shapes import Shape

__all__ = ["listen", "main"]

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nMsh-Request-Id: bench\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_JSON = b"HTTP/1.1 %b\r\nContent-Type: application/json; charset=utf-8\r\nMsh-Request-Id: bench\r\nContent-Length: %d\r\n\r\n%b"
_END = b"0\r\n\r\n"

# Between the arrival of the last stream of a paced shape and the first event: the clients take their first CPU
# reading here, when everything is open and nothing flows.
GATHER = 0.3


class Server:
    """What all connections share: rendered shapes, paces, counters."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.accepted = 0
        self.open = 0
        self._rendered: dict[str, tuple[Shape, list[bytes]]] = {}
        self._paces: dict[str, Pace] = {}

    def rendered(self, name: str) -> tuple[Shape, list[bytes]]:
        """A shape and the writes that make its answer."""
        known = self._rendered.get(name)
        if known is None:
            shape = Shape.parse(name)
            if shape.kind in ("reply", "upload"):
                body = shapes.reply(shape)
                ready = [_JSON % (b"200 OK", len(body), body)]
            else:
                ready = shapes.writes(shape)
            known = self._rendered[name] = (shape, ready)
            gc.freeze()
        return known

    def pace(self, name: str) -> Pace:
        """The pace that the next stream of this shape joins; a new one once that has begun."""
        pace = self._paces.get(name)
        if pace is None or pace.begun:
            pace = self._paces[name] = Pace(self, *self.rendered(name))
        return pace


class Pace:
    """
    Streams that move together: each gets an event every 1/rate seconds, at its own phase.

    One timer serves all of them. An event is one `write` on its socket, hence one packet on loopback.
    """

    def __init__(self, server: Server, shape: Shape, ready: list[bytes]) -> None:
        self._loop = server.loop
        self._shape = shape
        self._ready = ready
        self._members: list[Connection] = []
        self._queue: deque[tuple[float, Connection, int]] = deque()
        self._interval = 1 / shape.rate
        self.begun = False
        # A stamped event is cut at its stamp, so that the moment of writing can be put in.
        blank = shapes.stamp(0).encode()
        self._cut = [write.partition(blank) for write in ready] if shape.kind == "stamped" else None

    def join(self, connection: Connection) -> None:
        connection.send(_STREAM + self._ready[0])
        self._members.append(connection)
        if len(self._members) == self._shape.together:
            self.begun = True
            start = self._loop.time() + GATHER
            step = self._interval / len(self._members)
            self._queue.extend((start + at * step, member, 1) for at, member in enumerate(self._members))
            self._loop.call_at(start, self._tick)

    def _tick(self) -> None:
        queue, ready, cut = self._queue, self._ready, self._cut
        last = len(ready) - 1
        now = self._loop.time()
        while queue and queue[0][0] <= now:
            due, member, number = queue.popleft()
            if member.closed:
                continue
            if cut is None:
                member.send(ready[number])
            else:
                before, blank, after = cut[number]
                member.send(before + b"%020d" % (time.monotonic_ns() // 1000) + after if blank else before)
            if number < last:
                queue.append((due + self._interval, member, number + 1))
            else:
                member.end()
        if queue:
            self._loop.call_at(queue[0][0], self._tick)


class Connection(asyncio.Protocol):
    """One client connection: reads a request, answers with a shape, stays open for the next."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._head = b""
        self._path = b""
        self._left = 0
        self._chunked = False
        self._tail = b""
        self._pending: deque[bytes] = deque()
        self._paused = False
        self._shape: Shape | None = None
        self.closed = False

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._server.accepted += 1
        self._server.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pending.clear()
        self._server.open -= 1

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        if self._chunked:
            self._chunk_received(data)
            return
        if self._left > 0:
            self._left -= len(data)
            if self._left <= 0:
                self._respond()
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self._head[:end], self._head[end + 4 :]
        self._head = b""
        self._path = head.split(b" ", 2)[1]
        if _CHUNKED.search(head):
            self._chunked = True
            self._tail = b""
            self._chunk_received(rest)
            return
        length = _LENGTH.search(head)
        self._left = (int(length[1]) if length else 0) - len(rest)
        if self._left <= 0:
            self._respond()

    def _chunk_received(self, data: bytes) -> None:
        # The end of a chunked request is looked for at the end of what has come: no client here pipelines.
        self._tail = (self._tail + data)[-5:]
        if self._tail == _END:
            self._chunked = False
            self._respond()

    def send(self, data: bytes) -> None:
        """Writes past the transport while nothing is queued in it: half of the cost of a paced event."""
        if self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._transport.abort()
            return
        if sent < len(data):
            self._transport.write(data[sent:])

    def end(self) -> None:
        late = self._shape.late_ms if self._shape else 0
        if late:
            self._server.loop.call_later(late / 1000, self._terminate)
        else:
            self._terminate()

    def _terminate(self) -> None:
        if not self.closed:
            self._transport.write(_END)

    def _respond(self) -> None:
        first, _, rest = self._path[1:].partition(b"/")
        name = first.decode()
        if name.startswith("_"):
            self._control(name, rest.decode())
            return
        try:
            shape, ready = self._server.rendered(name)
        except ValueError as exc:
            body = msgspec.json.encode({"error": {"message": str(exc), "type": "resource_not_found_error"}})
            self._transport.write(_JSON % (b"404 Not Found", len(body), body))
            return
        self._shape = shape
        if shape.kind in ("reply", "upload"):
            self._transport.write(ready[0])
        elif shape.rate:
            self._server.pace(name).join(self)
        else:
            self._transport.write(_STREAM)
            self._pending.extend(ready)
            self._pump()

    def _pump(self) -> None:
        pending, write = self._pending, self._transport.write
        if not pending:
            return
        while pending and not self._paused:
            write(pending.popleft())
        if not pending:
            self.end()

    def _control(self, name: str, rest: str) -> None:
        if name == "_prepare":
            self._server.rendered(rest)
        body = msgspec.json.encode(
            {"cpu": time.process_time(), "accepted": self._server.accepted, "open": self._server.open}
        )
        self._transport.write(_JSON % (b"200 OK", len(body), body))


async def listen(port: int = 0) -> asyncio.Server:
    """Listens on loopback; any free port unless one is given."""
    loop = asyncio.get_running_loop()
    server = Server(loop)
    return await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=16_384)


async def serve(port: int) -> None:
    """Serves until standard input ends, which is when the parent is gone."""
    listener = await listen(port)
    print(listener.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 64) else ended.set())
    await ended.wait()
    listener.close()


def main(argv: list[str] | None = None) -> None:
    """The process: one core, as many descriptors as allowed, no cyclic collection."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.server", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--port", type=int, default=0, help="0: any free one; it is printed on the first line"
    )
    parser.add_argument("--core", type=int, default=None, help="the core to stay on, where the system allows")
    options = parser.parse_args(argv)
    if options.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    asyncio.run(serve(options.port))


if __name__ == "__main__":
    main()
