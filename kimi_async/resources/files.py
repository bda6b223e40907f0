"""
`client.files`: files on the account.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack, cast

import msgspec

from .. import codec
from ..config import hide
from ..errors import APIConnectionError, ConfigurationError
from ..transport.exchange import Response
from ..transport.phases import unread, whole
from ..types._base import NOT_GIVEN, NotGiven, Omit, is_given
from ..types.completions import ChatCompletion
from ..types.files import FileDeleted, FileList, FileObject, FilePurpose
from . import uploads
from ._base import Resource
from .arguments import path_segment, with_query
from .caller import CallOptions, TimeoutLike
from .chat import AsyncCompletions
from .described import CALL, describes
from .disk import Replacement
from .pagination import AsyncCursorPage, AsyncPaginator
from .parallel import in_parallel
from .threads import in_thread
from .uploads import FileTypes, MultipartBody, UploadFile

if TYPE_CHECKING:
    from ..bulk.upload_many import Dedupe, Evict, FileLimits, UploadProgress, UploadResult

__all__ = ["AsyncFiles", "FileContentReply"]


MAX_CONTENT = 256 << 20
"""Bytes of a file's content that are held in memory: a batch's output is larger than any single answer."""


async def _content(response: Response) -> Response:
    response.max_body = max(response.max_body, MAX_CONTENT)
    return await whole(response)


class FileContentReply:
    """The content of a file, as it came: bytes, and whatever is made of them."""

    def __init__(self, response: Response) -> None:
        self.response = response

    @property
    def content(self) -> bytes:
        return self.response.content

    @property
    def text(self) -> str:
        """As UTF-8. What was extracted from a document is (at present) a JSON document: put it into a message as it is."""
        return self.response.text

    def json(self) -> Any:
        return msgspec.json.decode(self.content)

    def read(self) -> bytes:
        return self.content

    async def aread(self) -> bytes:
        return self.content

    def iter_bytes(self, chunk_size: int | None = None) -> "_Chunks":
        """The bytes in chunks, for ``for`` and ``async for`` alike."""
        return _Chunks(self.content, chunk_size or 64 * 1024)

    aiter_bytes = iter_bytes

    def write_to_file(self, file: str | os.PathLike[str]) -> None:
        """Write it to a file, in this thread. `AsyncFiles.download` does so as it comes, without holding it."""
        with open(file, "wb") as opened:
            opened.write(self.content)

    stream_to_file = write_to_file

    async def astream_to_file(self, file: str | os.PathLike[str]) -> None:
        """Writes it to a file, in a thread."""
        from anyio import to_thread

        await to_thread.run_sync(self.write_to_file, file)

    def __repr__(self) -> str:
        return f"<FileContentReply {len(self.content):,} bytes>"


class _Chunks:
    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    def __iter__(self) -> Any:
        return (self._data[at : at + self._size] for at in range(0, len(self._data), self._size))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


class AsyncFiles(Resource["RawFiles", "StreamingFiles"]):
    """Files: at most 1,000 on an account, 100 MB each, 10 GB together (platform.kimi.ai/docs/api/files)."""

    @describes(CALL)
    async def create(
        self,
        *,
        file: FileTypes,
        purpose: FilePurpose,
        expires_after: Mapping[str, object] | NotGiven | Omit = NOT_GIVEN,
        on_progress: Callable[[int, int], object] | None = None,
        **call: Unpack[CallOptions],
    ) -> FileObject:
        """
        Upload one file, streamed from where it lies: memory does not grow with it.

        :param file: a path, bytes, a binary file object, an async file, an (async) iterable of bytes, or the tuples
            (name, content[, mime type[, headers]]). What can be read only once is copied to a temporary file first.
        :param purpose: ``file-extract`` (text for a prompt), ``image`` or ``video`` (for ``ms://`` references), ``batch``.
        :param expires_after: sent on; Kimi documents no expiry.
        :param on_progress: called with (bytes sent, bytes in all) of the file after each block; a repeated attempt starts
            again at 0.

        :raises ConfigurationError: before anything is sent, for a file that is missing, empty, too large or text.
        """
        hide(call)
        upload = await UploadFile.of(file)
        try:
            return await self._upload(
                upload,
                purpose,
                expires_after=expires_after,
                on_progress=on_progress,
                **call,
            )
        finally:
            if upload is not file:
                upload.close()

    async def _upload(
        self,
        upload: UploadFile,
        purpose: str,
        *,
        expires_after: Mapping[str, object] | NotGiven | Omit = NOT_GIVEN,
        on_progress: Callable[[int, int], object] | None = None,
        **call: Unpack[CallOptions],
    ) -> FileObject:
        hide(call)
        upload.check()
        if not isinstance(purpose, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"purpose must be a string such as 'file-extract', not {type(purpose).__name__}")
        fields = {"purpose": purpose}
        if is_given(expires_after) and isinstance(expires_after, Mapping):
            fields.update({f"expires_after[{name}]": str(value) for name, value in expires_after.items()})
        extra: Mapping[str, object] | None = call.pop("extra_body", None)
        fields.update({name: str(value) for name, value in (extra or {}).items()})
        body = MultipartBody(fields, upload, on_progress=on_progress)
        response = await self._client.call("POST", "files", body, accept=whole, **call)
        return _bound(codec.decode_reply(response.content, FileObject, response), response)

    async def retrieve(
        self,
        file_id: str,
        **call: Unpack[CallOptions],
    ) -> FileObject:
        """What is known about a file."""
        hide(call)
        return await self._client.request(
            "GET",
            f"files/{path_segment('file_id', file_id)}",
            FileObject,
            **call,
        )

    def list(
        self,
        *,
        after: str | NotGiven | Omit = NOT_GIVEN,
        limit: int | NotGiven | Omit = NOT_GIVEN,
        order: str | NotGiven | Omit = NOT_GIVEN,
        purpose: str | NotGiven | Omit = NOT_GIVEN,
        **call: Unpack[CallOptions],
    ) -> AsyncPaginator[FileObject, AsyncCursorPage[FileObject]]:
        """
        All files; await it for the first page, or iterate it.

        Kimi documents none of these parameters and gives everything on one page; they are sent on.
        """

        hide(call)

        async def fetch(params: Mapping[str, object]) -> AsyncCursorPage[FileObject]:
            reply = await self._client.request(
                "GET",
                "files",
                FileList,
                **with_query(call, params),
            )
            return AsyncCursorPage(
                reply.data,
                has_more=reply.has_more,
                first_id=reply.first_id,
                last_id=reply.last_id,
                object=reply.object,
            )

        return AsyncPaginator(
            fetch, codec.given({"after": after, "limit": limit, "order": order, "purpose": purpose})
        )

    async def delete(
        self,
        file_id: str,
        **call: Unpack[CallOptions],
    ) -> FileDeleted:
        """Delete a file for good."""
        hide(call)
        return await self._client.request(
            "DELETE",
            f"files/{path_segment('file_id', file_id)}",
            FileDeleted,
            **call,
        )

    async def content(
        self,
        file_id: str,
        **call: Unpack[CallOptions],
    ) -> FileContentReply:
        """
        The text extracted from a ``file-extract`` file, or the lines of a batch's output. Held in memory whole, up to 256 MiB;
        see `download` for what is large.
        """
        hide(call)
        extra_body = call.pop("extra_body", None)
        response = await self._client.call(
            "GET",
            f"files/{path_segment('file_id', file_id)}/content",
            None if extra_body is None else codec.encode(extra_body),
            accept=_content,
            **call,
        )
        return FileContentReply(response)

    async def retrieve_content(self, file_id: str, *, timeout: TimeoutLike = NOT_GIVEN) -> str:
        """The content as text. (An older name in the OpenAI SDK.)"""
        return (await self.content(file_id, timeout=timeout)).text

    async def download(
        self,
        file_id: str,
        path: str | os.PathLike[str],
        *,
        on_progress: Callable[[int, int | None], object] | None = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> int:
        """
        Write the content to a file as it comes, whatever its size; gives the number of bytes.

        The file appears under its name once it is whole. A download that breaks off is started again, as often as the
        client retries.

        :param on_progress: called with (bytes received, bytes in all if the server told).
        """
        attempt = 0
        while True:
            try:
                return await self._download(file_id, os.fspath(path), on_progress, timeout)
            except APIConnectionError as exc:
                attempt += 1
                if attempt > self._client.max_retries or not exc.retryable:
                    raise
                await asyncio.sleep(min(8.0, 0.5 * 2**attempt))

    async def _download(
        self,
        file_id: str,
        path: str,
        on_progress: Callable[[int, int | None], object] | None,
        timeout: TimeoutLike,
    ) -> int:
        response = await self._client.call(
            "GET", f"files/{path_segment('file_id', file_id)}/content", accept=unread, timeout=timeout
        )
        length = response.headers.get("Content-Length")
        # With an encoding the length counts compressed bytes.
        promised = (
            int(length)
            if length and length.isdigit() and not response.headers.get("Content-Encoding")
            else None
        )
        received = 0
        held: list[bytes] = []
        waiting = 0
        opened: list[Replacement] = []  # kept by the thread, since a cancelled wait gives nothing
        try:
            async with response:
                await in_thread(lambda: opened.append(Replacement(path)))
                file = opened[0].file
                while data := await response.readany():
                    received += len(data)
                    waiting += len(data)
                    held.append(bytes(data))
                    if waiting >= 1024 * 1024:
                        await in_thread(file.write, b"".join(held))
                        held.clear()
                        waiting = 0
                        if on_progress is not None:
                            on_progress(received, promised)
            if promised is not None and received != promised:
                raise APIConnectionError(
                    message=f"the content of file {file_id} broke off after {received:,} of {promised:,} bytes",
                    request=response.request,
                    phase="body",
                )
            await in_thread(file.write, b"".join(held))
            await in_thread(opened[0].commit)
        except BaseException:
            for new in opened:
                new.discard()
            raise
        if on_progress is not None:
            on_progress(received, promised)
        return received

    async def wait_for_processing(
        self, id: str, *, poll_interval: float = 5.0, max_wait_seconds: float = 30 * 60
    ) -> FileObject:
        """
        Wait until a file is ready (``ready``, ``ok`` or ``processed``) or has failed (``error``, ``deleted``).

        Kimi extracts while it uploads, so this returns at once there.

        :raises RuntimeError: after ``max_wait_seconds``, as in the OpenAI SDK.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max_wait_seconds
        file = await self.retrieve(id)
        # An empty status is a server that tells none, so there is nothing to wait for.
        while file.status not in ("ready", "ok", "processed", "error", "deleted", ""):
            if loop.time() + poll_interval > deadline:
                raise RuntimeError(
                    f"Giving up on waiting for file {id} to finish processing after {max_wait_seconds} seconds "
                    f"(status {file.status!r})."
                )
            await asyncio.sleep(poll_interval)
            file = await self.retrieve(id)
        return file

    # --- many at once, and what files are for ---

    async def upload_many(
        self,
        files: Iterable[FileTypes] | FileTypes,
        *,
        purpose: "FilePurpose | Callable[[UploadFile], str]",
        concurrency: int = 8,
        on_progress: "Callable[[UploadProgress], object] | None" = None,
        dedupe: "bool | Dedupe" = True,
        index: str | os.PathLike[str] | None = None,
        limits: "FileLimits | None" = None,
        evict: "Evict | None" = None,
    ) -> "Sequence[UploadResult]":
        """
        Upload many files at once: one `UploadResult` for each, in order, with the file or the error. One bad file never
        loses the others. See `kimi_async.upload_many`.
        """
        from ..bulk.upload_many import upload_many

        return await upload_many(
            self,
            files,
            purpose=purpose,
            concurrency=concurrency,
            on_progress=on_progress,
            dedupe=dedupe,
            index=index,
            limits=limits,
            evict=evict,
            account=self._client.account,
        )

    async def image_part(self, file: FileTypes, *, inline_below: int = 1_000_000) -> dict[str, Any]:
        """
        An ``image_url`` part for a user message. Smaller images travel inside the message (a data URL), larger ones are
        uploaded and referred to (``ms://``). The bound is the one of Moonshot's own command line client.
        """
        async with await UploadFile.of(file) as upload:
            upload.check()
            if upload.size < inline_below:
                url = await uploads.data_url(upload)
            else:
                url = (await self._upload(upload, "image")).ms_url
        return {"type": "image_url", "image_url": {"url": url}}

    async def video_part(self, file: FileTypes) -> dict[str, Any]:
        """A ``video_url`` part for a user message; the video is uploaded and referred to (``ms://``)."""
        uploaded = await self.create(file=file, purpose="video")
        return {"type": "video_url", "video_url": {"url": uploaded.ms_url}}

    async def extract(self, file: FileTypes, *, keep: bool = False) -> str:
        """
        The text of a document: uploads it, reads what was extracted, and (unless ``keep``) deletes it again.

        :raises ConfigurationError: if the server could not extract it, with its reason.
        """
        uploaded = await self.create(file=file, purpose="file-extract")
        try:
            if uploaded.status == "error":
                raise ConfigurationError(
                    f"no text could be extracted from {uploaded.filename}: "
                    f"{uploaded.status_details or 'no reason given'}"
                )
            return (await self.content(uploaded.id)).text
        finally:
            if not keep:
                await self.delete(uploaded.id)

    async def extract_messages(
        self, files: Iterable[FileTypes], *, concurrency: int = 8, keep: bool = False
    ) -> "Sequence[dict[str, Any]]":
        """
        One system message for each document, holding its text as the server extracted it, in order: put them in front of
        the question. Any file that fails raises.
        """
        return await in_parallel([self._extracted(file, keep) for file in files], concurrency)

    def _extracted(self, file: FileTypes, keep: bool) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def run() -> dict[str, Any]:
            return {"role": "system", "content": await self.extract(file, keep=keep)}

        return run

    async def ask(
        self, question: str, files: Iterable[FileTypes], *, model: str, **options: Any
    ) -> ChatCompletion:
        """
        Ask one question about documents: extracts their text into system messages and gives the completion.
        ``options`` go to ``chat.completions.create``.
        """
        messages = [*await self.extract_messages(files), {"role": "user", "content": question}]
        create = cast("Callable[..., Awaitable[ChatCompletion]]", AsyncCompletions(self._client).create)
        return await create(model=model, messages=messages, **options)


def _bound(file: FileObject, response: Response) -> FileObject:
    held: dict[str, Any] = vars(file)
    held["_rid"] = response.request_id
    return file


if TYPE_CHECKING:
    from .raw_replies import WithRawResponse, WithStreamingResponse, raw, streaming

    class RawFiles(WithRawResponse):
        create: Final = raw(AsyncFiles.create)
        retrieve: Final = raw(AsyncFiles.retrieve)
        list: Final = raw(AsyncFiles.list)
        delete: Final = raw(AsyncFiles.delete)
        content: Final = raw(AsyncFiles.content)
        retrieve_content: Final = raw(AsyncFiles.retrieve_content)

    class StreamingFiles(WithStreamingResponse):
        create: Final = streaming(AsyncFiles.create)
        retrieve: Final = streaming(AsyncFiles.retrieve)
        list: Final = streaming(AsyncFiles.list)
        delete: Final = streaming(AsyncFiles.delete)
        content: Final = streaming(AsyncFiles.content)
        retrieve_content: Final = streaming(AsyncFiles.retrieve_content)
