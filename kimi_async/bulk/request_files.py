"""
Request files: one JSON object a line, as the Batch API wants them.

    {"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": …, "messages": […]}}

`check_lines` reads such a file once, whatever its size, and names every bad
line by its number, so that nothing is sent from a file that is partly wrong.
`Shards` writes lines into files that stay below the upload limit. `IdTable`
remembers which line had which ``custom_id`` in 16 to 32 bytes an id.

Everything here is synchronous and touches nothing but files: call it from a
thread. The rules are those of https://platform.kimi.ai/docs/guide/use-batch-api.
"""

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..errors import KimiError

__all__ = [
    "CHAT_URL",
    "MAX_FILE_SIZE",
    "MAX_LINE_SIZE",
    "CheckedLines",
    "IdTable",
    "InvalidLinesError",
    "LineChecker",
    "LineProblem",
    "Shard",
    "Shards",
    "check_lines",
    "read_blocks",
    "read_lines",
]

CHAT_URL: Final = "/v1/chat/completions"

# "100 MB" in the documentation; decimal, the smaller reading, so a file that
# we split is accepted whichever is meant.
MAX_FILE_SIZE: Final = 100_000_000

# No limit a line is documented. A line of ten megabytes is an accident (a
# video inlined, a file without line feeds) far more often than a wish, and
# must not be found out after an hour of uploading.
MAX_LINE_SIZE: Final = 8 * 1024 * 1024

_BLOCK: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class LineProblem:
    """
    One thing wrong with one line.
    """

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
    """
    The request file has bad lines; nothing was sent.
    """

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


@dataclass(slots=True)
class CheckedLines:
    """
    What `check_lines` found.
    """

    path: str | None = None
    lines: int = 0
    """Requests, good or bad."""
    size: int = 0
    """Bytes read."""
    models: Counter[str] = field(default_factory=Counter[str])
    problems: list[LineProblem] = field(default_factory=list[LineProblem])
    """The first ``keep`` problems, in line order."""
    count: int = 0
    """All problems."""
    kinds: Counter[str] = field(default_factory=Counter[str])
    repaired: bool = False
    """Whether some line is not usable as it stands, but was read leniently (``repair=True``)."""

    @property
    def ok(self) -> bool:
        return not self.count

    def raise_if_bad(self) -> None:
        """
        Raise `InvalidLinesError` if there is any problem.
        """
        if self.count:
            raise InvalidLinesError(self.problems, count=self.count, path=self.path)


class IdTable:
    """
    Which number belongs to which id, for millions of ids.

    A dict of a million ids takes 150 to 200 MB. This keeps the 64-bit hash of
    an id and one 64-bit number, in 256 open-addressing tables (so that growing
    one never stops the event loop for more than a millisecond or two): 24 to
    48 MB a million. Two ids may share a hash: at a million ids the chance that
    any two do is 3 in 100 million, at a hundred million 1 in 4,000.
    """

    __slots__ = ("_count", "_keys", "_used", "_values")

    def __init__(self, expected: int = 0) -> None:
        # Room for the expected number at two thirds full, so that it need not grow.
        slots = 8
        while slots * 2 * 256 < expected * 3:
            slots *= 2
        self._keys = [array("Q", bytes(8 * slots)) for _ in range(256)]
        self._values = [array("Q", bytes(8 * slots)) for _ in range(256)]
        self._used = [0] * 256
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: str) -> int | None:
        """
        The number kept for this id, or None.
        """
        # Zero marks an empty slot. str caches its hash, so this is nearly free.
        hashed = hash(key) & 0xFFFF_FFFF_FFFF_FFFF or 1
        shard = hashed >> 56
        keys = self._keys[shard]
        mask = len(keys) - 1
        at = hashed & mask
        while found := keys[at]:
            if found == hashed:
                return self._values[shard][at]
            at = (at + 1) & mask
        return None

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def put(self, key: str, value: int) -> int | None:
        """
        Keep the number for this id; gives the one it replaces, or None.
        """
        hashed = hash(key) & 0xFFFF_FFFF_FFFF_FFFF or 1
        shard = hashed >> 56
        keys = self._keys[shard]
        mask = len(keys) - 1
        at = hashed & mask
        while found := keys[at]:
            if found == hashed:
                values = self._values[shard]
                old = values[at]
                values[at] = value
                return old
            at = (at + 1) & mask
        keys[at] = hashed
        self._values[shard][at] = value
        self._count += 1
        self._used[shard] = used = self._used[shard] + 1
        if used * 3 > mask * 2:
            self._grow(shard)
        return None

    def __setitem__(self, key: str, value: int) -> None:
        self.put(key, value)

    def add(self, key: str, value: int) -> int | None:
        """
        Keep the number unless the id has one already; gives that one, or None.
        """
        old = self.put(key, value)
        if old is not None:
            self.put(key, old)
        return old

    def _grow(self, shard: int) -> None:
        old_keys, old_values = self._keys[shard], self._values[shard]
        size = len(old_keys) * 2
        mask = size - 1
        keys, values = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        for hashed, value in zip(old_keys, old_values, strict=True):
            if hashed:
                at = hashed & mask
                while keys[at]:
                    at = (at + 1) & mask
                keys[at] = hashed
                values[at] = value
        self._keys[shard], self._values[shard] = keys, values


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


class _Body(Struct, gc=False):
    model: str | UnsetType = UNSET
    messages: msgspec.Raw | UnsetType = UNSET
    stream: bool | UnsetType | None = UNSET


class _Line(Struct, gc=False):
    custom_id: str
    body: _Body
    url: str | UnsetType = UNSET
    method: str | UnsetType = UNSET


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_any = msgspec.json.Decoder().decode


class LineChecker:
    """
    The rules for request lines, one line at a time. Pure: no file is touched.

    ``batch`` adds the Batch API's rules: ``method`` and ``url`` are required,
    all lines name one model, and none streams. Without it a line may leave out
    ``method``, ``url`` and, where ``model`` is given as a default, the model.
    """

    def __init__(
        self,
        *,
        batch: bool = True,
        model: str | None = None,
        repair: bool = False,
        max_line: int = MAX_LINE_SIZE,
        keep: int = 100,
        path: str | None = None,
    ) -> None:
        self.found: CheckedLines = CheckedLines(path=path)
        self._batch = batch
        self._model = model
        self._repair = repair
        self._max_line = max_line
        self._keep = keep
        self._ids = IdTable()
        self._number = 0
        self._blank: list[int] = []

    def feed(self, line: bytes | None) -> bytes | None:
        """
        Check the next line (None: one that was too long to keep).

        Gives the line as it may be sent, or None if it may not.
        """
        self._number = number = self._number + 1
        found = self.found
        if line is None:
            found.lines += 1
            self._say(number, "too_long", f"longer than {self._max_line:,} bytes")
            return None
        found.size += len(line) + 1
        before = found.count
        if number == 1 and line.startswith(_BOM):
            line = line[3:]
            self._mendable(
                number, "bom", "begins with a byte order mark (EF BB BF); save the file as UTF-8 without it"
            )
        if line.endswith(b"\r"):
            line = line[:-1]
            self._mendable(number, "crlf", "ends in CR LF; lines must end in LF alone")
        if not line.strip():
            # Only known to be inside the file, and so an error, when a line follows.
            self._blank.append(number)
            return None
        if self._blank:
            for blank in self._blank:
                self._mendable(blank, "blank", "is blank")
            self._blank.clear()
        found.lines += 1
        if len(line) > self._max_line:
            self._say(number, "too_long", f"{len(line):,} bytes long; the limit is {self._max_line:,}")
            return None
        try:
            request = _decode_line(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            self._diagnose(number, line, exc)
            return None
        self._judge(number, request)
        return line if found.count == before else None

    def skip(self) -> None:
        """
        Count a line that somebody else has found wrong.
        """
        self._number += 1
        self.found.lines += 1

    def finish(self) -> CheckedLines:
        """
        What was found. Blank lines at the very end are no problem.
        """
        return self.found

    def _judge(self, number: int, request: _Line) -> None:
        custom_id, body = request.custom_id, request.body
        if not custom_id:
            self._say(number, "custom_id", "custom_id is empty")
        elif (first := self._ids.add(custom_id, number)) is not None:
            self._say(
                number, "duplicate", f"custom_id {_short(custom_id)} is also on line {first}", custom_id
            )
        if request.url != CHAT_URL and not (request.url is UNSET and not self._batch):
            what = "is missing" if request.url is UNSET else f"is {_short(request.url)}"
            self._say(number, "url", f"url {what}; it must be {CHAT_URL!r}", custom_id)
        if request.method != "POST" and not (request.method is UNSET and not self._batch):
            what = "is missing" if request.method is UNSET else f"is {_short(request.method)}"
            self._say(number, "method", f"method {what}; it must be 'POST'", custom_id)
        model = body.model or self._model
        if not model:
            self._say(number, "model", "body has no model", custom_id)
        else:
            models = self.found.models
            if self._batch and models and model not in models:
                first_model = next(iter(models))
                self._say(
                    number,
                    "mixed_models",
                    f"model {_short(model)}, but the lines before have {_short(first_model)}; "
                    "a batch file has one model",
                    custom_id,
                )
            models[model] += 1
        messages = body.messages
        if messages is UNSET:
            self._say(number, "messages", "body has no messages", custom_id)
        else:
            raw = bytes(messages)
            if not raw.startswith(b"[") or raw[1:-1].isspace() or len(raw) < 3:
                self._say(number, "messages", "messages must be a list that is not empty", custom_id)
        if body.stream is True and self._batch:
            self._say(number, "stream", "stream is true; a batch cannot stream", custom_id)

    def _diagnose(self, number: int, line: bytes, exc: Exception) -> None:
        """
        The line does not decode: say why in words that help to find the place.
        """
        nul = line.find(b"\0")
        if nul >= 0:
            return self._say(number, "nul", f"has a NUL byte at column {nul + 1}")
        try:
            line.decode()
        except UnicodeDecodeError as bad:
            return self._say(number, "utf8", f"is not UTF-8 at column {bad.start + 1}")
        try:
            value = _decode_any(line)
        except RecursionError:
            return self._say(number, "json", "is nested too deeply")
        except (msgspec.MsgspecError, UnicodeDecodeError) as bad:
            return self._say(number, "json", f"is not JSON: {bad}")
        if not isinstance(value, dict):
            return self._say(number, "json", f"is a JSON {_json_type(value)}, not an object")
        fields = cast("dict[str, object]", value)
        custom_id = fields.get("custom_id")
        name = custom_id if isinstance(custom_id, str) else None
        if name is None:
            what = (
                "has no custom_id"
                if custom_id is None
                else f"custom_id is a {_json_type(custom_id)}, not a string"
            )
            self._say(number, "custom_id", what)
        if not isinstance(fields.get("body"), dict):
            what = "has no body" if fields.get("body") is None else "body is not an object"
            self._say(number, "body", what, name)
        elif name is not None:
            self._say(number, "body", f"is not a request: {exc}", name)
        return None

    def _mendable(self, number: int, kind: str, reason: str) -> None:
        if self._repair:
            self.found.repaired = True
        else:
            self._say(number, kind, reason)

    def _say(self, number: int, kind: str, reason: str, custom_id: str | None = None) -> None:
        found = self.found
        found.count += 1
        found.kinds[kind] += 1
        if len(found.problems) < self._keep:
            found.problems.append(LineProblem(number, kind, reason, custom_id))


def check_lines(
    file: BinaryIO | str | os.PathLike[str],
    *,
    batch: bool = True,
    model: str | None = None,
    repair: bool = False,
    max_line: int = MAX_LINE_SIZE,
    keep: int = 100,
) -> CheckedLines:
    """
    Read a request file from beginning to end and say what is wrong with it, by line number.

    Takes constant memory but for the ids (see `IdTable`). ``repair`` reads past
    a byte order mark, CR LF and blank lines instead of reporting them. At most
    ``keep`` problems are kept; all are counted. See `LineChecker` for ``batch``.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            found = check_lines(opened, batch=batch, model=model, repair=repair, max_line=max_line, keep=keep)
        found.path = os.fspath(file)
        return found
    checker = LineChecker(batch=batch, model=model, repair=repair, max_line=max_line, keep=keep)
    feed = checker.feed
    for _, line in read_lines(file, max_line=max_line):
        feed(line)
    return checker.finish()


@dataclass(frozen=True, slots=True)
class Shard:
    """
    One file of requests, small enough to upload.
    """

    path: str
    lines: int
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


class Shards:
    """
    Writes request lines into as few files as the limits allow, in order.

    Files are called ``<name>-00001.jsonl`` and so on. `close` gives what was
    written. A line that alone exceeds ``max_bytes`` raises ValueError.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str = "requests",
        *,
        max_bytes: int = MAX_FILE_SIZE,
        max_lines: int | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._name = name
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._done: list[Shard] = []
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._lines = 0
        self._size = 0

    def add(self, line: bytes) -> None:
        """
        Append one line, given without its line feed.
        """
        size = len(line) + 1
        if size > self._max_bytes:
            raise ValueError(f"a line of {size:,} bytes does not fit in a file of {self._max_bytes:,}")
        if self._file is not None and (
            self._size + size > self._max_bytes
            or (self._max_lines is not None and self._lines >= self._max_lines)
        ):
            self._finish()
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path(), "wb", buffering=_BLOCK)  # noqa: SIM115 - closed by _finish
        self._file.write(line)
        self._file.write(b"\n")
        self._hash.update(line)
        self._hash.update(b"\n")
        self._lines += 1
        self._size += size

    def close(self) -> list[Shard]:
        """
        Finish the last file. Idempotent.
        """
        if self._file is not None:
            self._finish()
        return list(self._done)

    def _path(self) -> Path:
        return self._directory / f"{self._name}-{len(self._done) + 1:05}.jsonl"

    def _finish(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        self._done.append(Shard(str(self._path()), self._lines, self._size, self._hash.hexdigest()))
        self._hash = hashlib.sha256()
        self._lines = self._size = 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "null" if value is None else "object"
