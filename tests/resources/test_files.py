"""
`client.files`, and lists that come in pages.
"""

# ruff: noqa: ASYNC240 - tests may touch small local files
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kimi_async.client import AsyncKimi
from kimi_async.errors import APIConnectionError, ConfigurationError, NotFoundError
from kimi_async.resources.pagination import AsyncCursorPage, AsyncPage, AsyncPaginator, PageInfo
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.types.files import FileObject

pytestmark = pytest.mark.virtual_clock


# Pages


class Shelf:
    """A list on a server, three items a page."""

    def __init__(self, count: int, *, has_more: bool | None = True, obeys: bool = True) -> None:
        self.items = [FileObject(id=f"f{number}") for number in range(count)]
        self.has_more = has_more
        self.obeys = obeys
        self.asked: list[dict[str, Any]] = []

    async def fetch(self, params: Mapping[str, Any]) -> AsyncCursorPage[FileObject]:
        self.asked.append(dict(params))
        after = params.get("after") if self.obeys else None
        start = next((n + 1 for n, item in enumerate(self.items) if item.id == after), 0)
        more = start + 3 < len(self.items) if self.has_more and self.obeys else self.has_more
        return AsyncCursorPage(self.items[start : start + 3], has_more=more)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9, 10])
async def test_paginator_gives_every_item_once(count: int):
    """
    Iterating gives all items in order, and asks for each page once, with the parameters of the first.
    """
    shelf = Shelf(count)
    found = [item.id async for item in AsyncPaginator(shelf.fetch, {"limit": 3})]

    assert [f"f{number}" for number in range(count)] == found
    assert max(1, -(-count // 3)) == len(shelf.asked)
    assert all(asked["limit"] == 3 for asked in shelf.asked)


async def test_paginator_awaited_gives_the_first_page():
    """
    The page knows whether there is another, and how to get it, as in the OpenAI SDK.
    """
    shelf = Shelf(5)
    page = await AsyncPaginator(shelf.fetch)
    second = await page.get_next_page()

    assert (["f0", "f1", "f2"], True, True) == (
        [i.id for i in page.data],
        page.has_more,
        page.has_next_page(),
    )
    assert PageInfo({"after": "f2"}) == page.next_page_info()
    assert ["f3", "f4"] == [item.id for item in second.data]
    assert not second.has_next_page()
    assert [3, 2] == [len(each.data) async for each in page.iter_pages()]
    assert [3, 2] == [len(each.data) async for each in AsyncPaginator(shelf.fetch).iter_pages()]


async def test_paginator_server_without_paging_is_asked_once():
    """
    A server that says nothing about more pages has none.
    """
    shelf = Shelf(3, has_more=None)

    assert 3 == len([item async for item in AsyncPaginator(shelf.fetch)])
    assert 1 == len(shelf.asked)


async def test_paginator_server_that_ignores_the_cursor_ends():
    """
    A server that says "more" for ever and ignores the cursor cannot make the list endless.
    """
    shelf = Shelf(3, has_more=True, obeys=False)
    found = [item async for item in AsyncPaginator(shelf.fetch)]

    assert 2 == len(shelf.asked)
    assert 6 == len(found)


async def test_page_plain_has_no_next():
    """
    A page of a list that has no pages is the last one, and says so when asked for more.
    """
    page: AsyncPage[int] = AsyncPage([1, 2])

    assert ([1, 2], False, None) == ([n async for n in page], page.has_next_page(), page.next_page_info())
    with pytest.raises(RuntimeError, match="No next page"):
        await page.get_next_page()


# Files


async def test_files_are_listed_found_and_deleted(simulator: KimiSimulator, client: AsyncKimi):
    """
    What was uploaded is in the list and can be asked for until it is deleted.
    """
    first = await client.files.create(file=("a.txt", b"one"), purpose="file-extract")
    await client.files.create(file=("b.png", b"two"), purpose="image")
    listed = [file.filename async for file in client.files.list()]
    images = await client.files.list(purpose="image")
    found = await client.files.retrieve(first.id)
    gone = await client.files.delete(first.id)

    assert (["a.txt", "b.png"], ["b.png"]) == (listed, [file.filename for file in images.data])
    assert ("ok", 3, first.id) == (found.status, found.bytes, found.id)
    assert (True, first.id) == (gone.deleted, gone.id)
    with pytest.raises(NotFoundError):
        await client.files.retrieve(first.id)


async def test_files_list_follows_pages(simulator: KimiSimulator, client: AsyncKimi):
    """
    A server that pages is followed to the end.
    """
    simulator.storage.page = 2
    for number in range(5):
        simulator.storage.put(f"f{number}", b"x", purpose="image")

    assert [f"f{n}" for n in range(5)] == [file.filename async for file in client.files.list()]
    assert 3 == simulator.storage.calls["list"]


@pytest.mark.parametrize("bad", ["", "..", "a/../b", 7])
async def test_files_id_cannot_leave_its_path(client: AsyncKimi, simulator: KimiSimulator, bad: Any):
    """
    An id is one segment of the path, whatever is in it.
    """
    with pytest.raises((ConfigurationError, TypeError, NotFoundError)):
        await client.files.delete(bad)
    assert all("/files/a%2F" in request.path for request in simulator.requests)


async def test_content_is_text_bytes_and_chunks(client: AsyncKimi, tmp_path: Path):
    """
    The content as each accessor of the OpenAI SDK gives it.
    """
    file = await client.files.create(file=("ü.txt", "größe".encode()), purpose="file-extract")
    content = await client.files.content(file.id)
    target = tmp_path / "out"
    content.write_to_file(target)

    assert "größe" == json.loads(content.text)["content"] == content.json()["content"]
    assert content.text.encode() == content.content == content.read() == target.read_bytes()
    assert (
        content.content
        == b"".join(content.iter_bytes(7))
        == b"".join([c async for c in content.iter_bytes()])
    )
    assert content.text == await client.files.retrieve_content(file.id)


async def test_download_streams_to_a_file_and_starts_again(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    A download that breaks off is repeated; the file appears whole or not at all.
    """
    data = bytes(range(256)) * 12_000
    file = simulator.storage.put("a.jsonl", data, purpose="batch")
    target = tmp_path / "a.jsonl"
    simulator.storage.faults.cut_downloads = 2
    seen: list[tuple[int, int | None]] = []

    assert len(data) == await client.files.download(
        file.id, target, on_progress=lambda a, b: seen.append((a, b))
    )
    assert data == target.read_bytes()
    assert (len(data), len(data)) == seen[-1]
    target.unlink()
    simulator.storage.faults.cut_downloads = 9
    with pytest.raises(APIConnectionError):
        await client.files.download(file.id, target)
    assert [] == list(tmp_path.iterdir())


async def test_wait_for_processing_until_ready_or_too_late(simulator: KimiSimulator, client: AsyncKimi):
    """
    Waits while the server works on a file; gives up as the OpenAI SDK does.
    """
    simulator.storage.processing = 12.0
    file = await client.files.create(file=("a.mp4", b"x"), purpose="video")

    assert "processing" == file.status
    assert "ready" == (await client.files.wait_for_processing(file.id)).status
    assert 4 == simulator.storage.calls["retrieve"]
    slow = await client.files.create(file=("b.mp4", b"x"), purpose="video")
    with pytest.raises(RuntimeError, match="Giving up on waiting"):
        await client.files.wait_for_processing(slow.id, max_wait_seconds=8)


async def test_image_part_small_inline_large_uploaded(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    A small image travels in the message, a large one by reference; a video always by reference.
    """
    small, large = tmp_path / "s.png", tmp_path / "l.png"
    small.write_bytes(b"\x89PNG")
    large.write_bytes(b"\x89PNG" * 400_000)
    inline = (await client.files.image_part(small))["image_url"]["url"]
    uploaded = (await client.files.image_part(large))["image_url"]["url"]
    video = await client.files.video_part(("v.mp4", b"x"))
    ids = list(simulator.storage.files)

    assert f"data:image/png;base64,{base64.b64encode(small.read_bytes()).decode()}" == inline
    assert f"ms://{ids[0]}" == uploaded
    assert {"type": "video_url", "video_url": {"url": f"ms://{ids[1]}"}} == video


async def test_ask_puts_extracted_text_before_the_question(simulator: KimiSimulator, client: AsyncKimi):
    """
    Each document becomes a system message, in order, and is deleted from the account afterwards.
    """
    simulator.say("Both.")
    answer = await client.files.ask("Which?", [("a.txt", b"alpha"), ("b.txt", b"beta")], model="kimi-k2.6")
    sent = json.loads(simulator.requests[-1].body)["messages"]

    assert "Both." == answer.choices[0].message.content
    assert ["system", "system", "user"] == [message["role"] for message in sent]
    assert ["alpha", "beta"] == [json.loads(message["content"])["content"] for message in sent[:2]]
    assert {} == simulator.storage.files


async def test_extract_failure_says_why(client: AsyncKimi, simulator: KimiSimulator):
    """
    A file without extractable text is an error with the server's reason, and does not stay on the account.
    """
    with pytest.raises(ConfigurationError, match=r"a\.xyz: unsupported file type"):
        await client.files.extract(("a.xyz", b"?"))
    assert {} == simulator.storage.files


async def test_create_purpose_of_another_kind_is_refused():
    """
    By its name, before anything is sent.
    """
    async with AsyncKimi(api_key="sk-test") as client:
        with pytest.raises(TypeError, match="purpose must be a string such as 'file-extract', not int"):
            await client.files.create(file=("a.txt", b"x"), purpose=5)  # type: ignore[arg-type]
