"""
Results on disk: the Batch API's output lines, written as they come and read back.

    {"id": "request-1", "custom_id": "request-1",
     "response": {"status_code": 200, "request_id": "…", "body": {…}}, "error": null,
     "kimi_async": {"fingerprint": "…", "attempts": 1, "elapsed": 0.512}}

One file format for both engines: a live run (`pipeline`) and the Batch API
(`batching`) give files of the same shape, and `ResultFiles` joins either to its
requests. ``kimi_async`` is ours; the server's lines do not have it.

`Journal` is the file of a run that may be killed. What it promises:

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
import glob
import hashlib
import mmap
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec
from msgspec import Raw, Struct

from ..errors import KimiError
from .request_files import IdTable, LineProblem, read_blocks, read_lines

__all__ = [
    "Answer",
    "Journal",
    "JournalError",
    "JournalLockedError",
    "JournalMismatchError",
    "JournalWriteError",
    "Redo",
    "ResultFiles",
    "RunInfo",
    "answer_line",
    "failure_line",
    "fingerprint",
    "read_ids",
]

Redo = Literal["none", "transient", "failed"]

# Output lines hold whole answers with their reasoning: far longer than any
# request, but a gigabyte without a line feed is not a line.
MAX_OUTPUT_LINE: Final = 256 * 1024 * 1024


class JournalError(KimiError):
    """
    The journal cannot be used. ``path`` says which.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class JournalLockedError(JournalError):
    """
    Another run is writing to this journal.
    """


class JournalMismatchError(JournalError):
    """
    The journal answers a different request under this ``custom_id``: the input was changed since.
    """

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


class RunInfo(Struct, gc=False, omit_defaults=True):
    """
    What we add to an output line.
    """

    fingerprint: str = ""
    """Of the request's body; see `fingerprint`."""
    attempts: int = 1
    elapsed: float = 0.0
    """Seconds from taking the request up to its end, waiting included."""
    retryable: bool = False
    """For a failure: whether sending the request again can help."""


_NOTHING = Raw(b"null")


class _Response(Struct, gc=False):
    status_code: int | None = None
    request_id: str | None = None
    body: Raw = _NOTHING


# Lines without a status_code were answered: the error file is where others are.
_GOOD = frozenset([None, *range(200, 300)])


class Answer(Struct, gc=False):
    """
    One output line.
    """

    custom_id: str
    response: _Response | None = None
    error: Any = None
    """Null, or what went wrong: ``{"code"?, "message"}``."""
    kimi_async: RunInfo | None = None

    @property
    def status_code(self) -> int | None:
        """
        The reply's HTTP status; None where there was no reply.
        """
        response = self.response
        if response is None:
            return None
        return 200 if response.status_code is None else response.status_code

    @property
    def body(self) -> bytes | None:
        """
        The reply's body as JSON.
        """
        response = self.response
        if response is None:
            return None
        raw = bytes(response.body)
        return None if raw == b"null" else raw

    @property
    def ok(self) -> bool:
        """
        Whether it holds an answer: a reply with status 2xx (or none told), and no error.
        """
        response = self.response
        return response is not None and self.error is None and response.status_code in _GOOD

    @property
    def transient(self) -> bool:
        """
        Whether it holds a failure that sending again may mend.
        """
        if self.kimi_async is not None:
            return self.kimi_async.retryable and not self.ok
        if self.ok:
            return False
        status = self.status_code
        return status is None or status in (408, 409, 429) or status >= 500


class _Status(Struct, gc=False):
    status_code: int | None = 200


class _Verdict(Struct, gc=False):
    """
    As little of an output line as tells whose it is and whether it is an answer.
    """

    custom_id: str
    response: _Status | None = None
    error: Any = None


_decode_verdict = msgspec.json.Decoder(_Verdict).decode
_decode_answer = msgspec.json.Decoder(Answer).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def fingerprint(body: Any, *, enc_hook: Callable[[Any], Any] | None = None) -> str:
    """
    32 hexadecimal digits that differ when the request differs, whatever the order of its keys.

    ``body`` is anything msgspec can encode, or JSON bytes.
    """
    if isinstance(body, bytes | Raw):
        body = msgspec.json.decode(body)
    if enc_hook is None:
        data = _encode_sorted(body)
    else:
        data = msgspec.json.encode(body, order="sorted", enc_hook=enc_hook)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def answer_line(
    custom_id: str, body: bytes, *, request_id: str | None = None, status_code: int = 200, run: RunInfo
) -> bytes:
    """
    The output line for a reply, without line feed. ``body`` must be JSON; it is put in as it came.
    """
    if b"\n" in body:
        # In JSON a bare line feed can only stand between tokens, so this changes no value.
        body = body.replace(b"\n", b" ")
    name = _encode(custom_id)
    return (
        b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null,"kimi_async":%b}'
        % (
            name,
            name,
            status_code,
            _encode(request_id or ""),
            body,
            _encode(run),
        )
    )


def failure_line(
    custom_id: str,
    *,
    code: str,
    message: str,
    status_code: int | None = None,
    body: Any = None,
    request_id: str | None = None,
    run: RunInfo,
) -> bytes:
    """
    The output line for a request that failed. Without a ``status_code`` there was no reply, and ``response`` is null.
    """
    response = None
    if status_code is not None:
        response = {"status_code": status_code, "request_id": request_id or "", "body": body}
    line = {
        "id": custom_id,
        "custom_id": custom_id,
        "response": response,
        "error": {"code": code, "message": message},
        "kimi_async": run,
    }
    return _encode(line)


@dataclass(slots=True)
class Mended:
    """
    What `Journal.open` found and put right.
    """

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
    """
    The file of a run, open for writing and locked. Make one with `Journal.open`.
    """

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
        path = Path(path)
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
        """
        Where this id's line begins, or None if it is not in the file. Touches no disk.
        """
        return self._index.get(custom_id)

    def read(self, offset: int) -> bytes:
        """
        The line that begins at this offset.
        """
        size = 4096
        while True:
            data = _pread(self._fd, size, offset)
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
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise self._write_error(exc, tuple(line for _, line in lines)) from exc
        at = self._end
        put = self._index.put
        for custom_id, line in lines:
            put(custom_id, at)
            at += len(line) + 1
        self._end = at

    def sync(self) -> None:
        """
        Wait until everything appended is on the disk.
        """
        try:
            _datasync(self._fd)
        except OSError as exc:
            # After a failed fsync the kernel may have dropped the pages and will
            # report success next time: there is no second try (PostgreSQL's
            # "fsyncgate", https://wiki.postgresql.org/wiki/Fsync_Errors).
            self._broken = f"{self._path} could not be written to disk: {exc.strerror}"
            raise JournalWriteError(self._broken, path=self.path, errno=exc.errno) from exc

    def close(self) -> None:
        """
        Close the file and let others have it. Idempotent.
        """
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
        # Copies that a killed process did not finish. We hold the lock, so nobody is making one now.
        for left in self._path.parent.glob(f"{glob.escape(self._path.name)}.*.tmp"):
            left.unlink(missing_ok=True)
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
            _datasync(self._fd)
        self._end = good

    def _scan(self, redo: Redo) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
        """
        Read the file: where its whole lines end, what to leave out, and what of that is damaged.
        """
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
                    answer = _decode_answer(line)
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
                if answer.ok:
                    self.ok += 1
                else:
                    self.failed += 1
                earlier = index.put(answer.custom_id, offset)
                if earlier is not None:
                    mended.replaced += 1
                    drop.append((earlier, -1))
        if damaged and len(damaged) == len(drop) and not len(index):
            raise JournalError(f"{self._path} is not a journal: none of its lines is JSON", path=self.path)
        return good, drop, damaged

    def _finish_line(self, end: int) -> None:
        """
        The last line is whole but for its line feed: put it there.
        """
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
        """
        Replace the file, in one step, by a copy without these lines.
        """
        starts = sorted((start, self._line_end(start) if stop < 0 else stop) for start, stop in drop)
        if damaged:
            with open(f"{self._path}.damaged", "ab") as spoiled:
                for start, stop in damaged:
                    spoiled.write(_pread(self._fd, stop - start, start))
        copy = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        fd = os.open(copy, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _lock(fd, copy)
            at = 0
            for start, stop in (*starts, (end, end)):
                _copy_range(self._fd, fd, at, start)
                at = stop
            _datasync(fd)
            if os.name == "nt":
                # Windows cannot rename over an open file.
                os.close(self._fd)
                os.close(fd)
                os.replace(copy, self._path)
                fd = _open_locked(self._path)
            else:
                # The copy is locked before it has the name, so nobody can slip in between.
                os.replace(copy, self._path)
                _sync_directory(self._path.parent)
                os.close(self._fd)
            self._fd = fd
        except OSError as exc:
            os.close(fd)
            copy.unlink(missing_ok=True)
            raise JournalWriteError(
                f"cannot make a copy of {self._path} without the lines to do again: {exc.strerror}; it was left as it was",
                path=self.path,
                errno=exc.errno,
            ) from exc

    def _line_end(self, start: int) -> int:
        return start + len(self.read(start)) + 1


# Joining a million lines takes a fifth less time with a dict than with an `IdTable`, and 140 MB instead of 30.
_DICT_UP_TO: Final = 2_000_000


class ResultFiles:
    """
    One or more files of output lines, found by ``custom_id``.

    Reading them once keeps the ids and where their lines begin, not the lines:
    the files may be larger than memory. Up to two million ids that is a dict,
    which is quick and takes 150 bytes an id; beyond, 16 to 32 (see `IdTable`). Where an id has several lines, an
    answer wins over a failure, and a later line over an earlier one.
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
                with open(path, "rb", buffering=0) as file:
                    # Mapped, so that a join in any order costs no seek and no copy of the file;
                    # the pages belong to the kernel, which takes them back when it needs them.
                    empty = os.fstat(file.fileno()).st_size == 0
                    self._maps.append(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                    self._scan(file, os.fspath(path))
        except BaseException:
            self.close()
            raise

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
        decode = _decode_verdict
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
                response = verdict.response
                good = response is not None and verdict.error is None and response.status_code in _GOOD
                name = verdict.custom_id
                old = find(name)
                if old is not None:
                    before = _decode_verdict(self._line_at(old))
                    was_good = (
                        before.response is not None
                        and before.error is None
                        and before.response.status_code in _GOOD
                    )
                    if was_good and not good:
                        continue
                    answered -= was_good
                    failed -= not was_good
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
        """
        The output line of this id, or None if no file has one.
        """
        at = self._index.get(custom_id)
        return None if at is None else self._line_at(at)

    def get(self, custom_id: str) -> Answer | None:
        """
        The decoded output line of this id, or None if no file has one.
        """
        line = self.line(custom_id)
        return None if line is None else _decode_answer(line)

    def _line_at(self, at: int) -> bytes:
        data = self._maps[at >> 48]
        start = at & 0xFFFF_FFFF_FFFF
        end = data.find(b"\n", start)
        return data[start:] if end < 0 else data[start:end]

    def join(self, custom_ids: Iterable[str]) -> Iterator[tuple[str, Answer | None]]:
        """
        Each of these ids, in this order, with its line; None where it was not answered.
        """
        # `get` written out: this loop is what a million-line file waits for (benchmarks/bulk/join.py).
        find = self._index.get
        maps = self._maps
        decode = _decode_answer
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
        """
        Close the files. Idempotent.
        """
        for data in self._maps:
            if not isinstance(data, bytes):
                data.close()
        self._maps.clear()

    def __enter__(self) -> "ResultFiles":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Id(Struct, gc=False):
    custom_id: str


_decode_id = msgspec.json.Decoder(_Id).decode


def read_ids(path: str | os.PathLike[str]) -> Iterator[str]:
    """
    The ``custom_id`` of every line of a request file, in order. Lines must have been checked before.
    """
    decode = _decode_id
    first = True
    with open(path, "rb", buffering=0) as file:
        for _, lines in read_blocks(file, max_line=MAX_OUTPUT_LINE):
            for line in lines:
                if first and line is not None and line.startswith(b"\xef\xbb\xbf"):
                    line = line[3:]
                first = False
                if line and not (line[0] in b" \t\r" and line.isspace()):
                    yield decode(line).custom_id


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _open_locked(path: Path) -> int:
    """
    A locked descriptor of the file that has this name now.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    while True:
        new = not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, flags, 0o666)
        except OSError as exc:
            raise JournalError(f"cannot open {path}: {exc.strerror}", path=str(path)) from exc
        try:
            _lock(fd, path)
            if os.name == "nt" or _same_file(fd, path):
                if new:
                    _sync_directory(path.parent)
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
    """
    Take the advisory lock, or raise `JournalLockedError`. It falls with the descriptor, however the process ends.
    """
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


def _datasync(fd: int) -> None:
    # fdatasync writes the size too, as far as reading the data back needs it.
    if sys.platform == "linux":
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def _sync_directory(path: Path) -> None:
    """
    Make the file's name as durable as its bytes. Windows has no such call and needs none.
    """
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        # Some file systems refuse fsync on a directory; their names are durable otherwise or not at all.
        pass
    finally:
        os.close(fd)


def _pread(fd: int, size: int, offset: int) -> bytes:
    if sys.platform == "win32":
        # Appending ignores the position (O_APPEND), so moving it disturbs nobody.
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)
    return os.pread(fd, size, offset)


def _copy_range(source: int, target: int, start: int, stop: int) -> None:
    while start < stop:
        data = _pread(source, min(1024 * 1024, stop - start), start)
        if not data:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        start += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
