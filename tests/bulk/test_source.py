"""
Requests one at a time, from whatever holds them.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kimi_async.bulk.lines import InvalidLinesError, request_lines
from kimi_async.bulk.source import Source


async def opened(requests: Any, **options: Any) -> Source:
    source = Source(requests, options.pop("total", None))
    await source.open(model="m", repair=options.get("repair", False), max_line=1000)
    return source


async def taken(source: Source) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    while True:
        try:
            found.append(await source.next())
        except StopAsyncIteration:
            source.end()
            return found


async def agen(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


@pytest.mark.parametrize("made", [lambda: ["a", "b"], lambda: iter("ab"), lambda: agen("a", "b")])
async def test_source_every_kind_gives_the_same(made: Any):
    """
    Items come with their positions; the total is known at the beginning where the input tells it, and at the end anyway.
    """
    requests = made()
    source = await opened(requests)
    assert (2 if hasattr(requests, "__len__") else None) == source.total

    assert [(0, "a"), (1, "b")] == await taken(source)
    assert 2 == source.total
    assert source.complete


async def test_source_stop_ends_a_wait_for_a_silent_iterable():
    """
    A source that has nothing to give for hours is not waited for.
    """

    async def silent() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    source = await opened(silent())
    await source.next()
    asking = asyncio.ensure_future(source.next())
    await asyncio.sleep(0)
    source.stop()
    with pytest.raises(StopAsyncIteration):
        await asking
    await source.close()


async def test_source_file_is_checked_first(tmp_path: Path):
    """
    Of a file with a bad line nothing is given; one that was saved by an editor is read where that is allowed.
    """
    line = b'{"custom_id": "%d", "body": {"messages": [1]}}'
    path = tmp_path / "in.jsonl"
    path.write_bytes(line % 1 + b"\nnonsense\n")
    with pytest.raises(InvalidLinesError, match="line 2: is not JSON"):
        await opened(path)

    path.write_bytes(b"\xef\xbb\xbf" + line % 1 + b"\r\n\r\n" + line % 2)
    source = await opened(path, repair=True)
    assert 2 == source.total
    assert [(0, line % 1), (1, line % 2)] == await taken(source)
    assert [line % 1, line % 2] == list(request_lines(path))


async def test_source_what_is_no_iterable_is_refused():
    """
    The error names what was given.
    """
    with pytest.raises(TypeError, match="not int"):
        await opened(3)
