"""
Faults of bytes and time: connections, silences, compression, framing.
"""

import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from ..simulator.replies import Cut, End, Head, Pause, Raw, Send, Step
from .fault import Fault
from .places import at_place

__all__ = [
    "BadFraming",
    "Bomb",
    "CloseIdle",
    "Compress",
    "Drop",
    "LateTerminator",
    "Stall",
    "Trickle",
]


class Drop(Fault, frozen=True):
    """
    The connection is lost: after so many events, or bytes of the body, or before the headers.

    `how`: "fin" (closed; the body's end never comes), "rst" (reset), "truncated" (closed inside a chunk that
    promised more), "clean" (the body ends properly, as if that were all).
    """

    after_events: int | None = None
    after_bytes: int | None = None
    before_headers: bool = False
    how: Literal["fin", "rst", "truncated", "clean"] = "rst"

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        if self.before_headers:
            return iter((Cut("rst" if self.how == "rst" else "fin"),))
        events = 0 if self.after_events is None and self.after_bytes is None else self.after_events
        return at_place(steps, events, self.after_bytes, self._end)

    def _end(self, rest: Iterator[Step]) -> Iterator[Step]:
        if self.how == "clean":
            yield End()
            return
        if self.how == "truncated":
            part = next((step.data for step in rest if isinstance(step, Send)), b"data: {}")
            yield Raw(b"%x\r\n%b" % (len(part) + 1024, part[: len(part) // 2]))
        yield Cut("rst" if self.how == "rst" else "fin")


class Stall(Fault, frozen=True):
    """Silence for `seconds` (None: until the client goes away), then on as if nothing had been."""

    after_events: int | None = None
    after_bytes: int | None = None
    before_headers: bool = False
    seconds: float | None = None

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        pause: Iterator[Step] = iter((Pause(math.inf if self.seconds is None else self.seconds),))
        if self.before_headers:
            return itertools.chain(pause, steps)
        events = 0 if self.after_events is None and self.after_bytes is None else self.after_events
        return at_place(steps, events, self.after_bytes, lambda rest: itertools.chain(pause, rest))


class Trickle(Fault, frozen=True):
    """The body in pieces of `size` bytes, each a chunk of its own, `delay` seconds apart."""

    size: int = 1
    delay: float = 0.0

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        size = max(1, self.size)
        for step in steps:
            if not isinstance(step, Send):
                yield step
                continue
            last = len(step.data) - size
            for at in range(0, len(step.data), size):
                yield Send(step.data[at : at + size], step.events if at >= last else 0)
                if self.delay > 0:
                    yield Pause(self.delay)


class Compress(Fault, frozen=True):
    """
    The body in gzip. `broken`: "truncated" (the last bytes are missing, the body ends properly), "corrupt" (a few
    bytes in the middle are wrong), "lie" (the header says gzip, the body is plain).
    """

    broken: Literal["", "truncated", "corrupt", "lie"] = ""

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        number = 0
        for step in steps:
            if isinstance(step, Head):
                # The length is not known before the end.
                yield replace(step, headers=(*step.headers, ("Content-Encoding", "gzip")), framing="chunked")
            elif isinstance(step, Send) and self.broken != "lie":
                data = packer.compress(step.data) + packer.flush(zlib.Z_SYNC_FLUSH)
                number += 1
                if self.broken == "corrupt" and number == 2:
                    data = bytes(byte ^ 0x5A for byte in data)
                if data:
                    yield Send(data, step.events)
            elif isinstance(step, End) and self.broken != "lie":
                if self.broken != "truncated":
                    yield Send(packer.flush())
                yield step
            else:
                yield step


class Bomb(Fault, frozen=True):
    """A gzip body that unpacks to `size` bytes of blanks before anything else; a thousandth of that travels."""

    size: int = 400 * 1024 * 1024

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        block = b" " * (1 << 20)
        for step in steps:
            if isinstance(step, Head):
                yield replace(step, headers=(*step.headers, ("Content-Encoding", "gzip")), framing="chunked")
                packer = zlib.compressobj(9, zlib.DEFLATED, 31)
                for _ in range(max(1, self.size >> 20)):
                    data = packer.compress(block)
                    if data:
                        yield Send(data)
                yield Send(packer.flush())
            elif not isinstance(step, Send):
                yield step


class BadFraming(Fault, frozen=True):
    """
    HTTP itself is broken: "status_line", "header" (a line without a colon), "chunk_size" (a size that is no number, after
    `after_events` events), "short_length" (the body is shorter than promised), "two_lengths" (contradicting ones).
    """

    kind: Literal["status_line", "header", "chunk_size", "short_length", "two_lengths"] = "chunk_size"
    after_events: int = 3

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        if self.kind == "status_line":
            return iter((Raw(b"HTTP/9.x maybe\r\n\r\n"), Cut("fin")))
        if self.kind == "header":
            return iter((Raw(b"HTTP/1.1 200 OK\r\nthis is no header\r\n\r\n"), Cut("fin")))
        if self.kind == "two_lengths":
            return iter(
                (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello"), Cut("fin"))
            )
        if self.kind == "short_length":
            return self._short(steps)
        bad: tuple[Step, ...] = (Raw(b"zz\r\ndata: {}\r\n"), Cut("fin"))
        return at_place(steps, self.after_events, None, lambda rest: iter(bad))

    def _short(self, steps: Iterator[Step]) -> Iterator[Step]:
        head: Head | None = None
        body = b""
        for step in steps:
            if isinstance(step, Send):
                body += step.data
            elif isinstance(step, Head):
                head = step
            elif isinstance(step, End) and head is not None:
                yield replace(head, framing="length", length=len(body) + 100)
                yield Send(body)
                yield Cut("fin")
                return
            else:
                yield step


class LateTerminator(Fault, frozen=True):
    """The body's end (the last, empty chunk) comes `seconds` after its last bytes."""

    seconds: float = 0.005

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            if isinstance(step, End):
                yield Pause(self.seconds)
            yield step


class CloseIdle(Fault, frozen=True):
    """After the reply the server closes the connection, without having said so, `after` seconds later."""

    after: float = 0.0

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            yield replace(step, close_after=self.after) if isinstance(step, End) else step
