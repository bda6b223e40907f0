"""
Request files: one JSON object a line, as the Batch API wants them.

    {"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": …, "messages": […]}}

`check_lines` reads such a file once, whatever its size, and names every bad
line by its number, so that nothing is sent from a file that is partly wrong.
`Shards` writes lines into files that stay below the upload limit.

Everything here is synchronous and touches nothing but files: call it from a
thread. The rules are those of https://platform.kimi.ai/docs/guide/use-batch-api.
"""

import hashlib
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..resources.disk import plain_file
from .id_table import IdTable
from .lines import BOM, MAX_LINE_SIZE, InvalidLinesError, LineProblem, read_lines

__all__ = [
    "CHAT_URL",
    "MAX_BATCH_FILE",
    "CheckedLines",
    "LineChecker",
    "Shard",
    "Shards",
    "check_lines",
]

CHAT_URL: Final = "/v1/chat/completions"

# "100 MB" in the documentation; decimal, the smaller reading, so a file that
# we split is accepted whichever is meant.
MAX_BATCH_FILE: Final = 100_000_000

_BLOCK: Final = 1024 * 1024


@dataclass(slots=True)
class CheckedLines:
    """What `check_lines` found."""

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
    """Whether some line is not usable as it stands, but can be made so (``repair``, ``fill``)."""

    @property
    def ok(self) -> bool:
        return not self.count

    def raise_if_bad(self) -> None:
        """Raise `InvalidLinesError` if there is any problem."""
        if self.count:
            raise InvalidLinesError(self.problems, count=self.count, path=self.path)


class _CheckedBody(Struct, gc=False):
    model: str | UnsetType = UNSET
    messages: msgspec.Raw | UnsetType = UNSET
    stream: bool | UnsetType | None = UNSET


class _CheckedLine(Struct, gc=False):
    custom_id: str
    body: _CheckedBody
    url: str | UnsetType = UNSET
    method: str | UnsetType = UNSET


_decode_line = msgspec.json.Decoder(_CheckedLine).decode
_decode_any = msgspec.json.Decoder().decode


class LineChecker:
    """
    The rules for request lines, one line at a time. Pure: no file is touched.

    ``batch`` adds the Batch API's rules: ``method`` and ``url`` are required,
    all lines name one model, and none streams. Without it, or where ``fill``
    says that they will be added, a line may leave out ``method`` and ``url``;
    and the model, where ``model`` is given as a default.
    """

    def __init__(
        self,
        *,
        batch: bool = True,
        model: str | None = None,
        repair: bool = False,
        fill: bool = False,
        max_line: int = MAX_LINE_SIZE,
        keep: int = 100,
        path: str | None = None,
    ) -> None:
        self.found: CheckedLines = CheckedLines(path=path)
        self._batch = batch
        self._model = model
        self._repair = repair
        self._fill = fill
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
        if number == 1 and line.startswith(BOM):
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
        """Count a line that somebody else has found wrong."""
        self._number += 1
        self.found.lines += 1

    def finish(self) -> CheckedLines:
        """What was found. Blank lines at the very end are no problem."""
        return self.found

    def _judge(self, number: int, request: _CheckedLine) -> None:
        custom_id, body = request.custom_id, request.body
        if not custom_id:
            self._say(number, "custom_id", "custom_id is empty")
        elif (first := self._ids.add(custom_id, number)) is not None:
            self._say(
                number, "duplicate", f"custom_id {_short(custom_id)} is also on line {first}", custom_id
            )
        if self._batch and self._fill and (request.url is UNSET or request.method is UNSET):
            self.found.repaired = True
        may_lack = self._fill or not self._batch
        if request.url != CHAT_URL and not (request.url is UNSET and may_lack):
            what = "is missing" if request.url is UNSET else f"is {_short(request.url)}"
            self._say(number, "url", f"url {what}; it must be {CHAT_URL!r}", custom_id)
        if request.method != "POST" and not (request.method is UNSET and may_lack):
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
        """The line does not decode: say why in words that help to find the place."""
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
            if what == "has no body" and "messages" in fields:
                what = 'has no body: messages and what else is asked belong into it, {"custom_id": …, "body": {"messages": …}}'
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
    fill: bool = False,
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
        with plain_file(file) as opened:
            found = check_lines(
                opened, batch=batch, model=model, repair=repair, fill=fill, max_line=max_line, keep=keep
            )
        found.path = os.fspath(file)
        return found
    checker = LineChecker(batch=batch, model=model, repair=repair, fill=fill, max_line=max_line, keep=keep)
    feed = checker.feed
    for _, line in read_lines(file, max_line=max_line):
        feed(line)
    return checker.finish()


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of requests, small enough to upload."""

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
        max_bytes: int = MAX_BATCH_FILE,
        max_lines: int | None = None,
    ) -> None:
        self._directory = Path(os.path.abspath(directory))
        self._name = name
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._done: list[Shard] = []
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._lines = 0
        self._size = 0

    def add(self, line: bytes) -> None:
        """Append one line, given without its line feed."""
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
        """Finish the last file. Idempotent."""
        if self._file is not None:
            self._finish()
        return list(self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the last file; after an error nothing that was written is of use, and nothing is left."""
        path = self._path()
        if self._file is not None:
            with suppress(OSError):  # what is held back may not fit on the disk either
                self._file.close()
        if kind is not None:
            for each in [path, *(Path(shard.path) for shard in self._done)]:
                each.unlink(missing_ok=True)

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
