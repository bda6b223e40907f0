"""
Files on their way up: what may be given as a file, and a multipart body that never holds it.

`UploadFile.of` understands everything that the OpenAI SDK takes as a file, and
more; `MultipartBody` sends it block by block, from the beginning each time it
is iterated, so that a failed upload can be repeated.

Many files at once are the affair of `upload_many`.
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
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from pathlib import PurePath
from typing import IO, Any, Final, TypeAlias, cast

from ..errors import ConfigurationError
from .disk import read_at
from .threads import in_thread

__all__ = [
    "BLOCK",
    "MAX_UPLOAD",
    "FileContent",
    "FileTypes",
    "MultipartBody",
    "UploadFile",
    "data_url",
    "guess_type",
    "hash_file",
    "parts_of",
    "size_of",
]

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
MAX_UPLOAD: Final = 100 * 1024 * 1024

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


async def data_url(file: "UploadFile") -> str:
    """
    The file as a ``data:`` URL.
    """
    import base64

    data = b"".join([block async for block in file.blocks()])
    return f"data:{file.content_type};base64,{base64.b64encode(data).decode()}"


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
        given, content, mime, headers = parts_of(file)
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

    def check(self, max_size: int = MAX_UPLOAD) -> None:
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


def parts_of(file: FileTypes) -> tuple[str | None, FileContent, str | None, Mapping[str, str]]:
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
        fd = await in_thread(_open, self._path)
        try:
            if os.fstat(fd).st_size != self.size:
                raise ConfigurationError(f"{self._path} changed its size since it was measured")
            async for data in _blocks_of(fd, 0, self.size, block, self._path):
                yield data
        finally:
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
        file = self._file
        in_memory = isinstance(file, io.BytesIO)
        async with self._lock:
            await in_thread(file.seek, self._start)
            left = self.size
            while left:
                count = min(block, left)
                data = file.read(count) if in_memory else await in_thread(file.read, count)
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
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc


def hash_file(path: str) -> str:
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


def size_of(path: str) -> int:
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
    if isinstance(content, bytes | bytearray | memoryview):
        return _Bytes(cast("bytes", content))
    if isinstance(content, str | os.PathLike):
        path = os.fspath(cast("str | os.PathLike[str]", content))
        size = await in_thread(size_of, path)
        if size >= 0:
            return _Path(path, size)
        # A pipe or a device: readable once, of unknown size.
        with os.fdopen(await in_thread(_open, path), "rb", buffering=0) as pipe:
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
    # Uploads received by a web framework (Starlette's UploadFile, say) call it filename.
    name = getattr(file, "name", None) or getattr(file, "filename", None)
    # Pipes and temporary files have a number for a name, standard streams something like "<stdin>".
    if not isinstance(name, str) or name.startswith("<"):
        return None
    return os.path.basename(name) or None


async def _file_object(file: IO[bytes]) -> _Source:
    def measure() -> tuple[int, int] | None:
        try:
            start = file.tell()
            end = file.seek(0, io.SEEK_END)
            file.seek(start)
        except (OSError, AttributeError, io.UnsupportedOperation):
            return None
        return start, end - start

    measured = await in_thread(measure)
    if measured is None:
        source = await _spooled(_read_blocks(file))
        source.name = _name_of(file)
        return source
    if isinstance(await in_thread(file.read, 0), str):
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
    while data := await in_thread(file.read, BLOCK):
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
            if size > MAX_UPLOAD:
                raise ConfigurationError(f"the content is larger than {MAX_UPLOAD:,} bytes (100 MB)")
            if waiting >= BLOCK:
                if copy is None:
                    copy = await in_thread(_temporary)
                await in_thread(copy[0].write, b"".join(held))
                held.clear()
                waiting = 0
        if copy is None:
            return _Bytes(b"".join(held))
        await in_thread(copy[0].write, b"".join(held))
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
