"""
Multipart bodies and what may be given as a file; many uploads at once.
"""

import asyncio
import hashlib
import io
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_async.bulk.upload_many import FileLimitError, FileLimits, UploadProgress

# ruff: noqa: ASYNC230, ASYNC240 - tests may touch small local files
from kimi_async.client import AsyncKimi
from kimi_async.errors import BadRequestError, ConfigurationError, KimiError
from kimi_async.resources.uploads import MultipartBody, UploadFile, guess_type
from kimi_async.testing.memory_transport import MemoryTransport, Reply
from kimi_async.testing.simulator.replies import error_reply
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.transport.exchange import Body
from kimi_async.types.files import FileObject

DATA = bytes(range(256)) * 3000  # three blocks of 256 KiB, the last one short


# The waits between attempts take no time; sockets and threads are real.
pytestmark = pytest.mark.virtual_clock


async def body_of(file: Any, **options: Any) -> bytes:
    async with await UploadFile.of(file) as upload:
        return await MultipartBody({"purpose": "image"}, upload, **options).read()


async def content_of(file: Any) -> tuple[str, str, bytes]:
    async with await UploadFile.of(file) as upload:
        data = b"".join([block async for block in upload.blocks()])
        assert len(data) == upload.size
        again = b"".join([block async for block in upload.blocks(1000)])
        assert data == again, "a second reading must give the same bytes"
        return upload.name, upload.content_type, data


async def test_multipart_is_what_others_parse(tmp_path: Path):
    """
    The standard library's parser, which knows nothing of us, finds the fields, the name, the type and the bytes.
    """
    path = tmp_path / 'a "quoted" ü.png'
    path.write_bytes(DATA)
    async with await UploadFile.of(path) as upload:
        body = MultipartBody({"purpose": "image"}, upload)
        sent = await body.read()
    parsed = message_from_bytes(b"Content-Type: " + body.content_type.encode() + b"\r\n\r\n" + sent)
    purpose, file = parsed.get_payload()

    assert isinstance(body, Body)
    assert len(sent) == body.length
    assert "image" == purpose.get_payload()  # type: ignore[union-attr]
    assert DATA == file.get_payload(decode=True)  # type: ignore[union-attr]
    assert "image/png" == file.get_content_type()  # type: ignore[union-attr]
    assert 'filename="a %22quoted%22 ü.png"'.encode() in sent


async def test_multipart_second_iteration_is_the_same_body(tmp_path: Path):
    """
    A body that is sent again, even after a first time that was given up half-way, starts from its beginning.
    """
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    async with await UploadFile.of(path) as upload:
        seen: list[tuple[int, int]] = []
        body = MultipartBody({}, upload, on_progress=lambda sent, total: seen.append((sent, total)))
        first = body.__aiter__()
        for _ in range(3):
            await anext(first)
        await first.aclose()  # type: ignore[attr-defined]

        assert await body.read() == await body.read()
    steps = [(0, 768_000), (262_144, 768_000), (524_288, 768_000), (768_000, 768_000)]
    assert [*steps[:2], *steps, *steps] == seen


class Seekless(io.RawIOBase):
    """A pipe: it can be read once."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


class AsyncOnce:
    """An async reader that cannot seek, such as a response body, or an upload that a web framework hands on."""

    filename = "given.bin"

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    async def read(self, n: int = -1) -> bytes:
        return self._data.read(n)


async def agen(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


def gen(data: bytes) -> Iterator[bytes]:
    yield data[:1000]
    yield data[1000:]


async def test_upload_file_every_form_gives_the_same_bytes(tmp_path: Path):
    """
    Whatever a file is given as, its bytes arrive whole, twice if need be, and its size is known beforehand.
    """
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    with open(path, "rb") as plain, open(path, "rb", buffering=0) as raw, open(path, "r+b") as both:
        async with await anyio.open_file(path, "rb") as async_file:
            forms: list[tuple[Any, str]] = [
                (str(path), "data.bin"),
                (path, "data.bin"),
                (DATA, "upload"),
                (bytearray(DATA), "upload"),
                (memoryview(DATA), "upload"),
                (io.BytesIO(DATA), "upload"),
                (plain, "data.bin"),
                (raw, "data.bin"),
                (both, "data.bin"),
                (Seekless(DATA), "upload"),
                (async_file, "data.bin"),
                (AsyncOnce(DATA), "given.bin"),
                (agen(DATA), "upload"),
                (gen(DATA), "upload"),
                (("named.png", DATA), "named.png"),
                ((None, path), "data.bin"),
                (("n", path, "text/x"), "n"),
            ]
            for form, name in forms:
                found = await content_of(form)
                assert (name, DATA) == (found[0], found[2]), form
    assert [path] == list(tmp_path.iterdir())


async def test_upload_file_tuple_names_type_and_headers():
    """
    The four-part tuple of the OpenAI SDK.
    """
    sent = await body_of(("x.bin", b"hi", "text/plain", {"X-Custom": "1"}), boundary="b")

    assert (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nimage\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\n'
        b"Content-Type: text/plain\r\nX-Custom: 1\r\n\r\nhi\r\n--b--\r\n"
    ) == sent


async def test_upload_file_starts_where_a_file_object_stands(tmp_path: Path):
    """
    What was read from a file object before is not sent, and its position does not move.
    """
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    for opened in (open(path, "rb"), open(path, "r+b"), io.BytesIO(b"0123456789")):  # noqa: SIM115
        with opened:
            opened.read(4)
            assert b"456789" == (await content_of(opened))[2]


async def test_upload_file_pipe_is_kept_aside_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Content that can be read only once goes to a temporary file, which is gone afterwards.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with await UploadFile.of(agen(DATA)) as upload:
        assert len(DATA) == upload.size
        assert 1 == len(list(tmp_path.iterdir()))
    assert [] == list(tmp_path.iterdir())

    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        await UploadFile.of(broken())
    assert [] == list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_upload_file_named_pipe_is_read_as_its_writer_writes(tmp_path: Path):
    """
    A pipe that is named is read to its end, at the pace of who writes; and left at once when it is cancelled.
    """
    path = tmp_path / "pipe"
    os.mkfifo(path)
    opening = asyncio.ensure_future(UploadFile.of(path))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with anyio.move_on_after(1) as scope:
        await asyncio.shield(opening)
    assert scope.cancelled_caught  # nobody writes yet
    writer = await asyncio.to_thread(open, path, "wb", 0)
    for part in (DATA[:1000], DATA[1000:70_000]):
        await asyncio.to_thread(writer.write, part)
    writer.close()
    async with await opening as upload:
        assert ("pipe", 70_000) == (upload.name, upload.size)
        assert DATA[:70_000] == b"".join([block async for block in upload.blocks()])

    opening = asyncio.ensure_future(UploadFile.of(path))
    await asyncio.sleep(1)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_upload_file_open_pipe_is_left_when_cancelled():
    """
    Waiting for an open pipe, or for a file object that never answers, holds nobody up.
    """
    there, here = os.pipe()
    silent = threading.Event()

    class Silent(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            silent.wait()
            return b""

    with open(there, "rb") as reader, open(here, "wb", 0) as writer:
        writer.write(b"some")
        for file in (reader, Silent()):
            with anyio.move_on_after(1) as scope:
                await UploadFile.of(file)
            assert scope.cancelled_caught
    silent.set()


class Slow:
    """A file somewhere else: it can seek, and a reading waits for a network."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.tell, self.seek = self._file.tell, self._file.seek
        self.asked, self.go_on = threading.Event(), threading.Event()

    def read(self, size: int) -> bytes:
        if size:
            self.asked.set()
            self.go_on.wait()
        return self._file.read(size)


async def test_upload_file_that_can_seek_is_left_when_cancelled():
    """
    A reading that does not end is left behind; the next begins after it, where it should.
    """
    file = Slow(DATA)
    async with await UploadFile.of(("a", file)) as upload:
        task = asyncio.ensure_future(anext(upload.blocks()))
        await asyncio.to_thread(file.asked.wait)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

        again = asyncio.ensure_future(upload.sha256())
        await asyncio.sleep(0)
        file.go_on.set()
        assert hashlib.sha256(DATA).hexdigest() == await again


SILENT_PIPE = """
import asyncio, os, sys
from kimi_async.resources.uploads import UploadFile

async def main():
    for file in (sys.argv[1], os.fdopen(os.pipe()[0], "rb"), Never()):
        try:
            await asyncio.wait_for(UploadFile.of(file), 0.05)
        except TimeoutError:
            print("left")

class Never:
    def read(self, size):
        while True:
            threading.Event().wait()

import threading
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_upload_file_silent_pipe_does_not_keep_the_process(tmp_path: Path):
    """
    A process that gave up waiting for a pipe can end.
    """
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-c", SILENT_PIPE, str(tmp_path / "pipe")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (0, ["left"] * 3) == (ended.returncode, ended.stdout.split()), ended.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs special files")
async def test_upload_special_files_are_refused_by_name(client: AsyncKimi, tmp_path: Path):
    """
    Devices and sockets are no files; a pipe that only a glob picked up is not read. The others go up.
    """
    os.mkfifo(tmp_path / "b.pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "c.sock"))
    (tmp_path / "a.txt").write_bytes(b"text")
    (tmp_path / "d").mkdir()
    results = await client.files.upload_many(str(tmp_path / "*"), purpose="file-extract")

    assert ["a.txt", "b.pipe", "c.sock"] == [Path(str(each.source)).name for each in results]
    assert [True, False, False] == [each.ok for each in results]
    assert "is a named pipe; it was not read" in str(results[1].error)
    assert "is a socket; it was not read" in str(results[2].error)
    for path, kind in [(tmp_path / "c.sock", "a socket"), (Path("/dev/zero"), "a device")]:
        with pytest.raises(ConfigurationError, match=f"{path.name} is {kind}"):
            await client.files.create(file=path, purpose="file-extract")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (io.StringIO("text"), "text mode"),
        ("/no/such/file.txt", "there is no file"),
        ("some text\nto upload " * 20, "text.encode()"),
        (os.sep, "is a directory"),
        (7, "must be a path, bytes"),
        ({"a": 1}, "must be a path, bytes"),
        (["not bytes"], "must give bytes, not str"),
        (("a", b"", "x", {}, 5), "not 5 items"),
        ((b"x", b"y"), "must be a str, not bytes"),
    ],
)
async def test_upload_file_refuses_what_has_no_bytes(file: Any, said: str):
    """
    Each impossible file is an error that says what was expected, before anything is sent.
    """
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(").replace(")", r"\)")):
        await UploadFile.of(file)


async def test_upload_file_text_handle_is_refused(tmp_path: Path):
    """
    A file opened without "b" gives str: said at once rather than by a server.
    """
    path = tmp_path / "a.txt"
    path.write_text("x")
    with open(path) as opened, pytest.raises(ConfigurationError, match="open it with 'rb'"):
        await UploadFile.of(opened)


async def test_multipart_header_injection_is_impossible():
    """
    A line break in a name is escaped, in a type or header refused.
    """
    assert b'filename="a%0D%0AX: y"' in await body_of(("a\r\nX: y", b"1"))
    with pytest.raises(ConfigurationError, match="line break"):
        await body_of(("a", b"1", "text/plain\r\nX: y"))


@pytest.mark.parametrize(
    ("mime", "headers", "told"),
    [
        (5, None, "mime type in a file tuple must be a str, not int"),
        (None, 5, "must be a mapping of names to values, not int"),
        (None, {5: "x"}, "must be strings; got 5: 'x'"),
        (None, {"X": None}, "must be strings; got 'X': None"),
        (None, {"Content-Disposition": "form-data"}, "'Content-Disposition' of a file part cannot be set"),
        (None, {"content-length": "1"}, "'content-length' of a file part cannot be set"),
        (None, {"X: y": "z"}, "'X: y' of a file part cannot be set"),
    ],
)
async def test_file_tuple_of_other_things_is_refused(mime: Any, headers: Any, told: str):
    """
    In our words, and what would be there twice by its name.
    """
    with pytest.raises(ConfigurationError, match=told):
        await UploadFile.of(("a", b"1", mime, headers))


@pytest.mark.parametrize("change", [b"", b"longer than before"])
async def test_upload_file_changed_while_sent_is_noticed(tmp_path: Path, change: bytes):
    """
    A file that changes its size between measuring and sending fails with its name, not as a broken connection.
    """
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    async with await UploadFile.of(path) as upload:
        path.write_bytes(change)
        with pytest.raises(ConfigurationError, match=r"a\.bin changed its size"):
            await MultipartBody({}, upload).read()


def test_guess_type_knows_what_kimi_takes():
    """
    Types do not depend on the machine's own tables; TypeScript is not a video.
    """
    assert [
        "application/pdf",
        "text/markdown",
        "text/plain",
        "application/jsonl",
        "application/octet-stream",
    ] == [guess_type(name) for name in ("a.PDF", "a.md", "a.ts", "a.jsonl", "noext")]


# On a socket


async def test_create_sends_the_bytes_with_their_length(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    The server gets the file byte for byte, under its name and type, and knows the length beforehand.
    """
    path = tmp_path / "ü.png"
    path.write_bytes(DATA)
    file = await client.files.create(file=path, purpose="image")
    stored = simulator.storage.files[file.id]

    assert (len(DATA), "ü.png", "image", "ready", f"ms://{file.id}") == (
        file.bytes,
        file.filename,
        file.purpose,
        file.status,
        file.ms_url,
    )
    assert (hashlib.sha256(DATA).hexdigest(), "image/png") == (stored.sha256, stored.content_type)


async def test_create_is_repeated_from_the_beginning(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    An upload whose connection breaks half-way, or that meets a 503, is sent again whole; progress starts again at 0.
    """
    path = tmp_path / "a.bin"
    path.write_bytes(DATA * 4)
    simulator.storage.faults.cut_uploads = 1
    simulator.storage.faults.uploads.append(error_reply("unavailable"))
    seen: list[int] = []
    file = await client.files.create(
        file=path, purpose="image", on_progress=lambda sent, total: seen.append(sent)
    )

    assert hashlib.sha256(DATA * 4).hexdigest() == simulator.storage.files[file.id].sha256
    assert 3 == seen.count(0)
    assert len(DATA * 4) == seen[-1]
    assert 1 == simulator.storage.calls["cut_upload"]


async def test_create_checks_before_sending(simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path):
    """
    Empty and oversized files are refused without a request.
    """
    empty, large = tmp_path / "empty", tmp_path / "large"
    empty.touch()
    with open(large, "wb") as file:
        file.truncate(100 * 1024 * 1024 + 1)
    with pytest.raises(ConfigurationError, match="empty is empty"):
        await client.files.create(file=empty, purpose="image")
    with pytest.raises(ConfigurationError, match="has 104,857,601 bytes"):
        await client.files.create(file=large, purpose="image")

    assert 0 == simulator.stats.requests + simulator.storage.calls["upload"]


async def test_create_file_gone_is_not_a_connection_error(client: AsyncKimi, tmp_path: Path):
    """
    The caller's file disappearing under the upload is told as such, not retried as a network fault.
    """
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    upload = await UploadFile.of(path)
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"cannot read .*a\.bin"):
        await client.files.create(file=upload, purpose="image")


# Many


def make(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"f{number:02}.txt" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(f"file {number}".encode() * 50)
    return paths


async def test_upload_many_one_bad_file_loses_no_other(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    Results come in the order given, each with its file or its error.
    """
    paths = make(tmp_path, 12)
    paths[3].write_bytes(b"")
    paths[5].unlink()
    simulator.storage.faults.extract = {"f07.txt": "cannot read it"}
    results = await client.with_options(max_retries=0).files.upload_many(
        [*paths, io.StringIO("x"), ("bytes.txt", b"some bytes")], purpose="file-extract", concurrency=4
    )
    errors = [type(result.error).__name__ for result in results if result.error]

    assert [3, 5, 7, 12] == [number for number, result in enumerate(results) if not result.ok]
    assert ["ConfigurationError", "ConfigurationError", "InternalServerError", "ConfigurationError"] == errors
    assert [p.name for p in paths] + ["bytes.txt"] == [r.name for n, r in enumerate(results) if n != 12]
    assert all(r.file.filename == r.name for r in results if r.file)
    with pytest.raises(KimiError):
        results[3].unwrap()


async def test_upload_many_never_more_at_a_time_than_asked(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    Concurrency is a bound.
    """
    paths = make(tmp_path, 12)
    for number, path in enumerate(paths):
        path.write_bytes(DATA + bytes([number]))
    results = await client.files.upload_many(paths, purpose="image", concurrency=3)

    assert all(result.ok for result in results)
    assert 1 < simulator.storage.peak_uploading <= 3


async def test_upload_many_globs_and_progress(client: AsyncKimi, tmp_path: Path):
    """
    A glob stands for its sorted matches; one without matches is an error; progress adds up in files and bytes.
    """
    paths = make(tmp_path, 5)
    seen: list[UploadProgress] = []
    results = await client.files.upload_many(
        [str(tmp_path / "*.txt"), str(tmp_path / "*.pdf")], purpose="image", on_progress=seen.append
    )
    size = sum(path.stat().st_size for path in paths)

    assert [path.name for path in paths] == [result.name for result in results[:5]]
    assert "no file matches" in str(results[5].error)
    assert (6, 6, 1, 0, size, size) == (
        seen[-1].files,
        seen[-1].done,
        seen[-1].failed,
        seen[-1].reused,
        seen[-1].size,
        seen[-1].sent,
    )
    assert all(a.done <= b.done and a.sent <= b.sent for a, b in itertools.pairwise(seen))


async def test_upload_many_same_content_is_sent_once(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    Equal bytes under several names go up once; equal size alone, or equal beginning, middle and end alone, proves nothing.
    """
    a, b, c, d = (tmp_path / name for name in "abcd")
    a.write_bytes(DATA)
    b.write_bytes(DATA)
    c.write_bytes(DATA[::-1])
    sly = bytearray(DATA)
    sly[200_000] ^= 1
    d.write_bytes(sly)
    results = await client.files.upload_many([a, b, c, d, DATA], purpose="image")
    ids = [result.unwrap().id for result in results]

    assert [None, "content", None, None, "content"] == sorted_by_first(results)
    assert 3 == simulator.storage.calls["upload"]
    assert ids[0] == ids[1] == ids[4]
    assert 3 == len(set(ids))


def sorted_by_first(results: Any) -> list[Any]:
    """
    Why each was reused, as if the first of equals had been the one that was sent.
    """
    first: dict[str, int] = {}
    return ["content" if first.setdefault(r.file.id, n) != n else None for n, r in enumerate(results)]


async def test_upload_many_second_call_sends_what_changed(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    Files that were not touched since are reused; one with another content of the same name and size is sent.
    """
    paths = make(tmp_path, 4)
    first = await client.files.upload_many(paths, purpose="image")
    paths[1].write_bytes(paths[1].read_bytes()[::-1])
    await client.files.delete(first[2].unwrap().id)
    second = await client.files.upload_many(paths, purpose="image")
    other = await client.files.upload_many(paths[:1], purpose="file-extract")
    off = await client.files.upload_many(paths[:1], purpose="image", dedupe=False)

    assert ["content", None, None, "content"] == [result.reused for result in second]
    assert [None, None] == [other[0].reused, off[0].reused]
    assert 4 + 2 + 1 + 1 == simulator.storage.calls["upload"]
    assert first[0].unwrap().id == second[0].unwrap().id


async def test_upload_many_name_is_believed_only_if_older(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    A file of the account under the same name and size stands for a local one that is older than it; never for a younger
    one, and not at all where only proof is accepted.
    """
    old, new = make(tmp_path, 2)
    for path, age in ((old, -100), (new, 100)):
        os.utime(path, (time.time() + age, time.time() + age))
        simulator.storage.put(path.name, b"?" * path.stat().st_size, purpose="image")
    proven = await client.files.upload_many([old], purpose="image", dedupe="content")
    await client.files.delete(proven[0].unwrap().id)
    by_name = await client.files.upload_many([old, new], purpose="image")

    assert [None, "name", None] == [result.reused for result in (*proven, *by_name)]


async def test_upload_many_index_proves_across_processes(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    With an index the content decides, whatever the name; entries of deleted files and torn lines are ignored.
    """
    index = tmp_path / "index.jsonl"
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(DATA)
    first = await client.files.upload_many([a], purpose="image", index=index)
    with open(index, "ab") as file:
        file.write(b'{"torn')
    a.rename(b)
    os.utime(b)
    second = await client.files.upload_many([b], purpose="image", index=index)
    await client.files.delete(first[0].unwrap().id)
    third = await client.files.upload_many([b], purpose="image", index=index)
    fourth = await client.files.upload_many([("other", DATA)], purpose="image", index=index)

    assert [None, "content", None, "content"] == [r[0].reused for r in (first, second, third, fourth)]
    assert hashlib.sha256(DATA).hexdigest() == first[0].sha256


async def test_upload_many_is_not_lost_to_who_watches(client: AsyncKimi, caplog: pytest.LogCaptureFixture):
    """
    What on_progress raises is logged, once, and every file has its result.
    """

    def watch(progress: UploadProgress) -> None:
        if progress.done == 2:
            raise ZeroDivisionError

    files = [(f"{n}.txt", b"%d" % n) for n in range(5)]
    results = await client.files.upload_many(files, purpose="file-extract", on_progress=watch)

    assert [True] * 5 == [result.ok for result in results]
    assert 1 == caplog.text.count("on_progress raised")


async def test_upload_many_index_that_cannot_be_written(
    client: AsyncKimi, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """
    A file that was uploaded is known to the caller, though the index will not remember it.
    """
    [result] = await client.files.upload_many(
        [("a", DATA)], purpose="image", index=tmp_path / "no-folder" / "index.jsonl"
    )

    assert result.unwrap().id in caplog.text
    assert "is not in the index" in caplog.text


async def test_upload_many_full_account(simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path):
    """
    Without room the file's error says what the account holds, and nothing of it is sent; with eviction the oldest go.
    """
    simulator.storage.max_files = 5
    kept = [simulator.storage.put(f"old{n}", b"x" * 10, purpose="image") for n in range(3)]
    for number, each in enumerate(kept):
        each.created_at = number
    other = simulator.storage.put("extract", b"x", purpose="file-extract")
    paths = make(tmp_path, 3)
    limits = FileLimits(max_files=5)
    full = await client.files.upload_many(paths, purpose="image", limits=limits, concurrency=1)
    evicted = await client.files.upload_many(
        paths, purpose="image", limits=limits, evict="oldest", concurrency=1
    )

    assert [True, False, False] == [result.ok for result in full]
    assert isinstance(full[1].error, FileLimitError)
    assert "holds 5 of 5 files" in str(full[1].error)
    assert [True, True, True] == [result.ok for result in evicted]
    assert {kept[2].id, other.id} < set(simulator.storage.files)
    assert 5 == len(simulator.storage.files)


async def test_upload_many_bytes_limit_and_chosen_eviction(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    The sum of bytes is a limit too; a function may choose what goes, and is told how much must.
    """
    big = simulator.storage.put("big", b"x" * 1000, purpose="image")
    asked: list[tuple[int, int]] = []

    def choose(files: Any, count: int, size: int) -> list[FileObject]:
        asked.append((count, size))
        return [file for file in files if file.id == big.id]

    path = tmp_path / "a"
    path.write_bytes(b"y" * 500)
    limits = FileLimits(max_total=1200)
    full = await client.files.upload_many(path, purpose="image", limits=limits)
    made = await client.files.upload_many(path, purpose="image", limits=limits, evict=choose)

    assert isinstance(full[0].error, FileLimitError)
    assert [(0, 300)] == asked
    assert made[0].ok
    assert big.id not in simulator.storage.files


async def test_upload_many_without_a_list_of_files(tmp_path: Path):
    """
    A gateway that takes files but does not list them gets them all.
    """

    async def handler(request: Any) -> Reply:
        if request.method == "GET":
            return Reply(404, {}, b"404 page not found")
        return Reply(
            body=b'{"id":"f1","object":"file","bytes":1,"filename":"a","purpose":"image","status":"ready"}'
        )

    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(handler)) as client:
        results = await client.files.upload_many(make(tmp_path, 3), purpose="image")  # type: ignore[arg-type]

    assert ["f1"] * 3 == [result.unwrap().id for result in results]


async def test_upload_many_cancelled_stops_at_once(tmp_path: Path):
    """
    Cancelling the call ends the uploads under way; nothing is left running.
    """
    started = asyncio.Event()

    async def handler(request: Any) -> Reply:
        if request.method == "GET":
            return Reply(body=b'{"object":"list","data":[]}')
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = AsyncKimi(api_key="sk-x", transport=MemoryTransport(handler))
    before = asyncio.all_tasks()
    task = asyncio.create_task(client.files.upload_many(make(tmp_path, 3), purpose="image"))  # type: ignore[arg-type]
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert 0 == len([each for each in asyncio.all_tasks() if each not in before])


async def test_upload_many_server_refusal_is_the_files_own(simulator: KimiSimulator, client: AsyncKimi):
    """
    What the server refuses is reported with its words.
    """
    results = await client.files.upload_many([b"a", b"bb"], purpose="vision")

    assert all(isinstance(result.error, BadRequestError) for result in results)
    assert "Invalid purpose: vision" in str(results[0].error)
