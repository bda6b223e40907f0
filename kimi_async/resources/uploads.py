"""
Files on their way up: what may be given as a file, and a multipart body that never holds it.

`UploadFile.of` understands everything that the OpenAI SDK takes as a file, and
more; `MultipartBody` sends it block by block, from the beginning each time it
is iterated, so that a failed upload can be repeated.

Many files at once are the affair of `upload_many`.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import PurePath
from typing import Any, Final, TypeAlias, cast

from ..errors import ConfigurationError
from .upload_sources import BLOCK, MAX_UPLOAD, Source, hash_file, size_of, source_of

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
    """The mime type for a file of this name; ``application/octet-stream`` if the suffix says nothing."""
    suffix = PurePath(name).suffix.lower()
    known = _TYPES.get(suffix)
    if known:
        return known
    import mimetypes

    return mimetypes.guess_type("x" + suffix)[0] or "application/octet-stream"


async def data_url(file: "UploadFile") -> str:
    """The file as a ``data:`` URL."""
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
        source: "Source",
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
        source = await source_of(content)
        try:
            name = given or source.name or name or "upload"
            return cls(name, mime or guess_type(name), headers, source)
        except BaseException:
            source.close()
            raise

    @property
    def size(self) -> int:
        """Bytes."""
        return self._source.size

    @property
    def path(self) -> str | None:
        """Where it lies, if it was given as a path."""
        return self._source.path

    def check(self, max_size: int = MAX_UPLOAD) -> None:
        """Raise `ConfigurationError` for what the server certainly refuses: an empty file, one too large."""
        if not self.size:
            raise ConfigurationError(f"{self.name} is empty; Kimi refuses files of size zero")
        if self.size > max_size:
            raise ConfigurationError(
                f"{self.name} has {self.size:,} bytes; Kimi takes files of up to {max_size:,} (100 MB)"
            )

    def blocks(self, block: int = BLOCK) -> AsyncIterator[bytes]:
        """The content from its beginning. Raises `ConfigurationError` if it changed its size since it was measured."""
        return self._source.blocks(block)

    async def sha256(self) -> str:
        """Hexadecimal hash of the content; reads it once, in a thread."""
        return await self._source.sha256()

    async def sample(self) -> bytes:
        """
        A digest of 64 KiB each from beginning, middle and end: files that differ in it differ; files that agree may yet
        differ. Costs next to nothing, where a whole SHA-256 of a gigabyte is half a second of CPU.
        """
        return await self._source.sample()

    def close(self) -> None:
        """Remove the temporary copy, if one was made. Idempotent."""
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
        """The whole body at once, file included."""
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
    if mime is not None and not isinstance(mime, str):
        raise ConfigurationError(f"the mime type in a file tuple must be a str, not {type(mime).__name__}")
    return name, content, mime, _part_headers(headers or {})


# They are written from the tuple's own places: twice, servers disagree on which to believe.
_WRITTEN = frozenset({"content-disposition", "content-length", "content-transfer-encoding", "content-type"})


def _part_headers(headers: object) -> Mapping[str, str]:
    if not isinstance(headers, Mapping):
        raise ConfigurationError(
            f"the headers in a file tuple must be a mapping of names to values, not {type(headers).__name__}"
        )
    for name, value in cast("Mapping[object, object]", headers).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(
                f"the headers in a file tuple must be strings; got {name!r:.60}: {value!r:.60}"
            )
        if name.strip().lower() in _WRITTEN or not name.isascii() or any(c in name for c in ": "):
            raise ConfigurationError(f"the header {name!r:.60} of a file part cannot be set")
    return cast("Mapping[str, str]", headers)
