"""
Where the bytes of an upload come from: each source can be read from its beginning any number of times.

What can be read only once (a pipe, an async iterable) is copied first.
"""

import asyncio
import errno
import hashlib
import inspect
import io
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import IO, Any, Final, TypeVar, cast

from ..errors import ConfigurationError
from .disk import kind_of, open_plain, plain_file, read_at
from .threads import in_lost_thread, in_thread, readable

__all__ = ["BLOCK", "MAX_UPLOAD", "Source", "hash_file", "size_of", "source_of"]

# "100 MB" by the documentation (platform.kimi.ai/docs/api/files) and by the error text. The larger reading:
# what is refused here would certainly be refused there; what lies between, the server decides.
MAX_UPLOAD: Final = 100 * 1024 * 1024

BLOCK: Final = 256 * 1024

T = TypeVar("T")


class Source:
    """Bytes that can be read from the beginning any number of times."""

    size: int
    name: str | None = None
    path: str | None = None

    def blocks(self, block: int) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def sha256(self) -> str:
        digest = hashlib.sha256()
        async for data in self.blocks(1024 * 1024):
            digest.update(data)
        return digest.hexdigest()

    async def sample(self) -> bytes:
        """See `UploadFile.sample`."""
        digest = hashlib.blake2b(digest_size=16)
        starts = _sampled(self.size)
        held: dict[int, bytearray] = {start: bytearray() for start in starts}
        at = 0
        async for data in self.blocks(1024 * 1024):
            for start, part in held.items():
                begin = max(start + len(part) - at, 0)
                if begin < len(data) and len(part) < _SAMPLE and at + len(data) > start:
                    part += data[begin : begin + _SAMPLE - len(part)]
            at += len(data)
        for start in starts:
            digest.update(held[start])
        return digest.digest()

    def close(self) -> None:
        pass


class _Bytes(Source):
    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = data if isinstance(data, bytes) else bytes(data)
        self.size = len(self._data)

    async def blocks(self, block: int) -> AsyncIterator[bytes]:
        data = self._data
        if self.size <= block:
            if data:
                yield data
            return
        for start in range(0, self.size, block):
            yield data[start : start + block]


class _Path(Source):
    def __init__(self, path: str, size: int, *, temporary: bool = False) -> None:
        self.path = None if temporary else path
        self.name = None if temporary else os.path.basename(path)
        self.size = size
        self._path = path
        self._temporary = temporary

    async def blocks(self, block: int) -> AsyncIterator[bytes]:
        opened: list[int] = []  # kept by the thread, since a cancelled wait gives nothing
        try:
            await in_thread(lambda: opened.append(_open(self._path)))
            if os.fstat(opened[0]).st_size != self.size:
                raise ConfigurationError(f"{self._path} changed its size since it was measured")
            async for data in _blocks_of(opened[0], 0, self.size, block, self._path):
                yield data
        finally:
            for fd in opened:
                os.close(fd)

    async def sha256(self) -> str:
        return await in_thread(hash_file, self._path)

    async def sample(self) -> bytes:
        return await in_thread(_sample_file, self._path, self.size)

    def close(self) -> None:
        if self._temporary:
            self._temporary = False
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass


class _Descriptor(Source):
    """A plain file opened by the caller. It is read by offset, so its position does not move, and it is left open."""

    def __init__(self, file: IO[bytes], start: int, size: int, name: str | None) -> None:
        self._file = file
        self._start = start
        self.size = size
        self.name = name

    def blocks(self, block: int) -> AsyncIterator[bytes]:
        return _blocks_of(self._file.fileno(), self._start, self.size, block, self.name or "the file")


class _File(Source):
    """A binary file object of the caller's that can seek. It is read from where it stood, and left open."""

    def __init__(self, file: IO[bytes], start: int, size: int, name: str | None) -> None:
        self._file = file
        self._start = start
        self.size = size
        self.name = name
        # Two iterations of one file object (a hash and an upload) must not mix their positions.
        self._lock = asyncio.Lock()
        self._begun: asyncio.Task[object] | None = None

    async def blocks(self, block: int) -> AsyncIterator[bytes]:
        file = self._file
        in_memory = isinstance(file, io.BytesIO)
        async with self._lock:
            await self._call(partial(file.seek, self._start))
            left = self.size
            while left:
                count = min(block, left)
                data = file.read(count) if in_memory else await self._call(partial(file.read, count))
                if not data:
                    raise ConfigurationError(f"{self.name or 'the file'} became shorter while it was sent")
                left -= len(data)
                yield data

    async def _call(self, function: Callable[[], T]) -> T:
        """
        In a thread that a cancelled caller leaves behind: nobody knows what the file waits for. What was left so is waited for by
        the next, or it would read from a place that moves.
        """
        if self._begun is not None:
            await asyncio.wait([self._begun])
        begun = asyncio.ensure_future(in_lost_thread(function))
        begun.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._begun = begun
        found = await asyncio.shield(begun)
        self._begun = None
        return found


class _AsyncFile(Source):
    """An async file object (anyio, aiofiles) that can seek."""

    def __init__(self, file: Any, start: int, size: int, name: str | None) -> None:
        self._file = file
        self._start = start
        self.size = size
        self.name = name
        self._lock = asyncio.Lock()

    async def blocks(self, block: int) -> AsyncIterator[bytes]:
        async with self._lock:
            await self._file.seek(self._start)
            left = self.size
            while left:
                data = await self._file.read(min(block, left))
                if not data:
                    raise ConfigurationError(f"{self.name or 'the file'} became shorter while it was sent")
                left -= len(data)
                yield data


async def _blocks_of(fd: int, start: int, size: int, block: int, name: str) -> AsyncIterator[bytes]:
    """
    Part of a file by offset, never blocking the loop for a disk.

    Handing a block to a thread and back costs as much CPU as sending it. Where
    the kernel can say "not in memory" instead of waiting (RWF_NOWAIT, Linux
    4.14), a block that is in the page cache, as most are thanks to its
    read-ahead, is copied right here; only the others go to a thread. Per GB,
    8 files of 16 MB at a time, 256 KiB blocks: 0.40 s of CPU; always by thread
    0.89 to 1.02 s; aiohttp's own multipart writer 0.71 to 0.82 s
    (benchmarks/bulk/uploads.py).
    """
    at, end = start, start + size
    nowait = _NOWAIT
    while at < end:
        count = min(block, end - at)
        if nowait:
            data = bytearray(count)
            try:
                got = os.preadv(fd, [data], at, nowait)
            except BlockingIOError:
                got = await in_thread(os.preadv, fd, [data], at)
            except OSError as exc:
                if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise ConfigurationError(f"cannot read {name}: {exc.strerror}") from exc
                nowait = 0  # not with this file system, or in this sandbox
                continue
            if got < count:
                del data[got:]
            # A bytearray goes wherever bytes go; turning it into bytes would copy it.
            result = cast("bytes", data)
        else:
            result = await in_thread(read_at, fd, count, at)
        if not result:
            raise ConfigurationError(f"{name} became shorter while it was sent")
        at += len(result)
        yield result


_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0) if hasattr(os, "preadv") else 0


def _open(path: str) -> int:
    try:
        return open_plain(path, os.O_RDONLY)
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc


def hash_file(path: str) -> str:
    with plain_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_SAMPLE: Final = 64 * 1024


def _sampled(size: int) -> list[int]:
    return sorted({0, size // 2, max(0, size - _SAMPLE)})


def _sample_file(path: str, size: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with plain_file(path) as file:
        for at in _sampled(size):
            file.seek(at)
            digest.update(file.read(_SAMPLE))
    return digest.digest()


def size_of(path: str) -> int:
    """
    Bytes of a plain file; -1 for a named pipe, which may be read once.

    :raises ConfigurationError: for what is none of both, by name: reading it might never end.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        hint = (
            "" if len(path) < 200 and "\n" not in path else " (for text as content, encode it: text.encode())"
        )
        shown = path if len(path) < 200 else path[:100] + "…"
        raise ConfigurationError(f"there is no file {shown!r}{hint}") from None
    except (OSError, ValueError) as exc:
        if len(path) > 1000 or "\n" in path:
            raise ConfigurationError(
                f"{path[:60] + '…'!r} is no path; for text as content, encode it: text.encode()"
            ) from None
        raise ConfigurationError(f"cannot read {path!r}: {getattr(exc, 'strerror', None) or exc}") from exc
    if stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{path} is a directory; give its files, or a glob such as {path}/*.pdf")
    kind = kind_of(found.st_mode)
    if kind is not None and not stat.S_ISFIFO(found.st_mode):
        raise ConfigurationError(f"{path} is {kind}; give a plain file, or what was read from it")
    return found.st_size if kind is None else -1


async def source_of(content: Any) -> Source:
    if isinstance(content, bytes | bytearray | memoryview):
        return _Bytes(cast("bytes", content))
    if isinstance(content, str | os.PathLike):
        path = os.fspath(cast("str | os.PathLike[str]", content))
        size = await in_thread(size_of, path)
        if size >= 0:
            return _Path(path, size)
        source = await _spooled(_read_pipe(path))
        source.name = os.path.basename(path)
        return source
    read = getattr(content, "read", None)
    if callable(read):
        if isinstance(content, io.TextIOBase):
            raise ConfigurationError("the file is open in text mode; open it with 'rb'")
        if inspect.iscoroutinefunction(read):
            return await _async_file(content)
        return await _file_object(cast("IO[bytes]", content))
    if hasattr(content, "__aiter__"):
        return await _spooled(content)
    if hasattr(content, "__iter__") and not hasattr(content, "keys"):
        return await _spooled(_as_async(content))
    raise ConfigurationError(
        f"a file must be a path, bytes, a binary file object, an async file or an iterable of bytes, "
        f"not {type(content).__name__}"
    )


def _name_of(file: Any) -> str | None:
    # Uploads received by a web framework (Starlette's UploadFile, say) call it filename.
    name = getattr(file, "name", None) or getattr(file, "filename", None)
    # Pipes and temporary files have a number for a name, standard streams something like "<stdin>".
    if not isinstance(name, str) or name.startswith("<"):
        return None
    return os.path.basename(name) or None


async def _file_object(file: IO[bytes]) -> Source:
    def measure() -> tuple[int, int] | None:
        try:
            start = file.tell()
            end = file.seek(0, io.SEEK_END)
            file.seek(start)
        except (OSError, AttributeError, io.UnsupportedOperation):
            return None
        return start, end - start

    raw = getattr(file, "raw", file) if type(file) is io.BufferedReader else file
    # Of others nobody knows what they wait for.
    aside = in_thread if type(raw) in (io.FileIO, io.BytesIO) else in_lost_thread
    measured = await aside(measure)
    if measured is None:
        source = await _spooled(_read_blocks(file))
        source.name = _name_of(file)
        return source
    if isinstance(await aside(lambda: file.read(0)), str):
        raise ConfigurationError("the file is open in text mode; open it with 'rb'")
    if type(raw) is io.FileIO and sys.platform != "win32":
        return _Descriptor(file, *measured, _name_of(file))
    return _File(file, *measured, _name_of(file))


async def _async_file(file: Any) -> Source:
    try:
        start = await file.tell()
        await file.seek(0, io.SEEK_END)
        end = await file.tell()
        await file.seek(start)
    except (OSError, AttributeError, TypeError, io.UnsupportedOperation):
        source = await _spooled(_read_async(file))
        source.name = _name_of(file)
        return source
    if not isinstance(await file.read(0), bytes):
        raise ConfigurationError("the file is open in text mode; open it with 'rb'")
    return _AsyncFile(file, start, end - start, _name_of(file))


async def _read_pipe(path: str) -> AsyncIterator[bytes]:
    """A named pipe, without ever waiting in a thread for who writes: that may be nobody."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            await readable(fd)
            try:
                data = os.read(fd, BLOCK)
            except BlockingIOError:
                continue  # somebody else was quicker
            if not data:
                return
            yield data
    finally:
        os.close(fd)


async def _read_blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    """
    A file object of the caller's that cannot seek. Where the system can tell whether there is something to read it is asked
    first; else it is read in a thread that may be left behind, with whatever it waits for.
    """
    raw = file.raw if type(file) is io.BufferedReader else file
    fd = raw.fileno() if type(raw) is io.FileIO else -1
    # At most one read of the system's: a full block may take for ever.
    one = file.read1 if type(file) is io.BufferedReader else file.read
    read = cast("Callable[[int], bytes | None]", one)
    while True:
        if fd >= 0 and await readable(fd):
            data = await in_thread(read, BLOCK)
        else:
            data = await in_lost_thread(lambda: read(BLOCK))
        if data is None:
            continue  # a file that does not wait had nothing after all
        if not data:
            return
        yield data


async def _read_async(file: Any) -> AsyncIterator[bytes]:
    while data := await file.read(BLOCK):
        yield data


async def _as_async(items: Iterable[object]) -> AsyncIterator[object]:
    for item in items:
        yield item


async def _spooled(content: AsyncIterable[object]) -> Source:
    """Copy content that can be read once to a temporary file (or keep it, if it is small)."""
    held: list[bytes] = []
    waiting = size = 0
    copies: list[tuple[IO[bytes], str]] = []  # one at most, kept by the thread that makes it
    try:
        async for data in content:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise ConfigurationError(f"an iterable file must give bytes, not {type(data).__name__}")
            held.append(bytes(cast("bytes", data)))
            waiting += len(held[-1])
            size += len(held[-1])
            if size > MAX_UPLOAD:
                raise ConfigurationError(f"the content is larger than {MAX_UPLOAD:,} bytes (100 MB)")
            if waiting >= BLOCK:
                if not copies:
                    await in_thread(lambda: copies.append(_temporary()))
                await in_thread(copies[0][0].write, b"".join(held))
                held.clear()
                waiting = 0
        if not copies:
            return _Bytes(b"".join(held))
        [(file, path)] = copies
        await in_thread(file.write, b"".join(held))
        await in_thread(file.close)
        return _Path(path, size, temporary=True)
    except BaseException:
        for file, path in copies:
            with suppress(OSError):
                file.close()
            os.unlink(path)
        raise


def _temporary() -> tuple[IO[bytes], str]:
    fd, path = tempfile.mkstemp(prefix="kimi-upload-")
    return os.fdopen(fd, "wb"), path
