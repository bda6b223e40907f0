"""
Files on their way up: what may be given as a file, and a multipart body that never holds it.

`UploadFile.of` understands everything that the OpenAI SDK takes as a file, and
more; `MultipartBody` sends it block by block, from the beginning each time it
is iterated, so that a failed upload can be repeated.

`upload_many` sends many at once: see there for what is checked, what is
recognised as already uploaded, and what that recognition proves.
"""

import asyncio
import errno
import hashlib
import inspect
import io
import os
import secrets
import sys
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, cast

from .errors import ConfigurationError, KimiError

if TYPE_CHECKING:
    from .resources.files import AsyncFiles
    from .types.files import FileObject

__all__ = [
    "BLOCK",
    "MAX_FILE_SIZE",
    "Dedupe",
    "Evict",
    "FileContent",
    "FileLimitError",
    "FileLimits",
    "FileTypes",
    "MultipartBody",
    "UploadFile",
    "UploadProgress",
    "UploadResult",
    "data_url",
    "guess_type",
    "in_parallel",
    "upload_many",
]

R = TypeVar("R")

FileContent: TypeAlias = Any
"""
A path (str or PathLike), bytes, a binary file object, an async file (``async read(n)``), or an
(async) iterable of bytes. Any for type checkers: file-like classes share no base.
"""

FileTypes: TypeAlias = (
    FileContent
    | tuple[str | None, FileContent]
    | tuple[str | None, FileContent, str | None]
    | tuple[str | None, FileContent, str | None, Mapping[str, str]]
)
"""
A `FileContent`, or a tuple (name, content[, mime type[, headers of the part]]), as in the OpenAI SDK.
"""

# "100 MB" by the documentation (platform.kimi.ai/docs/api/files) and by the error text. The larger reading:
# what is refused here would certainly be refused there; what lies between, the server decides.
MAX_FILE_SIZE: Final = 100 * 1024 * 1024

BLOCK: Final = 256 * 1024
_SMALL: Final = 32 * 1024

# Suffixes that Python's table lacks on some systems, or calls something else. Everything else is asked of mimetypes.
_TYPES: Final = {
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".epub": "application/epub+zip",
    ".mobi": "application/x-mobipocket-ebook",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ts": "text/plain",  # by Python's table an MPEG transport stream; Kimi's list means TypeScript
    ".tsx": "text/plain",
    ".log": "text/plain",
    ".go": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def guess_type(name: str) -> str:
    """
    The mime type for a file of this name; ``application/octet-stream`` if the suffix says nothing.
    """
    suffix = PurePath(name).suffix.lower()
    known = _TYPES.get(suffix)
    if known:
        return known
    import mimetypes

    return mimetypes.guess_type("x" + suffix)[0] or "application/octet-stream"


class UploadFile:
    """
    One file to be uploaded: name, type, size, and its bytes as often as they are asked for.

    Make one with `UploadFile.of`. ``async with`` frees what it had to keep (a
    temporary file for content that can be read only once).
    """

    def __init__(
        self,
        name: str,
        content_type: str,
        headers: Mapping[str, str],
        source: "_Source",
    ) -> None:
        self.name = name
        self.content_type = content_type
        self.headers = headers
        """More headers for the part."""
        self._source = source

    @classmethod
    async def of(cls, file: FileTypes, *, name: str | None = None) -> "UploadFile":
        """
        Understand a file as callers give it.

        ``name`` is used where neither the tuple nor the file tells one.
        Content that can be read only once (a pipe, an async iterable) is first
        copied to a temporary file: only then is its size known before sending,
        and can a failed upload be repeated.

        Raises `ConfigurationError` for text files, a missing file, a directory,
        or anything else that has no bytes.
        """
        if isinstance(file, UploadFile):
            return file
        given, content, mime, headers = _parts(file)
        source = await _source_of(content)
        try:
            name = given or source.name or name or "upload"
            return cls(name, mime or guess_type(name), headers, source)
        except BaseException:
            source.close()
            raise

    @property
    def size(self) -> int:
        """
        Bytes.
        """
        return self._source.size

    @property
    def path(self) -> str | None:
        """
        Where it lies, if it was given as a path.
        """
        return self._source.path

    def check(self, max_size: int = MAX_FILE_SIZE) -> None:
        """
        Raise `ConfigurationError` for what the server certainly refuses: an empty file, one too large.
        """
        if not self.size:
            raise ConfigurationError(f"{self.name} is empty; Kimi refuses files of size zero")
        if self.size > max_size:
            raise ConfigurationError(
                f"{self.name} has {self.size:,} bytes; Kimi takes files of up to {max_size:,} (100 MB)"
            )

    def blocks(self, block: int = BLOCK) -> AsyncIterator[bytes]:
        """
        The content from its beginning. Raises `ConfigurationError` if it changed its size since it was measured.
        """
        return self._source.blocks(block)

    async def sha256(self) -> str:
        """
        Hexadecimal hash of the content; reads it once, in a thread.
        """
        return await self._source.sha256()

    async def sample(self) -> bytes:
        """
        A digest of 64 KiB each from beginning, middle and end: files that differ in it differ; files that agree may yet
        differ. Costs next to nothing, where a whole SHA-256 of a gigabyte is half a second of CPU.
        """
        return await self._source.sample()

    def close(self) -> None:
        """
        Remove the temporary copy, if one was made. Idempotent.
        """
        self._source.close()

    async def __aenter__(self) -> "UploadFile":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"UploadFile({self.name!r}, {self.content_type!r}, {self.size:,} bytes)"


class MultipartBody:
    """
    A ``multipart/form-data`` body (RFC 7578) of plain fields and one file, sent block by block.

    Each iteration gives the same bytes from the beginning, with the file read
    in a thread ``block`` bytes at a time: one block is in memory. ``length`` is
    exact, so the request has a Content-Length.

    ``on_progress(sent, total)`` is called after each block was taken, in bytes of
    the file. A repeated upload starts again at 0.
    """

    replayable = True
    length: int | None

    def __init__(
        self,
        fields: Mapping[str, str],
        file: UploadFile,
        *,
        name: str = "file",
        block: int = BLOCK,
        on_progress: Callable[[int, int], object] | None = None,
        boundary: str | None = None,
    ) -> None:
        # 128 random bits: cannot occur in a file except by malice, and whoever
        # chooses the file cannot know it.
        boundary = boundary or f"kimi-{secrets.token_hex(16)}"
        self.content_type: str = f"multipart/form-data; boundary={boundary}"
        self._file = file
        self._block = block
        self._on_progress = on_progress
        self._head = _head(boundary, fields, name, file)
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.length = len(self._head) + file.size + len(self._tail)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent, total, report = 0, self._file.size, self._on_progress
        if report is not None:
            report(0, total)
        if total <= _SMALL:
            # One write, and on the wire mostly one packet, instead of three.
            data = b"".join([data async for data in self._file.blocks(self._block)])
            yield b"%b%b%b" % (self._head, data, self._tail)
            if report is not None:
                report(total, total)
            return
        yield self._head
        async for data in self._file.blocks(self._block):
            yield data
            sent += len(data)
            if report is not None:
                report(sent, total)
        yield self._tail

    async def read(self) -> bytes:
        """
        The whole body at once, file included.
        """
        return b"".join([data async for data in self])

    def __repr__(self) -> str:
        return f"MultipartBody({self._file!r})"


def _head(boundary: str, fields: Mapping[str, str], name: str, file: UploadFile) -> bytes:
    lines: list[str] = []
    for key, value in fields.items():
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{_quoted(key)}"', "", value]
    lines += [
        f"--{boundary}",
        f'Content-Disposition: form-data; name="{_quoted(name)}"; filename="{_quoted(file.name)}"',
        f"Content-Type: {_single_line(file.content_type)}",
    ]
    lines += [f"{_single_line(key)}: {_single_line(value)}" for key, value in file.headers.items()]
    # A name from the file system may hold bytes that are not UTF-8 (lone surrogates in Python): "?" for those.
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")


def _quoted(text: str) -> str:
    # As browsers do it (https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data),
    # which is what server libraries undo; backslashes stay.
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _single_line(text: str) -> str:
    if "\r" in text or "\n" in text or "\0" in text:
        raise ConfigurationError(f"a header of the file part holds a line break: {text!r}")
    return text


def _parts(file: FileTypes) -> tuple[str | None, FileContent, str | None, Mapping[str, str]]:
    if not isinstance(file, tuple):
        return None, file, None, {}
    parts: tuple[Any, ...] = tuple(file)  # pyright: ignore[reportUnknownArgumentType]
    if not 2 <= len(parts) <= 4:
        raise ConfigurationError(
            f"a file tuple is (name, content[, mime type[, headers]]), not {len(parts)} items"
        )
    name, content, mime, headers = (*parts, None, None)[:4] if len(parts) < 4 else parts
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(f"the name in a file tuple must be a str, not {type(name).__name__}")
    return name, content, mime, headers or {}


# Where the bytes come from


class _Source:
    """
    Bytes that can be read from the beginning any number of times.
    """

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
        """
        See `UploadFile.sample`.
        """
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


class _Bytes(_Source):
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


class _Path(_Source):
    def __init__(self, path: str, size: int, *, temporary: bool = False) -> None:
        self.path = None if temporary else path
        self.name = None if temporary else os.path.basename(path)
        self.size = size
        self._path = path
        self._temporary = temporary

    async def blocks(self, block: int) -> AsyncIterator[bytes]:
        from anyio import to_thread

        fd = await to_thread.run_sync(_open, self._path)
        try:
            if os.fstat(fd).st_size != self.size:
                raise ConfigurationError(f"{self._path} changed its size since it was measured")
            async for data in _blocks_of(fd, 0, self.size, block, self._path):
                yield data
        finally:
            os.close(fd)

    async def sha256(self) -> str:
        from anyio import to_thread

        return await to_thread.run_sync(_hash_file, self._path)

    async def sample(self) -> bytes:
        from anyio import to_thread

        return await to_thread.run_sync(_sample_file, self._path, self.size)

    def close(self) -> None:
        if self._temporary:
            self._temporary = False
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass


class _Descriptor(_Source):
    """
    A plain file opened by the caller. It is read by offset, so its position does not move, and it is left open.
    """

    def __init__(self, file: IO[bytes], start: int, size: int, name: str | None) -> None:
        self._file = file
        self._start = start
        self.size = size
        self.name = name

    def blocks(self, block: int) -> AsyncIterator[bytes]:
        return _blocks_of(self._file.fileno(), self._start, self.size, block, self.name or "the file")


class _File(_Source):
    """
    A binary file object of the caller's that can seek. It is read from where it stood, and left open.
    """

    def __init__(self, file: IO[bytes], start: int, size: int, name: str | None) -> None:
        self._file = file
        self._start = start
        self.size = size
        self.name = name
        # Two iterations of one file object (a hash and an upload) must not mix their positions.
        self._lock = asyncio.Lock()

    async def blocks(self, block: int) -> AsyncIterator[bytes]:
        from anyio import to_thread

        file = self._file
        in_memory = isinstance(file, io.BytesIO)
        async with self._lock:
            await to_thread.run_sync(file.seek, self._start)
            left = self.size
            while left:
                count = min(block, left)
                data = file.read(count) if in_memory else await to_thread.run_sync(file.read, count)
                if not data:
                    raise ConfigurationError(f"{self.name or 'the file'} became shorter while it was sent")
                left -= len(data)
                yield data


class _AsyncFile(_Source):
    """
    An async file object (anyio, aiofiles) that can seek.
    """

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
    from anyio import to_thread

    at, end = start, start + size
    nowait = _NOWAIT
    while at < end:
        count = min(block, end - at)
        if nowait:
            data = bytearray(count)
            try:
                got = os.preadv(fd, [data], at, nowait)
            except BlockingIOError:
                got = await to_thread.run_sync(os.preadv, fd, [data], at)
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
            result = await to_thread.run_sync(_pread, fd, count, at)
        if not result:
            raise ConfigurationError(f"{name} became shorter while it was sent")
        at += len(result)
        yield result


_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0) if hasattr(os, "preadv") else 0


def _pread(fd: int, count: int, offset: int) -> bytes:
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)
    return os.pread(fd, count, offset)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc


def _hash_file(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_SAMPLE: Final = 64 * 1024


def _sampled(size: int) -> list[int]:
    return sorted({0, size // 2, max(0, size - _SAMPLE)})


def _sample_file(path: str, size: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        for at in _sampled(size):
            file.seek(at)
            digest.update(file.read(_SAMPLE))
    return digest.digest()


def _stat(path: str) -> int:
    import stat

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
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


async def _source_of(content: Any) -> _Source:
    from anyio import to_thread

    if isinstance(content, bytes | bytearray | memoryview):
        return _Bytes(cast("bytes", content))
    if isinstance(content, str | os.PathLike):
        path = os.fspath(cast("str | os.PathLike[str]", content))
        size = await to_thread.run_sync(_stat, path)
        if size >= 0:
            return _Path(path, size)
        # A pipe or a device: readable once, of unknown size.
        with os.fdopen(await to_thread.run_sync(_open, path), "rb", buffering=0) as pipe:
            source = await _spooled(_read_blocks(pipe))
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
    name = getattr(file, "name", None)
    # Pipes and temporary files have a number for a name, standard streams something like "<stdin>".
    if not isinstance(name, str) or name.startswith("<"):
        return None
    return os.path.basename(name) or None


async def _file_object(file: IO[bytes]) -> _Source:
    from anyio import to_thread

    def measure() -> tuple[int, int] | None:
        try:
            start = file.tell()
            end = file.seek(0, io.SEEK_END)
            file.seek(start)
        except (OSError, AttributeError, io.UnsupportedOperation):
            return None
        return start, end - start

    measured = await to_thread.run_sync(measure)
    if measured is None:
        source = await _spooled(_read_blocks(file))
        source.name = _name_of(file)
        return source
    if isinstance(await to_thread.run_sync(file.read, 0), str):
        raise ConfigurationError("the file is open in text mode; open it with 'rb'")
    raw = getattr(file, "raw", file) if type(file) is io.BufferedReader else file
    if type(raw) is io.FileIO and sys.platform != "win32":
        return _Descriptor(file, *measured, _name_of(file))
    return _File(file, *measured, _name_of(file))


async def _async_file(file: Any) -> _Source:
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


async def _read_blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    from anyio import to_thread

    while data := await to_thread.run_sync(file.read, BLOCK):
        yield data


async def _read_async(file: Any) -> AsyncIterator[bytes]:
    while data := await file.read(BLOCK):
        yield data


async def _as_async(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def _spooled(content: AsyncIterable[Any]) -> _Source:
    """
    Copy content that can be read once to a temporary file (or keep it, if it is small).
    """
    from anyio import to_thread

    held: list[bytes] = []
    waiting = size = 0
    copy: tuple[IO[bytes], str] | None = None
    try:
        async for data in content:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise ConfigurationError(f"an iterable file must give bytes, not {type(data).__name__}")
            held.append(bytes(cast("bytes", data)))
            waiting += len(held[-1])
            size += len(held[-1])
            if size > MAX_FILE_SIZE:
                raise ConfigurationError(f"the content is larger than {MAX_FILE_SIZE:,} bytes (100 MB)")
            if waiting >= BLOCK:
                if copy is None:
                    copy = await to_thread.run_sync(_temporary)
                await to_thread.run_sync(copy[0].write, b"".join(held))
                held.clear()
                waiting = 0
        if copy is None:
            return _Bytes(b"".join(held))
        await to_thread.run_sync(copy[0].write, b"".join(held))
        copy[0].close()
        return _Path(copy[1], size, temporary=True)
    except BaseException:
        if copy is not None:
            copy[0].close()
            os.unlink(copy[1])
        raise


def _temporary() -> tuple[IO[bytes], str]:
    fd, path = tempfile.mkstemp(prefix="kimi-upload-")
    return os.fdopen(fd, "wb"), path


# Many at once


class FileLimitError(KimiError):
    """
    The account has no room for this file. Nothing of it was sent.
    """

    def __init__(self, message: str, *, files: int, size: int) -> None:
        super().__init__(message)
        self.files = files
        """Files on the account."""
        self.size = size
        """Their bytes together."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """
    What an account may hold (platform.kimi.ai/docs/api/files).
    """

    max_files: int = 1000
    max_file_size: int = MAX_FILE_SIZE
    max_total: int = 10 * 1024**3


Dedupe: TypeAlias = Literal["content", "name", "off"]

Evict: TypeAlias = "Literal['oldest'] | Callable[[Sequence[FileObject], int, int], Iterable[FileObject]]"
"""
Who makes room: ``"oldest"`` deletes the oldest files of the same purpose; a function is given the files that may go,
oldest first, and how many files and bytes must go at least, and gives those to delete.
"""


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """
    How far `upload_many` is.
    """

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
    """
    What became of one file: either ``file`` or ``error`` is set.
    """

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
        """
        The file; raises the error if there is none.
        """
        if self.file is None:
            raise self.error or RuntimeError("not uploaded")
        return self.file


class _Stamp(NamedTuple):
    """
    What tells a file on disk from any other, and from itself after a change.
    """

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
    api: "AsyncFiles",
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


async def in_parallel(jobs: Sequence[Callable[[], Awaitable[R]]], concurrency: int) -> list[R]:
    """
    The results of all jobs, in order, at most ``concurrency`` running at a time. The first failure cancels the rest.
    """
    import anyio

    results: list[Any] = [None] * len(jobs)
    queue = iter(enumerate(jobs))

    async def work() -> None:
        for number, job in queue:
            results[number] = await job()

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(concurrency, len(jobs))):
                group.start_soon(work)
    except BaseExceptionGroup as exc:
        # One failure is the caller's business as itself, not as a group of one.
        if len(exc.exceptions) == 1:
            raise exc.exceptions[0] from None
        raise
    return results


async def data_url(file: UploadFile) -> str:
    """
    The file as a ``data:`` URL.
    """
    import base64

    data = b"".join([block async for block in file.blocks()])
    return f"data:{file.content_type};base64,{base64.b64encode(data).decode()}"


@dataclass(slots=True)
class _Flight:
    """
    An upload of this run, for others with the same content to wait for.
    """

    result: UploadResult
    landed: asyncio.Event
    path: str | None
    stamp: _Stamp | None
    sha256: str | None = None


class _Run:
    def __init__(
        self,
        api: "AsyncFiles",
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
        self._limits = limits
        self._evict = evict
        self._on_progress = on_progress
        self._account = account
        self._listed: dict[str, FileObject] = {}
        self._by_name: dict[tuple[str, int, str], FileObject] = {}
        self._used: set[str] = set()
        self._flights: dict[tuple[str, int, bytes], list[_Flight]] = {}
        self._room = asyncio.Lock()
        self._count = 0
        self._total = 0
        self._results: list[UploadResult] = []
        self._sent: dict[int, int] = {}
        self._done = self._failed = self._reused = self._size = self._bytes_sent = 0

    async def go(self, files: Iterable[FileTypes] | FileTypes, concurrency: int) -> list[UploadResult]:
        from anyio import to_thread

        if concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {concurrency}")
        results = self._results = await to_thread.run_sync(_expanded, files)
        if not results:
            return results
        self._size = sum(result.size for result in results if result.error is None)
        if self._index_path is not None:
            self._index = await to_thread.run_sync(_read_index, self._index_path, self._account)
        async for file in self._api.list():
            self._listed[file.id] = file
            self._count += 1
            self._total += file.bytes
            if file.status != "error":
                before = self._by_name.get((file.filename, file.bytes, file.purpose))
                if before is None or before.created_at <= file.created_at:
                    self._by_name[file.filename, file.bytes, file.purpose] = file
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
            file.check(self._limits.max_file_size)
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
        """
        A file of the account that this one need not be sent again for.
        """
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
        """
        Send it, unless a file with the same content is on its way already: then wait for that one.
        """
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
        from anyio import to_thread

        if flight.sha256 is None and flight.path is not None:
            found = await to_thread.run_sync(_hash_file, flight.path)
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
            self._count -= 1
            self._total -= file.size
            raise
        result.file = uploaded
        self._used.add(uploaded.id)
        if file.path is not None and stamp is not None and _stamp(file.path) == stamp:
            _uploaded[self._account, purpose, *stamp] = uploaded.id
            while len(_uploaded) > _UPLOADED_KEPT:
                _uploaded.popitem(last=False)
        if self._index_path is not None and result.sha256 is not None:
            from anyio import to_thread

            self._index[result.sha256, purpose] = uploaded.id
            await to_thread.run_sync(
                _append_index, self._index_path, self._account, result.sha256, purpose, uploaded
            )

    async def _reserve(self, file: UploadFile, purpose: str) -> None:
        """
        Count the file in, or raise `FileLimitError`.
        """
        limits = self._limits
        async with self._room:
            files = self._count + 1 - limits.max_files
            size = self._total + file.size - limits.max_total
            if (files > 0 or size > 0) and self._evict is not None:
                for old in self._to_evict(purpose, max(0, files), max(0, size)):
                    await self._api.delete(old.id)
                    if self._listed.pop(old.id, None) is not None:
                        self._count -= 1
                        self._total -= old.bytes
                files = self._count + 1 - limits.max_files
                size = self._total + file.size - limits.max_total
            if files > 0:
                raise FileLimitError(
                    f"no room for {file.name}: the account holds {self._count:,} of {limits.max_files:,} files; "
                    "delete some, or pass evict=",
                    files=self._count,
                    size=self._total,
                )
            if size > 0:
                raise FileLimitError(
                    f"no room for {file.name} ({file.size:,} bytes): the account holds {self._total:,} of "
                    f"{limits.max_total:,} bytes; delete some files, or pass evict=",
                    files=self._count,
                    size=self._total,
                )
            self._count += 1
            self._total += file.size

    def _to_evict(self, purpose: str, files: int, size: int) -> "Iterable[FileObject]":
        free = [each for each in self._listed.values() if each.id not in self._used]
        free.sort(key=lambda each: each.created_at)
        if callable(self._evict):
            return list(self._evict(free, files, size))
        chosen: list[FileObject] = []
        for each in free:
            if files <= 0 and size <= 0:
                break
            if each.purpose == purpose:
                chosen.append(each)
                files -= 1
                size -= each.bytes
        return chosen

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
    """
    One result for each file: globs are expanded, and the sizes of paths looked up.
    """
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
            results += [UploadResult(path) for path in matches]
        else:
            results.append(UploadResult(source))
    for result in results:
        try:
            name, content, _, _ = _parts(result.source)
            if result.error is None and isinstance(content, str | os.PathLike):
                path = os.fspath(cast("str | os.PathLike[str]", content))
                result.name = result.name or name or os.path.basename(path)
                result.size = max(0, _stat(path))
            elif isinstance(content, bytes | bytearray):
                result.name, result.size = name or "", len(content)
        except ConfigurationError as exc:
            result.error = exc
    return results


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
        with open(path, "rb") as file:
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
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and _pread(fd, 1, size - 1) != b"\n"
        os.write(fd, b"\n" * torn + json.dumps(entry).encode() + b"\n")
    finally:
        os.close(fd)
