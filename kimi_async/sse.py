"""
Server-sent events: bytes in, events out, and back again for a server.

The rules are those of the WHATWG standard, chapter "Server-sent events",
section "Interpreting an event stream" (https://html.spec.whatwg.org/multipage/server-sent-events.html),
and no others: nothing here knows of JSON, of `[DONE]` or of Kimi.

* `SSEDecoder` is fed whatever the socket gives, cut anywhere, and answers the same events.
* `ServerSentEvent` is what `feed` gives. `payloads` gives only each event's data, quicker.
* `encode_event` and `encode_comment` write a stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeAlias

from .errors import KimiError

__all__ = [
    "EventTooLargeError",
    "SSEDecoder",
    "ServerSentEvent",
    "encode_comment",
    "encode_event",
]

Payload: TypeAlias = bytes | memoryview

BOM = b"\xef\xbb\xbf"
COLON, SPACE, LF, CR = b": \n\r"

# A line may be longer than the data it carries by this much, so that data of
# exactly max_event_size bytes passes.
FIELD = len(b"data: ")

# The standard takes a retry of any length. No wait needs twenty digits (of
# milliseconds), and int() of a megabyte of digits is quadratic or an error.
RETRY_DIGITS = 19


STRAYS = 64 << 10


class EventTooLargeError(KimiError, ValueError):
    """
    An event, or a line of one, outgrew `max_event_size` (bytes).

    The server's fault, or a proxy's; a repeated call would probably meet it
    again. If such events are expected, give the decoder a larger limit.
    """

    def __init__(self, max_event_size: int) -> None:
        super().__init__(
            f"a server-sent event, or a single line of one, is larger than "
            f"max_event_size ({max_event_size:,} bytes)"
        )
        self.max_event_size = max_event_size
        """The limit that was passed, in bytes."""


class ServerSentEvent(NamedTuple):
    """
    One dispatched event.

    A tuple because one is made per event: see the numbers at `SSEDecoder.payloads`.
    """

    event: str = "message"
    """The event's type: its own `event:` field, never that of an earlier event."""

    data: bytes | memoryview = b""
    """
    The `data:` lines joined by LF, UTF-8 as it came (invalid bytes included).

    A view into the bytes that were fed if the event is one `data:` line
    within them, else `bytes`. A view keeps the whole chunk alive: take
    `bytes(event.data)` to keep it for long.
    """

    id: str = ""
    """The last event id: set by this event or by any event before it. Empty if none was."""

    retry: int | None = None
    """Milliseconds from this event's own `retry:` field, if it had a valid one."""

    @property
    def text(self) -> str:
        """The data as text, each invalid sequence replaced by U+FFFD as the standard has it."""
        return str(self.data, "utf-8", "replace")

    def __repr__(self) -> str:
        return (
            f"ServerSentEvent(event={self.event!r}, data={bytes(self.data)!r}, "
            f"id={self.id!r}, retry={self.retry!r})"
        )


class SSEDecoder:
    """
    Turn one stream of bytes, however it is cut, into its events.

    One decoder serves one stream. `feed` and `payloads` parse alike and
    may be mixed: each continues where the other stopped.

    `max_event_size` (bytes; 16 MiB unless given) bounds what a stream can
    make us hold. `EventTooLargeError` is raised when an event's data
    is longer, or when a line with its field name is longer by more than the
    six bytes of `data: `. Comments are discarded as they come and may be
    of any length. Whether a stream fails does not depend on how it is cut.
    So what is held is a small multiple of the limit: an event's data and the
    unfinished line after it, its type and the last id, each no longer than
    that, and one copy more while an event is handed out.

    After that error the decoder has dropped what it held and is finished:
    every later call raises the same error, for the middle of a broken event
    would otherwise be read as lines. Events that had come in the same bytes
    before the fault are never lost: they are returned first, and the error
    is raised by the next call.
    """

    __slots__ = (
        "_cr",
        "_data",
        "_error",
        "_event",
        "_held",
        "_id",
        "_idle",
        "_joined",
        "_last_event_id",
        "_max",
        "_retry",
        "_retry_last",
        "_skip",
        "_start",
        "_strays",
        "_typed",
    )

    def __init__(self, max_event_size: int = 16 * 1024 * 1024) -> None:
        if max_event_size < 1:
            raise ValueError(f"max_event_size must be at least 1 byte, not {max_event_size!r}")
        self._max = max_event_size
        self._error = False

        # The stream. _start: a byte order mark may still come. _cr: the last
        # byte was a CR, so that an LF next belongs to it.
        self._start: bytes | None = b""
        self._cr = False
        self._last_event_id = ""
        self._retry_last: int | None = None

        # The line. What came of it so far, in an array that grows in place:
        # prefix + chunk would be quadratic in the length of the line.
        self._held = bytearray()
        self._skip = False  # within a comment, whose text nobody wants

        # The event. _data is its only data line so far; with a second line
        # both move into _joined, which costs a byte a byte (a list of lines
        # costs fifty for one).
        self._idle = False  # nothing of an event or of a line is held, no mark can come
        self._data: Payload | None = None
        self._joined: bytearray | None = None
        self._event = ""
        self._id = ""
        self._retry: int | None = None

        # What `payloads` does not tell of, for whoever asks afterwards.
        self._typed: list[tuple[str, Payload]] = []
        self._strays = bytearray()

    @property
    def last_event_id(self) -> str:
        """
        What a reconnecting client sends as `Last-Event-ID`.

        It changes at the blank line that ends a block, also if the block had no data.
        """
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The latest valid `retry:` in milliseconds, also from blocks without data. None if none came."""
        return self._retry_last

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """
        The events that `data`, the next bytes of the stream, completes.

        An empty list if none. An event counts once its blank line has come.
        Raises `EventTooLargeError`.
        """
        out: list[ServerSentEvent] = []
        self._typed = []

        def emit(payload: Payload) -> None:
            out.append(ServerSentEvent(self._event or "message", payload, self._id, self._retry))

        try:
            data, pos = self._begin(data)
            self._lines(data, memoryview(data), pos, emit)
        except EventTooLargeError:
            if not out:
                raise
        return out

    def lone(self, data: bytes) -> bytes | None:
        """
        `payloads` where the answer is one event, written `data: …` and a blank line; None, and nothing taken in, for anything else.

        One event and no more is what a live model sends in a packet. It would cost `payloads` 850 ns; here, 330.
        """
        end = len(data) - 2
        if (
            self._idle
            and data.find(b"\n") == end
            and data[:6] == b"data: "
            and data[end:] == b"\n\n"
            and CR not in data
            and not self._cr
            and end <= self._max
        ):
            return data[6:end]
        return None

    def payloads(self, data: bytes) -> list[bytes | memoryview]:
        """
        The `data` of each event that `feed(data)` would give, and nothing else of it.

        For readers who have no use for types and ids: several times quicker.
        The items are `bytes`: cutting a copy of a few hundred bytes costs less
        than making a view on them, and does not keep the chunk alive.
        """
        if self._typed:
            self._typed = []
        if (lone := self.lone(data)) is not None:
            return [lone]
        out: list[bytes | memoryview] = []
        pos = 0
        try:
            if not self._idle or self._cr:
                data, pos = self._begin(data)
                if not self._idle:
                    # Finish the event that the last chunk left open, or read this chunk to its end.
                    pos = self._lines(data, data, pos, out.append, once=True)

            # From here nothing is held. The hot shape is "data: …", blank line,
            # "data: …", blank line, up to the last blank line of the chunk.
            # One split takes out what stands between two payloads; if no line
            # ending is left in any payload, that was all there was, and the
            # answer is exact. Anything else goes the plain way below.
            #
            # ns an event, 64 events of 230 bytes in a chunk, CPython 3.11, in one
            # run: this 155; one find, startswith and slice per event 275, or 285
            # with slices of a memoryview, which msgspec decodes no quicker; a
            # bare find(b"\n\n") and slice, which checks nothing, 350; counting
            # line endings in place of the join 210; the plain way 800; feed,
            # with its objects, 1,150. benchmarks/micro_sse.py has more shapes.
            if data.startswith(b"data: ", pos) and len(data) <= self._max:
                if (end := data.rfind(b"\n\n", pos)) >= 0:
                    cut = data[pos + 6 : end].split(b"\n\ndata: ")
                    after = end + 2
                elif (end := data.rfind(b"\r\n\r\n", pos)) >= 0:
                    cut = data[pos + 6 : end].split(b"\r\n\r\ndata: ")
                    after = end + 4
                else:
                    cut = []
                    after = pos
                joined = b"".join(cut)
                if LF not in joined and CR not in joined:
                    out += cut
                    pos = after

            if pos < len(data):
                self._lines(data, data, pos, out.append)
        except EventTooLargeError:
            if not out:
                raise
        return out

    def starts_anew(self, data: bytes) -> bool:
        """Whether nothing of an event is held, so that `data` begins with one, and none in it can be too large."""
        return self._idle and not self._cr and len(data) <= self._max

    @property
    def typed(self) -> list[tuple[str, bytes | memoryview]]:
        """Type and data of those events of the last `payloads` that named a type."""
        return self._typed

    @property
    def strays(self) -> bytearray:
        """
        Lines that were no field the standard knows, each with an LF: it ignores them, and servers have been seen to write
        their errors so. 64 KiB at most are kept. Whoever has read them may clear it.
        """
        return self._strays

    def finish(self) -> list[ServerSentEvent]:
        """
        The event that the end of the stream cut short, if there is one.

        The standard discards it, as `feed` does. But servers end streams
        without the last blank line, or without the last line ending, so here
        the end of the stream stands for both. Data that was cut in the middle
        of a line comes out too: whoever calls this decides whether it is
        whole. A second call gives nothing, and what is fed later is read from
        the start of a line.
        """
        if self._error:
            raise EventTooLargeError(self._max)
        self._start = None
        out: list[ServerSentEvent] = []
        if self._held:
            self._held_line()
        if (data := self._take()) is not None:
            out.append(ServerSentEvent(self._event or "message", data, self._id, self._retry))
        self._reset()
        self._skip = False
        return out

    # The line and the event, in the order of the standard's text.

    def _begin(self, data: bytes) -> tuple[bytes, int]:
        """What to read, and from where: past the LF of a CRLF that was cut in two, and past a byte order mark."""
        if self._error:
            raise EventTooLargeError(self._max)
        if self._start is not None and data:
            data = self._start + data
            if len(data) < len(BOM) and BOM.startswith(data):
                self._start = data
                return data, len(data)
            self._start = None
            self._idle = True
            if data.startswith(BOM):
                return data, len(BOM)
        elif self._cr and data:
            self._cr = False
            if data[0] == LF:
                return data, 1
        return data, 0

    def _lines(
        self, data: bytes, source: Payload, pos: int, emit: Callable[[Payload], None], once: bool = False
    ) -> int:
        """
        Read lines of `data` from `pos`; the start of an unfinished one is kept for the next call.

        Payloads are cut out of `source`: `data` itself or a view on it.
        `once`: stop after the first blank line. Returns how far it read.
        """
        find = data.find
        end = len(data)
        # Where the next LF and the next CR are. Each is looked for only when
        # passed: a search per line would read a chunk without LF as often as
        # it has lines.
        if (lf := find(b"\n", pos)) < 0:
            lf = end
        if (cr := find(b"\r", pos)) < 0:
            cr = end
        while (stop := lf if lf < cr else cr) < end:
            after = stop + 1
            if stop == lf:
                if (lf := find(b"\n", after)) < 0:
                    lf = end
            else:
                if after == end:
                    self._cr = True
                elif after == lf:
                    after += 1
                    if (lf := find(b"\n", after)) < 0:
                        lf = end
                if (cr := find(b"\r", after)) < 0:
                    cr = end
            if self._held:
                self._hold(data, pos, stop)
                self._held_line()
            elif self._skip:
                self._skip = False
            elif pos == stop:
                if (payload := self._take()) is not None:
                    if self._event:
                        self._typed.append((self._event, payload))
                    emit(payload)
                self._reset()
                if once:
                    return after
            elif data[pos] != COLON:
                if stop - pos > self._max + FIELD:
                    self._overflow()
                self._field(data, source, pos, stop)
            pos = after
        if pos < end:
            self._idle = False
            if self._skip:
                pass
            elif data[pos] == COLON and not self._held:
                self._skip = True
            else:
                self._hold(data, pos, end)
        return end

    def _hold(self, data: bytes, pos: int, stop: int) -> None:
        """Keep a part of a line."""
        self._idle = False
        self._held += data if stop - pos == len(data) else data[pos:stop]
        if len(self._held) > self._max + FIELD:
            self._overflow()

    def _held_line(self) -> None:
        """A line whose parts came in several chunks has ended."""
        line, self._held = self._held, bytearray()
        self._field(line, memoryview(line), 0, len(line))
        if isinstance(self._data, memoryview):
            self._data = bytes(self._data)  # ours to keep, not a view on an array

    def _field(self, data: bytes | bytearray, source: Payload, pos: int, stop: int) -> None:
        """One line that is neither blank nor a comment."""
        self._idle = False
        if (colon := data.find(b":", pos, stop)) < 0:
            colon = start = stop
        else:
            start = colon + 1
            if start < stop and data[start] == SPACE:
                start += 1
        name = data[pos:colon]
        if name == b"data":
            if self._joined is not None:
                self._joined += b"\n"
                self._joined += source[start:stop]
                if len(self._joined) > self._max:
                    self._overflow()
            elif self._data is not None:
                self._joined = bytearray(self._data)
                self._joined += b"\n"
                self._joined += source[start:stop]
                self._data = None
                if len(self._joined) > self._max:
                    self._overflow()
            else:
                if stop - start > self._max:
                    self._overflow()
                self._data = source[start:stop]
        elif name == b"event":
            self._event = data[start:stop].decode("utf-8", "replace")
        elif name == b"id":
            if (value := data[start:stop]).find(b"\0") < 0:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry":
            value = data[start:stop]
            if value.isdigit() and len(value := value.lstrip(b"0") or b"0") <= RETRY_DIGITS:
                self._retry = self._retry_last = int(value)
        elif len(self._strays) + stop - pos < STRAYS:
            self._strays += data[pos:stop]
            self._strays += b"\n"

    def _take(self) -> Payload | None:
        """At a blank line: the event's data, or None if it is not to be dispatched."""
        self._last_event_id = self._id
        return self._data if self._joined is None else bytes(self._joined)

    def _reset(self) -> None:
        self._idle = True
        self._data = self._joined = self._retry = None
        self._event = ""

    def _overflow(self) -> NoReturn:
        self._error = True
        self._reset()
        self._idle = False
        self._held = bytearray()
        raise EventTooLargeError(self._max)


LINE_ENDING = re.compile(rb"\r\n|\r|\n")  # not splitlines(), which drops an empty last line


def encode_event(
    data: str | bytes | memoryview,
    *,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
) -> bytes:
    """
    The bytes of one event, with the blank line that dispatches it.

    Data of several lines becomes as many `data:` lines; the format cannot
    tell CR and CRLF from LF, so they come back as LF. `retry` is in
    milliseconds. ValueError for a line ending in `event` or `id`, a NUL
    in `id` (readers ignore such an id) and a negative `retry`.
    """
    out: list[bytes] = []
    if event is not None:
        out.append(b"event: " + _single_line("event", event) + b"\n")
    if id is not None:
        if "\0" in id:
            raise ValueError("id must not contain NUL: readers would ignore it")
        out.append(b"id: " + _single_line("id", id) + b"\n")
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry must be 0 or more milliseconds, not {retry!r}")
        out.append(b"retry: %d\n" % retry)
    raw = data.encode() if isinstance(data, str) else bytes(memoryview(data))  # bytes(3) would be three NULs
    out += [b"data: " + line + b"\n" for line in LINE_ENDING.split(raw)]
    out.append(b"\n")
    return b"".join(out)


def encode_comment(text: str) -> bytes:
    """
    The bytes of a comment, which readers ignore: a sign of life.

    One comment line per line of `text`, then a blank line, so it belongs
    between events, not into one.
    """
    return b"".join(b": " + line + b"\n" for line in LINE_ENDING.split(text.encode())) + b"\n"


def _single_line(name: str, value: str) -> bytes:
    raw = value.encode()
    if LINE_ENDING.search(raw):
        raise ValueError(f"{name} must be a single line: a line ending in it would start another field")
    return raw
