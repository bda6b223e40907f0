"""
Faults of lines: how events are written, and what stands between them.
"""

import itertools
from collections.abc import Iterator
from typing import Literal

from ..simulator.replies import Pause, Send, Step
from .chunk_faults import inserted, text_chunk
from .fault import DONE, Fault
from .places import at_place

__all__ = [
    "Comments",
    "Garbage",
    "InvalidUtf8",
    "JoinedEvents",
    "LineEndings",
    "Pings",
]


class Comments(Fault, frozen=True):
    """
    `count` comment lines after `after_events` events, `interval` seconds apart; -1 never stops.

    With `after_events` -1 they come after every event.
    """

    count: int = 1
    after_events: int = 0
    interval: float = 0.0
    text: str = "KIMI PROCESSING"

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        if self.after_events < 0:
            for step in steps:
                yield step
                if isinstance(step, Send):
                    yield from self._flood()
            return
        yield from at_place(steps, self.after_events, None, lambda rest: itertools.chain(self._flood(), rest))

    def _flood(self) -> Iterator[Step]:
        line = f": {self.text}\n\n".encode()
        for _ in itertools.count() if self.count < 0 else range(self.count):
            yield Send(line)
            if self.interval > 0:
                yield Pause(self.interval)


class Pings(Fault, frozen=True):
    """
    Blocks that say nothing after every `every` events: "event" (`event: ping`, empty data), "empty" (`data:`),
    "null" (`data: null`), "blank" (empty lines), "retry" (`retry: 1000`), "id" (`id: 7`).
    """

    style: Literal["event", "empty", "null", "blank", "retry", "id"] = "event"
    every: int = 1

    def events(self, events: Iterator[bytes]) -> Iterator[bytes]:
        block = {
            "event": b"event: ping\ndata: \n\n",
            "empty": b"data:\n\n",
            "null": b"data: null\n\n",
            "blank": b"\n\n\n",
            "retry": b"retry: 1000\n\n",
            "id": b"id: 7\n\n",
        }[self.style]
        for number, event in enumerate(events, 1):
            # Before the event, so that nothing follows [DONE].
            if number % max(1, self.every) == 0:
                yield block
            yield event


class LineEndings(Fault, frozen=True):
    """Lines as the standard allows them: "crlf", "cr", "no_space" (`data:{…}`), "bom" (a byte-order mark first), or "unterminated" (no last blank line)."""

    style: Literal["crlf", "cr", "no_space", "bom", "unterminated"] = "crlf"

    def events(self, events: Iterator[bytes]) -> Iterator[bytes]:
        first = True
        for event in events:
            if self.style in ("crlf", "cr"):
                event = event.replace(b"\n", b"\r\n" if self.style == "crlf" else b"\r")
            elif self.style == "no_space":
                event = event.replace(b"data: ", b"data:", 1)
            elif self.style == "bom" and first:
                event = b"\xef\xbb\xbf" + event
            elif self.style == "unterminated" and event.startswith(b"data: [DONE]"):
                event = b"data: [DONE]"
            first = False
            yield event


class JoinedEvents(Fault, frozen=True):
    """
    Two chunks in one event: "one_line" (`data: {…}{…}`) or "two_lines" (two `data:` lines, one blank line). `[DONE]` stays
    alone.
    """

    style: Literal["one_line", "two_lines"] = "one_line"

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        between = b"" if self.style == "one_line" else b"\n"
        held: bytes | None = None
        for payload in payloads:
            if payload == DONE:
                if held is not None:
                    yield held
                held = None
                yield payload
            elif held is None:
                held = payload
            else:
                yield held + between + payload
                held = None
        if held is not None:
            yield held


class Garbage(Fault, frozen=True):
    """An event whose data is not JSON; `raw` writes the bytes without `data:` around them."""

    data: bytes = b'{"choices": [{"delta": \x00\x01 no json'
    after_events: int = 3
    raw: bool = False

    def events(self, events: Iterator[bytes]) -> Iterator[bytes]:
        for position, event in enumerate(events):
            if position == self.after_events:
                yield self.data if self.raw else b"data: " + self.data + b"\n\n"
            yield event


class InvalidUtf8(Fault, frozen=True):
    """One more content chunk whose text is not UTF-8."""

    after_events: int = 3

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        def broken(model: bytes) -> Iterator[bytes]:
            yield text_chunk(model, "@bytes@").replace(b"@bytes@", b"\xff\xfe\xc3(")

        return inserted(payloads, self.after_events, broken)
