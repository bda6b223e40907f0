"""
Files of output lines, joined to their requests: those of a batch, and the journal of a live run.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from ..errors import ConfigurationError
from ..resources.disk import kind_of, plain_file
from .id_table import IdTable
from .lines import LineProblem, read_blocks
from .output_lines import MAX_OUTPUT_LINE, Answer, decode_answer, decode_verdict, supersedes

__all__ = ["ResultFiles", "refuse_overwriting"]


def refuse_overwriting(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """:raises ConfigurationError: if there is something in this file, if it is one of the inputs, or no plain file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    name = os.fspath(path)
    kind = kind_of(found.st_mode)
    if kind is not None:
        raise ConfigurationError(f"{name} is {kind}; results need a plain file")
    for each in inputs:
        if os.path.exists(each) and os.path.samefile(each, path):
            raise ConfigurationError(f"{name} is the input; the results need another file")
    if found.st_size:
        raise ConfigurationError(
            f"{name} exists already and holds {found.st_size:,} bytes; it was left as it is. Give the results another file"
        )


# Joining a million lines takes a fifth less time with a dict than with an `IdTable`, and 140 MB instead of 30.
_DICT_UP_TO: Final = 2_000_000


class ResultFiles:
    """
    One or more files of output lines, found by ``custom_id``.

    Reading them once keeps the ids and where their lines begin, not the lines:
    the files may be larger than memory. Up to two million ids that is a dict,
    which is quick and takes 150 bytes an id; beyond, 24 to 48 (see `IdTable`). Where an id has several lines,
    `supersedes` tells which stands.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._maps: list[mmap.mmap | bytes] = []
        self._index: dict[str, int] | IdTable = {}
        self.ok: int = 0
        """Ids with an answer."""
        self.failed: int = 0
        """Ids with a failure."""
        self.problems: list[LineProblem] = []
        """Lines that could not be read: ``line`` counts within its file, ``reason`` names it."""
        try:
            for path in paths:
                self.add(path)
        except BaseException:
            self.close()
            raise

    def add(self, path: str | os.PathLike[str]) -> None:
        """Read one more file."""
        with plain_file(path) as file:
            # Mapped, so that a join in any order costs no seek and no copy of the file;
            # the pages belong to the kernel, which takes them back when it needs them.
            empty = os.fstat(file.fileno()).st_size == 0
            self._maps.append(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._scan(file, os.fspath(path))

    def _scan(self, file: BinaryIO, path: str) -> None:
        # 48 bits of offset (281 TB), 16 bits of file.
        base = (len(self._maps) - 1) << 48
        first = self._maps[-1].find(b"\n")
        expected = len(self._index) + len(self._maps[-1]) // max(64, first)
        if expected > _DICT_UP_TO and isinstance(self._index, dict):
            small, self._index = self._index, IdTable(expected)
            for name, at in small.items():
                self._index[name] = at
        index = self._index
        find = index.get
        decode = decode_verdict
        answered = failed = number = 0
        for start, lines in read_blocks(file, max_line=MAX_OUTPUT_LINE):
            offset = start
            for line in lines:
                number += 1
                at = base | offset
                offset += len(line or b"") + 1
                try:
                    verdict = decode(line or b"")
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                    if line is None:
                        self.problems.append(LineProblem(number, "too_long", f"too long, in {path}"))
                    elif line and not line.isspace():
                        self.problems.append(
                            LineProblem(number, "json", f"not an output line ({exc}), in {path}")
                        )
                    continue
                good = verdict.ok
                name = verdict.custom_id
                old = find(name)
                if old is not None:
                    before = decode_answer(self._line_at(old))
                    if not supersedes(decode_answer(line or b""), before):
                        continue
                    answered -= before.ok
                    failed -= not before.ok
                index[name] = at
                if good:
                    answered += 1
                else:
                    failed += 1
        self.ok += answered
        self.failed += failed

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, custom_id: str) -> bool:
        return custom_id in self._index

    def line(self, custom_id: str) -> bytes | None:
        """The output line of this id, or None if no file has one."""
        at = self._index.get(custom_id)
        return None if at is None else self._line_at(at)

    def get(self, custom_id: str) -> Answer | None:
        """The decoded output line of this id, or None if no file has one."""
        line = self.line(custom_id)
        return None if line is None else decode_answer(line)

    def _line_at(self, at: int) -> bytes:
        data = self._maps[at >> 48]
        start = at & 0xFFFF_FFFF_FFFF
        end = data.find(b"\n", start)
        return data[start:] if end < 0 else data[start:end]

    def join(self, custom_ids: Iterable[str]) -> Iterator[tuple[str, Answer | None]]:
        """Each of these ids, in this order, with its line; None where it was not answered."""
        # `get` written out: this loop is what a million-line file waits for (benchmarks/bulk/join.py).
        find = self._index.get
        maps = self._maps
        decode = decode_answer
        for custom_id in custom_ids:
            at = find(custom_id)
            if at is None:
                yield custom_id, None
                continue
            data = maps[at >> 48]
            start = at & 0xFFFF_FFFF_FFFF
            end = data.find(b"\n", start)
            yield custom_id, decode(data[start:] if end < 0 else data[start:end])

    def close(self) -> None:
        """Close the files. Idempotent."""
        for data in self._maps:
            if not isinstance(data, bytes):
                data.close()
        self._maps.clear()

    def __enter__(self) -> "ResultFiles":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
