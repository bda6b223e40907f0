"""
Files of lines: read a block at a time, whatever their size, and what is wrong with one of them.
"""

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

import msgspec
from msgspec import Struct

from ..errors import KimiError
from ..resources.disk import plain_file

__all__ = [
    "BOM",
    "MAX_LINE_SIZE",
    "InvalidLinesError",
    "LineProblem",
    "id_of",
    "read_blocks",
    "read_ids",
    "read_lines",
    "request_lines",
]

# No limit a line is documented. A line of ten megabytes is an accident (a
# video inlined, a file without line feeds) far more often than a wish, and
# must not be found out after an hour of uploading.
MAX_LINE_SIZE: Final = 8 * 1024 * 1024

BOM: Final = b"\xef\xbb\xbf"
"""What some editors put before a text in UTF-8."""

_BLOCK: Final = 1024 * 1024
_ANY: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class LineProblem:
    """One thing wrong with one line."""

    line: int
    """1 for the first line of the file (or item of the iterable)."""
    kind: str
    """
    One word: ``json``, ``nul``, ``utf8``, ``bom``, ``crlf``, ``blank``, ``too_long``, ``custom_id``,
    ``duplicate``, ``method``, ``url``, ``body``, ``model``, ``mixed_models``, ``messages``, ``stream``.
    """
    reason: str
    custom_id: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class InvalidLinesError(KimiError, ValueError):
    """The request file has bad lines; nothing was sent."""

    def __init__(self, problems: Iterable[LineProblem], *, count: int, path: str | None = None) -> None:
        self.problems: tuple[LineProblem, ...] = tuple(problems)
        """The first of them, in line order."""
        self.count = count
        """How many there are in all."""
        self.path = path
        shown = "\n  ".join(str(problem) for problem in self.problems[:20])
        more = f"\n  … and {count - 20:,} more" if count > 20 else ""
        where = f" in {path}" if path else ""
        super().__init__(f"{count:,} bad line{'s' * (count != 1)}{where}; nothing was sent\n  {shown}{more}")


def read_lines(
    file: BinaryIO, *, max_line: int = MAX_LINE_SIZE, block: int = _BLOCK
) -> Iterator[tuple[int, bytes | None]]:
    """
    Every line with the offset where it begins, without its line feed.

    Only LF ends a line: JSON text may hold U+2028 or U+0085, which
    ``str.splitlines`` would cut at. A line longer than ``max_line`` bytes gives
    None in place of its bytes and is skipped without being kept. A last line
    without a line feed is a line; an empty one after the last LF is not.
    """
    for start, lines in read_blocks(file, max_line=max_line, block=block):
        for line in lines:
            if line is None:
                yield start, None
                break
            yield start, line
            start += len(line) + 1


def read_blocks(
    file: BinaryIO, *, max_line: int = MAX_LINE_SIZE, block: int = _BLOCK
) -> Iterator[tuple[int, list[bytes | None]]]:
    """
    `read_lines`, many lines at a time: the offset of the first, and the lines, each one byte further than its length. A
    line that is too long (None) comes in a list of its own. For loops that count tenths of microseconds.
    """
    start = file.tell()
    held: list[bytes] = []
    length = 0  # of the line begun in earlier blocks
    skipping = False
    while data := file.read(block):
        lines: list[bytes | None] = data.split(b"\n")  # type: ignore[assignment]
        first, last = cast("bytes", lines[0]), cast("bytes", lines[-1])
        if len(lines) == 1:
            length += len(data)
            if skipping or length > max_line:
                skipping = True
                held.clear()
            else:
                held.append(data)
            continue
        length += len(first)
        if skipping or length > max_line:
            yield start, [None]
            start += length + 1
            del lines[0]
        elif held:
            lines[0] = b"".join((*held, first))
        held.clear()
        lines.pop()
        if lines:
            if max(map(len, cast("list[bytes]", lines))) <= max_line:
                yield start, lines
                start += sum(map(len, cast("list[bytes]", lines))) + len(lines)
            else:
                for line in cast("list[bytes]", lines):
                    yield start, [line if len(line) <= max_line else None]
                    start += len(line) + 1
        length = len(last)
        skipping = length > max_line
        if last and not skipping:
            held.append(last)
    if length:
        yield start, [None if skipping else b"".join(held)]


class _Named(Struct, gc=False):
    custom_id: str


_decode_name = msgspec.json.Decoder(_Named).decode


def id_of(line: bytes) -> str:
    """The ``custom_id`` of a line that was checked before."""
    return _decode_name(line).custom_id


def request_lines(path: str | os.PathLike[str]) -> Generator[bytes, None, None]:
    """The lines of a request file that was checked before, as they may be sent: no byte order mark, no CR, none blank."""
    first = True
    with plain_file(path) as file:
        for _, lines in read_blocks(file, max_line=_ANY):
            for line in lines:
                if line is None:
                    continue
                if first:
                    first = False
                    line = line.removeprefix(BOM)
                if line.endswith(b"\r"):
                    line = line[:-1]
                if line and not (line[0] in b" \t\r" and line.isspace()):
                    yield line


def read_ids(path: str | os.PathLike[str]) -> Iterator[str]:
    """The ``custom_id`` of every line of a request file that was checked before, in order."""
    return map(id_of, request_lines(path))
