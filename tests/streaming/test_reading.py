"""
What comes in large pieces is digested in slices, and is the same answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from kimi_async import APIConnectionError, AsyncKimi, IncompleteStreamError
from kimi_async.streaming import reading
from kimi_async.streaming.clocks import Turn
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport import Request

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
WORDS = [f"word {number} é中🐈" for number in range(40)]
TEXT = "".join(WORDS)


def events(ending: bytes, *, whole: bool = True) -> bytes:
    """
    An answer of forty words.
    """
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": {"content": word}}]} for word in WORDS]
    if whole:
        chunks.append({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    said = b"".join(
        b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + 2 * ending for chunk in chunks
    )
    return said + b"data: [DONE]" + 2 * ending if whole else said


def serving(*packets: bytes, broken: bool = False) -> AsyncKimi:
    async def body() -> AsyncIterator[bytes]:
        for packet in packets:
            yield packet
        if broken:
            raise APIConnectionError(message="reset", phase="body")

    async def serve(_: Request) -> Reply:
        return Reply(headers={"content-type": "text/event-stream"}, body=body())

    return AsyncKimi(api_key="sk-test", max_retries=0, transport=MemoryTransport(serve))


async def iterated(client: AsyncKimi) -> str:
    async with await client.chat.completions.create(
        model="kimi-k3", messages=MESSAGES, stream=True
    ) as stream:
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert stream.chunks == len(WORDS) + 1
        return said


async def in_the_end(client: AsyncKimi) -> str:
    async with client.chat.completions.stream(model="kimi-k3", messages=MESSAGES) as stream:
        return (await stream.get_final_completion()).choices[0].message.content or ""


async def by_runs(client: AsyncKimi) -> str:
    async with client.chat.completions.stream(model="kimi-k3", messages=MESSAGES) as stream:
        return "".join([event.delta async for event in stream if event.type == "content.delta"])


async def handed_on(client: AsyncKimi) -> str:
    stream = await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, stream=True)
    data = b"".join([piece async for piece in stream.raw_events()])
    found = [json.loads(line[6:]) for line in data.split(b"\n\n") if line[6:].startswith(b"{")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found)


@pytest.mark.parametrize("read", [iterated, in_the_end, by_runs, handed_on])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [1, 7, 90, 91, 400, 3_000, 1 << 20])
@pytest.mark.parametrize("crowded", [False, True])
async def test_slices_of_a_large_packet_are_the_same_stream(
    read: Callable[[AsyncKimi], Awaitable[str]],
    ending: bytes,
    size: int,
    crowded: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    """
    Wherever they are cut, whoever reads, and whether others have the loop between them.
    """
    monkeypatch.setattr(reading, "SLICE", size)
    if crowded:
        monkeypatch.setattr(Turn, "is_over", lambda *_: True)
    data = events(ending)
    async with serving(data[:500], data[500:]) as client:
        assert TEXT == await read(client)


async def test_slices_are_not_lost_by_a_cancellation(monkeypatch: pytest.MonkeyPatch):
    """
    What is held while others have the loop is there for the next who asks.
    """
    monkeypatch.setattr(reading, "SLICE", 300)
    monkeypatch.setattr(Turn, "is_over", lambda *_: True)
    said, cancelled = "", 0
    async with serving(events(b"\n")) as client:
        stream = await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, stream=True)
        while True:
            asking = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            asking.cancel()
            try:
                said += (await asking).choices[0].delta.content or ""
            except asyncio.CancelledError:
                cancelled += 1
                try:
                    said += (await stream.__anext__()).choices[0].delta.content or ""
                except StopAsyncIteration:
                    break
            except StopAsyncIteration:
                break

    assert TEXT == said
    assert cancelled > 5


async def test_slices_come_before_the_fault_that_follows_them(monkeypatch: pytest.MonkeyPatch):
    """
    A connection that breaks after a large packet takes nothing of it away.
    """
    monkeypatch.setattr(reading, "SLICE", 300)
    async with serving(events(b"\n", whole=False), broken=True) as client:
        stream = await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, stream=True)
        with pytest.raises(IncompleteStreamError) as caught:
            async for _ in stream:
                pass

    assert caught.value.partial is not None
    assert TEXT == caught.value.partial.choices[0].message.content


async def test_slices_of_what_is_no_stream_are_one_body(monkeypatch: pytest.MonkeyPatch):
    """
    A whole completion where a stream was asked for, in one packet and a bit, is read to its end.
    """
    monkeypatch.setattr(reading, "SLICE", 30)
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    body = json.dumps({"id": "c", "choices": [choice]}).encode()
    async with serving(body[:400], body[400:]) as client:
        assert TEXT == await in_the_end(client)
