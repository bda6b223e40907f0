"""
The file of a run that may be killed: output lines, written as they come. What it promises:

* A line given to `append` is in the kernel when `append` returns: no way of
  killing the process loses it, nor cuts it in two. After `sync` it is on the
  disk: a power failure does not lose it either (as far as the disk tells the
  truth about its cache).
* A process killed inside `append` leaves at most one line cut short, at the
  very end. `open` takes it away: its request counts as not answered. A whole
  line that only lacks its line feed is kept.
* An append that fails (full disk) is taken back whole. What was there before
  is untouched, and the error says how to go on.
* One process at a time: a second one is refused (advisory lock on the file).
* A line is never rewritten in place. Lines that are to be done again are left
  out of a copy, which replaces the file in one step.

Synchronous throughout: call it from a thread.
"""

import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from ..errors import ConfigurationError, KimiError
from ..resources.disk import datasync, open_plain, read_at, replacing, short, sync_directory, write_all
from .id_table import IdTable
from .lines import read_lines
from .output_lines import MAX_OUTPUT_LINE, Answer, decode_answer, supersedes

__all__ = [
    "Journal",
    "JournalError",
    "JournalLockedError",
    "JournalMismatchError",
    "JournalWriteError",
    "Mended",
    "Redo",
]

Redo = Literal["none", "transient", "failed"]

_COPY: Final = "copy"


class JournalError(KimiError):
    """The journal cannot be used. ``path`` says which."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class JournalLockedError(JournalError):
    """Another run is writing to this journal."""


class JournalMismatchError(JournalError):
    """The journal answers a different request under this ``custom_id``: the input was changed since."""

    def __init__(self, message: str, *, path: str, custom_id: str) -> None:
        super().__init__(message, path=path)
        self.custom_id = custom_id


class JournalWriteError(JournalError):
    """
    Lines could not be written; the file is as it was before them.

    ``unsaved`` holds the lines (bytes, without line feed) that are not in the
    file; ``errno`` the system's reason.
    """

    def __init__(
        self, message: str, *, path: str, errno: int | None, unsaved: tuple[bytes, ...] = ()
    ) -> None:
        super().__init__(message, path=path)
        self.errno = errno
        self.unsaved = unsaved


@dataclass(slots=True)
class Mended:
    """What `Journal.open` found and put right."""

    torn: int = 0
    """Bytes of a last line cut short, taken away."""
    damaged: int = 0
    """Lines that are not JSON, moved to ``<journal>.damaged``."""
    replaced: int = 0
    """Earlier lines of an id that has a later one."""
    redo: int = 0
    """Failures taken out, so that they are sent again."""

    def __bool__(self) -> bool:
        return bool(self.torn or self.damaged or self.replaced or self.redo)


class Journal:
    """The file of a run, open for writing and locked. Make one with `Journal.open`."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._end = 0
        self._index = IdTable()
        self._broken: str | None = None
        self.ok: int = 0
        """Answers in the file."""
        self.failed: int = 0
        """Failures in the file."""
        self.mended: Mended = Mended()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, redo: Redo = "transient") -> "Journal":
        """
        Open or make the journal, lock it, mend it and read which ids it holds.

        ``redo`` says which failures of an earlier run are taken out, to be sent
        again: ``"transient"`` those that another try may mend, ``"failed"`` all,
        ``"none"`` none.

        Raises `JournalLockedError` where another process has it open, and
        `JournalError` where the file holds something else than results.
        """
        # Behind a symbolic link the file itself is what is locked, copied and replaced.
        try:
            path = Path(os.path.realpath(path))
        except ValueError as exc:
            raise JournalError(f"{path!r} is no path: {exc}", path=os.fspath(path)) from None
        fd = _open_locked(path)
        journal = cls(path, fd)
        try:
            journal._load(redo)
        except BaseException:
            os.close(journal._fd)
            raise
        return journal

    @property
    def path(self) -> str:
        return str(self._path)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, custom_id: str) -> bool:
        return self._index.get(custom_id) is not None

    def find(self, custom_id: str) -> int | None:
        """Where this id's line begins, or None if it is not in the file. Touches no disk."""
        return self._index.get(custom_id)

    def read(self, offset: int) -> bytes:
        """The line that begins at this offset."""
        size = 4096
        while True:
            data = read_at(self._fd, size, offset)
            end = data.find(b"\n")
            if end >= 0:
                return data[:end]
            if len(data) < size:
                return data
            size *= 4

    def append(self, lines: Sequence[tuple[str, bytes]]) -> None:
        """
        Write these (custom_id, line) pairs, given without line feeds. All or none.

        Raises `JournalWriteError`, after which nothing more can be written.
        """
        if not lines:
            return
        if self._broken:
            raise JournalWriteError(
                self._broken, path=self.path, errno=None, unsaved=tuple(line for _, line in lines)
            )
        data = b"\n".join([line for _, line in lines]) + b"\n"
        try:
            write_all(self._fd, data)
        except OSError as exc:
            raise self._write_error(exc, tuple(line for _, line in lines)) from exc
        at = self._end
        put = self._index.put
        for custom_id, line in lines:
            put(custom_id, at)
            at += len(line) + 1
        self._end = at

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        try:
            datasync(self._fd)
        except OSError as exc:
            # After a failed fsync the kernel may have dropped the pages and will
            # report success next time: there is no second try (PostgreSQL's
            # "fsyncgate", https://wiki.postgresql.org/wiki/Fsync_Errors).
            self._broken = f"{self._path} could not be written to disk: {exc.strerror}"
            raise JournalWriteError(self._broken, path=self.path, errno=exc.errno) from exc

    def close(self) -> None:
        """Close the file and let others have it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write_error(self, exc: OSError, unsaved: tuple[bytes, ...]) -> JournalWriteError:
        try:
            os.ftruncate(self._fd, self._end)
            kept = f"what was in it before ({len(self._index):,} results) is safe"
        except OSError:
            kept = "its last line may be cut short, which the next run mends"
        if exc.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            reason = "the disk is full"
        elif exc.errno == errno.EFBIG:
            reason = "the file would exceed the size limit"
        else:
            reason = exc.strerror or str(exc)
        self._broken = f"cannot write to {self._path}: {reason}; {kept}. Make room and run again: only what is missing is sent"
        return JournalWriteError(self._broken, path=self.path, errno=exc.errno, unsaved=unsaved)

    def _load(self, redo: Redo) -> None:
        self._remove_unfinished_copies()
        good, drop, damaged = self._scan(redo)
        size = os.fstat(self._fd).st_size
        if drop:
            self._copy_without(drop, damaged, good)
            mended = self.mended
            self.ok = self.failed = 0
            self._index = IdTable()
            good, drop, _ = self._scan("none")
            assert not drop
            self.mended = mended
        elif good < size:
            os.ftruncate(self._fd, good)
            datasync(self._fd)
        self._end = good

    def _scan(self, redo: Redo) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
        """Read the file: where its whole lines end, what to leave out, and what of that is damaged."""
        size = os.fstat(self._fd).st_size
        drop: list[tuple[int, int]] = []
        damaged: list[tuple[int, int]] = []
        index = self._index
        mended = self.mended
        good = 0
        with open(self._fd, "rb", buffering=0, closefd=False) as file:
            file.seek(0)
            for offset, line in read_lines(file, max_line=MAX_OUTPUT_LINE):
                end = size if line is None else offset + len(line) + 1
                last = end > size
                if line is None:
                    raise JournalError(
                        f"{self._path} is not a journal: a line of more than {MAX_OUTPUT_LINE:,} bytes",
                        path=self.path,
                    )
                if not line.strip():
                    if last:
                        mended.torn += len(line)
                        break
                    drop.append((offset, end))
                    good = end
                    continue
                try:
                    answer = decode_answer(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                    if _is_json(line):
                        raise self._foreign(offset, line) from exc
                    if last:
                        mended.torn += len(line)
                        break
                    mended.damaged += 1
                    drop.append((offset, end))
                    damaged.append((offset, end))
                    good = end
                    continue
                if answer.response is None and answer.error is None:
                    raise self._foreign(offset, line)
                if last:
                    self._finish_line(end)
                    size = end
                good = end
                if (redo == "failed" and not answer.ok) or (redo == "transient" and answer.transient):
                    mended.redo += 1
                    drop.append((offset, end))
                    continue
                earlier = index.get(answer.custom_id)
                if earlier is not None:
                    mended.replaced += 1
                    before = decode_answer(self.read(earlier))
                    if not supersedes(answer, before):
                        drop.append((offset, end))
                        continue
                    drop.append((earlier, -1))
                    self._count(before, -1)
                index.put(answer.custom_id, offset)
                self._count(answer, 1)
        if damaged and len(damaged) == len(drop) and not len(index):
            raise JournalError(f"{self._path} is not a journal: none of its lines is JSON", path=self.path)
        return good, drop, damaged

    def _count(self, answer: Answer, by: int) -> None:
        if answer.ok:
            self.ok += by
        else:
            self.failed += by

    def _finish_line(self, end: int) -> None:
        """The last line is whole but for its line feed: put it there."""
        os.write(self._fd, b"\n")
        assert os.fstat(self._fd).st_size == end

    def _foreign(self, offset: int, line: bytes) -> JournalError:
        what = "a request" if b'"body"' in line and b'"response"' not in line else "no result"
        return JournalError(
            f"{self._path} is not a journal: the line at byte {offset:,} is {what}. It was left untouched; "
            "give the journal another name",
            path=self.path,
        )

    def _copy_without(self, drop: list[tuple[int, int]], damaged: list[tuple[int, int]], end: int) -> None:
        """Replace the file by a copy without these lines."""
        starts = sorted((start, self._line_end(start) if stop < 0 else stop) for start, stop in drop)
        if damaged:
            try:
                self._set_aside(damaged)
            except OSError as exc:
                raise JournalWriteError(
                    f"cannot keep what is damaged in {self._path} in a file beside it: {exc.strerror}; it was left as it was",
                    path=self.path,
                    errno=exc.errno,
                ) from exc

        def kept() -> Iterator[tuple[int, int]]:
            at = 0
            for start, stop in (*starts, (end, end)):
                yield at, start
                at = stop

        self._replace(kept())

    def arrange(self, order: Iterable[str]) -> None:
        """
        Put the lines into the order of these ids, in one step. Lines of other ids come after them: they were paid for, too.

        Raises `JournalWriteError`, after which the file is as it was.
        """
        placed: set[int] = set()

        def lines() -> Iterator[tuple[int, int]]:
            for custom_id in order:
                at = self.find(custom_id)
                if at is not None and at not in placed:
                    placed.add(at)
                    yield at, self._line_end(at)
            with open(self._fd, "rb", buffering=0, closefd=False) as file:
                file.seek(0)
                for at, line in read_lines(file, max_line=MAX_OUTPUT_LINE):
                    if at not in placed:
                        yield at, at + len(line or b"") + 1

        self._replace(lines())
        self.ok = self.failed = 0
        self._index = IdTable()
        self._scan("none")

    def _replace(self, kept: Iterable[tuple[int, int]]) -> None:
        """Replace the file, in one step, by a copy of these of its ranges, as protected as it is."""
        fd = -1
        try:
            with replacing(self._path, durable=True, mark=_COPY) as copy:
                _lock(copy.fileno(), self._path)
                for start, stop in kept:
                    _copy_range(self._fd, copy.fileno(), start, stop)
                if os.name == "nt":
                    os.close(self._fd)  # Windows cannot rename over an open file
                else:
                    # The copy is locked before it has the name, so nobody can slip in between.
                    fd = os.dup(copy.fileno())
            if os.name == "nt":
                fd = _open_locked(self._path)
            else:
                os.close(self._fd)
            self._fd = fd
        except OSError as exc:
            if fd >= 0:
                os.close(fd)
            raise JournalWriteError(
                f"cannot make a copy of {self._path}: {exc.strerror}; it was left as it was",
                path=self.path,
                errno=exc.errno,
            ) from exc

    def _set_aside(self, damaged: list[tuple[int, int]]) -> None:
        """Keeps lines that are not JSON in a file beside, which as few may read as the journal."""
        mode = os.fstat(self._fd).st_mode & 0o777
        fd = open_plain(f"{self._path}.damaged", os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)
        try:
            for start, stop in damaged:
                write_all(fd, read_at(self._fd, stop - start, start))
        finally:
            os.close(fd)

    def _remove_unfinished_copies(self) -> None:
        """Those that a killed process left, known by their whole name. We hold the lock, so nobody is making one now."""
        directory = self._path.parent
        ours = re.compile(rf"\.{re.escape(short(self._path.name))}\.[0-9a-f]{{16}}\.kimi-{_COPY}")
        with suppress(OSError):  # a directory that cannot be listed
            for entry in os.scandir(directory):
                if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        os.unlink(entry.path)

    def _line_end(self, start: int) -> int:
        return start + len(self.read(start)) + 1


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _open_locked(path: Path) -> int:
    """A locked descriptor of the file that has this name now."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    while True:
        try:
            new = not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = open_plain(path, flags)
        except ConfigurationError as exc:
            raise JournalError(str(exc), path=str(path)) from None
        except OSError as exc:
            raise JournalError(f"cannot open {path}: {exc.strerror}", path=str(path)) from exc
        try:
            _lock(fd, path)
            if os.name == "nt" or _same_file(fd, path):
                if new:
                    sync_directory(path.parent)
                return fd
        except BaseException:
            os.close(fd)
            raise
        # Somebody replaced the file between open and lock: take the new one.
        os.close(fd)


def _same_file(fd: int, path: Path) -> bool:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), named)


def _lock(fd: int, path: Path) -> None:
    """Take the advisory lock, or raise `JournalLockedError`. It falls with the descriptor, however the process ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # One byte far behind any end: a mandatory lock there blocks nobody from reading.
            os.lseek(fd, 1 << 62, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            raise JournalLockedError(
                f"{path} is in use by another run; two runs on one journal would send everything twice",
                path=str(path),
            ) from exc
        raise JournalError(f"cannot lock {path}: {exc.strerror}", path=str(path)) from exc


def _copy_range(source: int, target: int, start: int, stop: int) -> None:
    while start < stop:
        data = read_at(source, min(1024 * 1024, stop - start), start)
        if not data:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        start += len(data)
        write_all(target, data)
