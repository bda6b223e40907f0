"""
Many uploads at once: what is checked, what is recognised as already uploaded, and what that recognition proves.

`client.files.upload_many` is the way in.
"""

import asyncio
import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias, cast

from ..errors import ConfigurationError, KimiError, NotFoundError
from ..resources.disk import kind_of, open_plain, plain_file, read_at
from ..resources.parallel import in_parallel
from ..resources.threads import in_thread
from ..resources.uploads import MAX_UPLOAD, FileTypes, UploadFile, hash_file, parts_of, size_of
from .watching import logger, watching

if TYPE_CHECKING:
    from ..types.files import FileObject

__all__ = [
    "Dedupe",
    "Evict",
    "FileLimitError",
    "FileLimits",
    "UploadProgress",
    "UploadResult",
    "upload_many",
]


class FileLimitError(KimiError):
    """The account has no room for this file. Nothing of it was sent."""

    def __init__(self, message: str, *, files: int, size: int) -> None:
        super().__init__(message)
        self.files: int = files
        """Files on the account."""
        self.size: int = size
        """Their bytes together."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What an account may hold (platform.kimi.ai/docs/api/files)."""

    max_files: int = 1000
    max_file_size: int = MAX_UPLOAD
    max_total: int = 10 * 1024**3


class Uploader(Protocol):
    """What is asked of the account's files."""

    def list(self) -> AsyncIterable["FileObject"]: ...

    async def create(
        self, *, file: UploadFile, purpose: Any, on_progress: Callable[[int, int], object] | None = ...
    ) -> "FileObject": ...

    async def delete(self, file_id: str) -> object: ...


Dedupe: TypeAlias = Literal["content", "name", "off"]

Evict: TypeAlias = "Literal['oldest'] | Callable[[Sequence[FileObject], int, int], Iterable[FileObject]]"
"""
Who makes room: ``"oldest"`` deletes the oldest files of the same purpose; a function is given the files that may go,
oldest first, and how many files and bytes must go at least, and gives those to delete.
"""


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far `upload_many` is."""

    files: int
    """All files."""
    done: int
    """Finished, well or not."""
    failed: int
    reused: int
    size: int
    """Bytes of all files whose size is known, less those that need not be sent."""
    sent: int
    """Bytes sent. Falls when an upload has to start again."""


@dataclass(slots=True)
class UploadResult:
    """What became of one file: either ``file`` or ``error`` is set."""

    source: Any
    """As it was given; for a glob, the path."""
    name: str = ""
    size: int = 0
    file: "FileObject | None" = None
    error: Exception | None = None
    reused: Literal["content", "name"] | None = None
    """
    Why it was not sent. ``content``: the same bytes, by SHA-256 or because the very file (inode, size and time of
    change in nanoseconds) was uploaded before by this process. ``name``: a file of this name, size and purpose is on the
    account, and is younger than the last change of the local file; that is strong evidence, not proof.
    """
    sha256: str | None = None
    """Where it was computed."""

    @property
    def ok(self) -> bool:
        return self.file is not None

    def unwrap(self) -> "FileObject":
        """The file; raises the error if there is none."""
        if self.file is None:
            raise self.error or RuntimeError("not uploaded")
        return self.file


class _Stamp(NamedTuple):
    """What tells a file on disk from any other, and from itself after a change."""

    device: int
    inode: int
    size: int
    changed: int
    """Nanoseconds."""


# What this process uploaded from which file: (account, purpose, and its stamp) → id. Ids are believed
# only while the account lists them.
_uploaded: "OrderedDict[tuple[str | int, ...], str]" = OrderedDict()
_UPLOADED_KEPT: Final = 20_000


async def upload_many(
    api: Uploader,
    files: Iterable[FileTypes] | FileTypes,
    *,
    purpose: str | Callable[[UploadFile], str],
    concurrency: int = 8,
    on_progress: Callable[[UploadProgress], object] | None = None,
    dedupe: bool | Dedupe = True,
    index: str | os.PathLike[str] | None = None,
    limits: FileLimits | None = None,
    evict: "Evict | None" = None,
    account: str = "",
) -> list[UploadResult]:
    """
    Upload many files, at most ``concurrency`` at a time; one result for each, in the order given.

    ``files`` are paths, globs (``**`` is understood; matches are sorted), or whatever `files.create` takes. A file that
    fails gives a result with its error, and the others go on.

    ``dedupe`` says what need not be sent:

    * ``"content"``: only what is proven. Files of equal bytes in this call (SHA-256; computed only where size and a sample
      agree), files this process has uploaded before and that have not been touched since, and files whose SHA-256 is in
      ``index``.
    * ``"name"`` (or True): also a file that the account holds under the same name, size and purpose, if it was uploaded
      more than a second after the local file was last changed. The API keeps no hash, so this is the best it can tell;
      a file restored with an older date, or clocks far apart, can deceive it.
    * ``"off"`` (or False): send everything.

    ``index`` is a JSONL file that remembers SHA-256 → file id between runs and machines. It is read first and appended to
    after each upload; entries that are no longer on the account are ignored. It makes every file be hashed.

    What the account may hold (``limits``) is checked before each upload; without room the file's error is
    `FileLimitError`, unless ``evict`` makes room.

    What ``on_progress`` raises is logged, once, and the uploads go on.
    """
    run = _Run(
        api,
        purpose=purpose,
        dedupe=("name" if dedupe else "off") if isinstance(dedupe, bool) else dedupe,
        index=None if index is None else os.fspath(index),
        limits=limits or FileLimits(),
        evict=evict,
        on_progress=on_progress,
        account=hashlib.blake2b(account.encode(), digest_size=12).hexdigest(),
    )
    return await run.go(files, concurrency)


@dataclass(slots=True)
class _Flight:
    """An upload of this run, for others with the same content to wait for."""

    result: UploadResult
    landed: asyncio.Event
    path: str | None
    stamp: _Stamp | None
    sha256: str | None = None


class Room:
    """What an account holds, against what it may hold."""

    def __init__(self, limits: FileLimits) -> None:
        self.limits = limits
        self.files: int = 0
        self.size: int = 0

    def lacks(self, size: int) -> tuple[int, int]:
        """How many files and bytes are too many, with one more of this size; 0 where there is room."""
        files = self.files + 1 - self.limits.max_files
        return max(0, files), max(0, self.size + size - self.limits.max_total)

    def add(self, size: int, name: str) -> None:
        """:raises FileLimitError: if there is no room for it."""
        files, over = self.lacks(size)
        if files:
            raise FileLimitError(
                f"no room for {name}: the account holds {self.files:,} of {self.limits.max_files:,} files; "
                "delete some, or pass evict=",
                files=self.files,
                size=self.size,
            )
        if over:
            raise FileLimitError(
                f"no room for {name} ({size:,} bytes): the account holds {self.size:,} of "
                f"{self.limits.max_total:,} bytes; delete some files, or pass evict=",
                files=self.files,
                size=self.size,
            )
        self.files += 1
        self.size += size

    def remove(self, size: int) -> None:
        self.files -= 1
        self.size -= size


def oldest(free: "Sequence[FileObject]", purpose: str, files: int, size: int) -> "list[FileObject]":
    """The first files of a purpose that make room for so many files and bytes; all of them if that is not enough."""
    chosen: list[FileObject] = []
    for each in free:
        if files <= 0 and size <= 0:
            break
        if each.purpose == purpose:
            chosen.append(each)
            files -= 1
            size -= each.bytes
    return chosen


class _Run:
    def __init__(
        self,
        api: Uploader,
        *,
        purpose: str | Callable[[UploadFile], str],
        dedupe: str,
        index: str | None,
        limits: FileLimits,
        evict: "Evict | None",
        on_progress: Callable[[UploadProgress], object] | None,
        account: str,
    ) -> None:
        if dedupe not in ("content", "name", "off"):
            raise ConfigurationError(
                f"dedupe must be True, False, 'content', 'name' or 'off', not {dedupe!r}"
            )
        self._api = api
        self._purpose = purpose
        self._dedupe = dedupe
        self._index_path = index
        self._index: dict[tuple[str, str], str] = {}
        self._room = Room(limits)
        self._evict = evict
        self._on_progress = watching("on_progress", on_progress)
        self._account = account
        self._listed: dict[str, FileObject] = {}
        self._by_name: dict[tuple[str, int, str], FileObject] = {}
        self._used: set[str] = set()
        self._flights: dict[tuple[str, int, bytes], list[_Flight]] = {}
        self._making_room = asyncio.Lock()
        self._results: list[UploadResult] = []
        self._sent: dict[int, int] = {}
        self._done = self._failed = self._reused = self._size = self._bytes_sent = 0

    async def go(self, files: Iterable[FileTypes] | FileTypes, concurrency: int) -> list[UploadResult]:
        if concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {concurrency}")
        results = self._results = await in_thread(_expanded, files)
        if not results:
            return results
        self._size = sum(result.size for result in results if result.error is None)
        if self._index_path is not None:
            self._index = await in_thread(_read_index, self._index_path, self._account)
        try:
            async for file in self._api.list():
                self._listed[file.id] = file
                self._room.files += 1
                self._room.size += file.bytes
                if file.status != "error":
                    before = self._by_name.get((file.filename, file.bytes, file.purpose))
                    if before is None or before.created_at <= file.created_at:
                        self._by_name[file.filename, file.bytes, file.purpose] = file
        except NotFoundError:
            # A gateway that takes files but does not list them: nothing is known to be there already.
            pass
        jobs = [self._job(number) for number in range(len(results))]
        await in_parallel(jobs, concurrency)
        return results

    def _job(self, number: int) -> Callable[[], Awaitable[None]]:
        async def job() -> None:
            result = self._results[number]
            if result.error is None:
                try:
                    await self._one(number, result)
                except Exception as exc:
                    # Whatever it is, it is this file's: the others must not lose their result to it.
                    result.file, result.error = None, exc
            self._done += 1
            self._failed += result.error is not None
            self._reused += result.reused is not None
            self._tell()

        return job

    async def _one(self, number: int, result: UploadResult) -> None:
        async with await UploadFile.of(result.source) as file:
            known = result.size
            result.name, result.size = file.name, file.size
            self._size += file.size - known
            file.check(self._room.limits.max_file_size)
            purpose = self._purpose if isinstance(self._purpose, str) else self._purpose(file)
            stamp = None if file.path is None else _stamp(file.path)
            if self._dedupe == "off":
                await self._send(number, result, file, purpose, stamp)
                return
            found = await self._on_account(result, file, purpose, stamp)
            if found is None:
                await self._together(number, result, file, purpose, stamp)
            else:
                result.file, result.reused = found
                self._used.add(found[0].id)
                self._size -= file.size

    async def _on_account(
        self, result: UploadResult, file: UploadFile, purpose: str, stamp: _Stamp | None
    ) -> "tuple[FileObject, Literal['content', 'name']] | None":
        """A file of the account that this one need not be sent again for."""
        if file.path is not None and stamp is not None:
            id_ = _uploaded.get((self._account, purpose, *stamp))
            listed = self._listed.get(id_ or "")
            if listed is not None and listed.bytes == file.size and listed.status != "error":
                return listed, "content"
        if self._index_path is not None:
            result.sha256 = await file.sha256()
            listed = self._listed.get(self._index.get((result.sha256, purpose), ""))
            if listed is not None and listed.bytes == file.size and listed.status != "error":
                return listed, "content"
        if self._dedupe == "name" and stamp is not None:
            listed = self._by_name.get((file.name, file.size, purpose))
            # The account's clock counts whole seconds: a change in the same second would go unnoticed.
            if listed is not None and listed.created_at > stamp.changed // 1_000_000_000 + 1:
                return listed, "name"
        return None

    async def _together(
        self,
        number: int,
        result: UploadResult,
        file: UploadFile,
        purpose: str,
        stamp: _Stamp | None,
    ) -> None:
        """Send it, unless a file with the same content is on its way already: then wait for that one."""
        key = (purpose, file.size, await file.sample())
        flights = self._flights.setdefault(key, [])
        for flight in flights:
            if result.sha256 is None:
                result.sha256 = await file.sha256()
            if await self._hash_of(flight) != result.sha256:
                continue
            await flight.landed.wait()
            if flight.result.file is not None:
                result.file, result.reused = flight.result.file, "content"
                self._size -= file.size
                return
            # That one failed; this is another try, and its error (if any) its own.
        flight = _Flight(result, asyncio.Event(), file.path, stamp, result.sha256)
        if file.path is None and flight.sha256 is None:
            # Cannot be read again once it is closed.
            flight.sha256 = result.sha256 = await file.sha256()
        flights.append(flight)
        try:
            await self._send(number, result, file, purpose, stamp)
        finally:
            flight.landed.set()

    async def _hash_of(self, flight: _Flight) -> str | None:
        if flight.sha256 is None and flight.path is not None:
            found = await in_thread(hash_file, flight.path)
            if _stamp(flight.path) != flight.stamp:
                return None  # changed since it was sent: no longer evidence
            flight.sha256 = flight.result.sha256 = found
        return flight.sha256

    async def _send(
        self,
        number: int,
        result: UploadResult,
        file: UploadFile,
        purpose: str,
        stamp: _Stamp | None,
    ) -> None:
        await self._reserve(file, purpose)

        def progress(sent: int, total: int) -> None:
            self._bytes_sent += sent - self._sent.get(number, 0)
            self._sent[number] = sent
            self._tell()

        try:
            uploaded = await self._api.create(
                file=file, purpose=purpose, on_progress=None if self._on_progress is None else progress
            )
        except BaseException:
            self._room.remove(file.size)
            raise
        result.file = uploaded
        self._used.add(uploaded.id)
        if file.path is not None and stamp is not None and _stamp(file.path) == stamp:
            _uploaded[self._account, purpose, *stamp] = uploaded.id
            while len(_uploaded) > _UPLOADED_KEPT:
                _uploaded.popitem(last=False)
        if self._index_path is not None and result.sha256 is not None:
            self._index[result.sha256, purpose] = uploaded.id
            try:
                await in_thread(
                    _append_index, self._index_path, self._account, result.sha256, purpose, uploaded
                )
            except (OSError, ConfigurationError) as exc:
                # It is uploaded all the same; without its line it may be so once more in another run.
                logger.warning("%s is not in the index %s: %s", uploaded.id, self._index_path, exc)

    async def _reserve(self, file: UploadFile, purpose: str) -> None:
        """Count the file in, or raise `FileLimitError`."""
        room = self._room
        async with self._making_room:
            files, size = room.lacks(file.size)
            if (files > 0 or size > 0) and self._evict is not None:
                free = [each for each in self._listed.values() if each.id not in self._used]
                free.sort(key=lambda each: each.created_at)
                choose = self._evict
                chosen = choose(free, files, size) if callable(choose) else oldest(free, purpose, files, size)
                for old in list(chosen):
                    await self._api.delete(old.id)
                    if self._listed.pop(old.id, None) is not None:
                        room.remove(old.bytes)
            room.add(file.size, file.name)

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                UploadProgress(
                    files=len(self._results),
                    done=self._done,
                    failed=self._failed,
                    reused=self._reused,
                    size=self._size,
                    sent=self._bytes_sent,
                )
            )


def _expanded(files: Any) -> list[UploadResult]:
    """One result for each file: globs are expanded, and the sizes of paths looked up."""
    import glob

    if isinstance(files, str | os.PathLike | bytes | bytearray | memoryview | tuple) or hasattr(
        files, "read"
    ):
        files = [files]
    results: list[UploadResult] = []
    for source in files:
        if isinstance(source, str) and glob.has_magic(source) and not os.path.lexists(source):
            matches = sorted(path for path in glob.iglob(source, recursive=True) if not os.path.isdir(path))
            if not matches:
                results.append(
                    UploadResult(source, source, error=ConfigurationError(f"no file matches {source!r}"))
                )
            results += [_matched(path) for path in matches]
        else:
            results.append(UploadResult(source))
    for result in results:
        try:
            name, content, _, _ = parts_of(result.source)
            if result.error is None and isinstance(content, str | os.PathLike):
                path = os.fspath(cast("str | os.PathLike[str]", content))
                result.name = result.name or name or os.path.basename(path)
                result.size = max(0, size_of(path))
            elif isinstance(content, bytes | bytearray):
                result.name, result.size = name or "", len(content)
        except ConfigurationError as exc:
            result.error = exc
    return results


def _matched(path: str) -> UploadResult:
    """A file that a glob found. Who names a pipe wants it read; a glob does not know what it picks up."""
    with suppress(OSError):
        kind = kind_of(os.stat(path).st_mode)
        if kind is not None:
            return UploadResult(path, path, error=ConfigurationError(f"{path} is {kind}; it was not read"))
    return UploadResult(path)


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _read_index(path: str, account: str) -> dict[tuple[str, str], str]:
    import json

    known: dict[tuple[str, str], str] = {}
    try:
        with io.BufferedReader(plain_file(path)) as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    if entry["account"] == account:
                        known[str(entry["sha256"]), str(entry["purpose"])] = str(entry["id"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a crash only means one more upload
    except FileNotFoundError:
        pass
    return known


def _append_index(path: str, account: str, sha256: str, purpose: str, file: "FileObject") -> None:
    import json

    entry = {"account": account, "sha256": sha256, "purpose": purpose, "id": file.id, "name": file.filename}
    # One write call in append mode: lines of several processes do not mix. It begins with a line feed where the
    # last line was cut short.
    fd = open_plain(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and read_at(fd, 1, size - 1) != b"\n"
        os.write(fd, b"\n" * torn + json.dumps(entry).encode() + b"\n")
    finally:
        os.close(fd)
