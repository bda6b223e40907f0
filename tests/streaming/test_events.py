"""
Typed events of a streamed answer, and its measures.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi, IncompleteStreamError
from kimi_async.streaming.events import ChatCompletionStreamState
from kimi_async.streaming.reading import Reading
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request
from kimi_async.types import ChatCompletionChunk
from support.raw_server import DONE, FINISH, HELLO, ROLE, USAGE, chunk, event, text

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


pytestmark = pytest.mark.virtual_clock


def manager_of(*pieces: bytes, every: float = 0.0, **options: Any) -> tuple[Any, MemoryTransport]:
    async def body() -> AsyncIterator[bytes]:
        for each in pieces:
            await asyncio.sleep(every)
            yield each

    async def handler(request: Request) -> Reply:
        return Reply(headers={"Msh-Request-Id": "rid-1"}, body=body())

    transport = MemoryTransport(handler)
    client = AsyncKimi(api_key="sk-test", transport=transport, max_retries=0)
    return client.chat.completions.stream(model="kimi-k3", messages=QUESTION, **options), transport


def call(index: int, arguments: str, **more: Any) -> bytes:
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return event(chunk({"tool_calls": [{"index": index, "function": function, **more}]}))


def thought(words: str) -> bytes:
    return event(chunk({"reasoning_content": words}))


LAST = event(chunk(finish="tool_calls", usage=USAGE))
EVERYTHING = (
    ROLE, thought("Hm"), thought("."), text("Hel"), text("lo"), call(0, "", id="f:0", name="f"), call(0, '{"a":'), call(0, "1}"),
    call(1, '{"b":2}', id="g:1", name="g"), LAST, DONE,
)  # fmt: skip


async def test_events_in_order():
    """
    Deltas as they come, a "done" where each kind ends, usage when it is known; the chunk itself before what it holds.
    """
    manager, transport = manager_of(*EVERYTHING)
    async with manager as stream:
        events = [each async for each in stream]
        completion = await stream.get_final_completion()
    kinds = [each.type for each in events if each.type != "chunk"]

    assert [
        "reasoning.delta", "reasoning.delta", "reasoning.done", "content.delta", "content.delta", "content.done",
        "tool_calls.function.arguments.delta", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.delta",
        "tool_calls.function.arguments.done", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.done", "usage",
    ] == kinds  # fmt: skip
    assert 10 == len([each for each in events if each.type == "chunk"])
    done = [each for each in events if each.type.endswith("arguments.done")]
    assert [("f", 0, '{"a":1}'), ("g", 1, '{"b":2}')] == [
        (each.name, each.index, each.arguments) for each in done
    ]
    message = completion.choices[0].message
    assert ("Hello", "Hm.") == (message.content, message.reasoning_content)
    assert "rid-1" == completion._request_id == stream.request_id
    assert 0 == transport.open


async def test_events_cost_nothing_unread_and_are_right_when_read():
    """
    Snapshots are what had arrived by the event, when read in the loop.
    """
    manager, _ = manager_of(ROLE, text("Hel"), text("lo"), FINISH, DONE)
    seen: list[str] = []
    so_far: list[str] = []
    async with manager as stream:
        async for each in stream:
            if each.type == "content.delta":
                seen.append(each.snapshot)
            elif each.type == "chunk":
                so_far.append(each.snapshot.choices[0].message.content)

    assert ["", "Hel", "Hello", "Hello"] == so_far
    assert ["Hel", "Hello"] == seen


WORDS = ["a", " b", '"', "\n", "令牌", "\U0001f316", "c"]


@pytest.mark.parametrize("together", [1, 2, 7])
@pytest.mark.parametrize("options", [{}, {"leaked_tools": "mend", "tools": []}])
async def test_text_stream_is_the_events_text(together: int, options: Any):
    """
    However many come together the fragments are those of the events, and what is known of the stream is never ahead of them.
    """
    packets = [b"".join(map(text, WORDS[at : at + together])) for at in range(0, len(WORDS), together)]
    manager, _ = manager_of(ROLE, thought("Hm"), thought("."), *packets, *packets, FINISH, DONE, **options)
    words: list[str] = []
    async with manager as stream:
        async for each in stream.text_stream():
            words.append(each)
            so_far = stream.current_completion_snapshot.choices[0].message.content
            assert "".join(words) == so_far or options
        completion = await stream.get_final_completion()

    assert "".join(WORDS * 2) == "".join(words) == completion.choices[0].message.content
    assert WORDS * 2 == words or options
    assert "Hm." == completion.choices[0].message.reasoning_content
    assert stream.metrics.time_to_first_token is not None
    assert options or len(WORDS) * 2 + 4 == stream.metrics.chunks


@pytest.mark.parametrize("read", range(1, 14))
async def test_text_stream_left_is_gone_on_with(read: int):
    """
    Who leaves it in the middle of what came together finds the rest as events, and then as text again.
    """
    packet = b"".join(map(text, WORDS))
    manager, _ = manager_of(ROLE, packet, packet, packet, FINISH, DONE)
    words: list[str] = []
    async with manager as stream:
        async for each in stream.text_stream():
            words.append(each)
            if len(words) == read:
                break
        kinds: list[str] = []
        async for event in stream:
            kinds.append(event.type)
            if event.type == "content.delta":
                words.append(event.delta)
                assert "".join(words) == event.snapshot
            if len(words) == read + 3:
                break
        words += [each async for each in stream.text_stream()]

    assert WORDS * 3 == words
    assert ["chunk", "content.delta"] * 3 == kinds[:6]


async def test_text_stream_tells_an_error_after_what_came():
    """
    A stream that breaks off among events that are alike gives what it had, and raises.
    """
    packet = b"".join(map(text, WORDS))
    manager, _ = manager_of(ROLE, packet, packet, packet[:-9])
    words: list[str] = []
    async with manager as stream:
        with pytest.raises(IncompleteStreamError) as caught:
            async for each in stream.text_stream():
                words.append(each)

    assert "".join(WORDS * 3)[:-1] == "".join(words) == caught.value.partial.choices[0].message.content


async def test_text_stream_and_final_text():
    """
    Plain strings for those who want no more, without reasoning.
    """
    manager, _ = manager_of(ROLE, thought("Hm"), text("Hel"), text("lo"), FINISH, DONE)
    async with manager as stream:
        words = [each async for each in stream.text_stream()]

        assert ["Hel", "lo"] == words
        assert "Hello" == await stream.get_final_text()


async def test_final_completion_without_iterating():
    """
    It takes in the rest by itself, also after a part was read.
    """
    manager, _ = manager_of(HELLO, FINISH, DONE)
    async with manager as stream:
        await anext(stream)
        completion = await stream.get_final_completion()

    assert "Hello" == completion.choices[0].message.content


async def test_final_completion_of_a_cut_stream():
    """
    There is none: the error comes, with what had arrived.
    """
    manager, transport = manager_of(HELLO)
    async with manager as stream:
        with pytest.raises(IncompleteStreamError) as caught:
            await stream.get_final_completion()
        assert "Hello" == stream.current_completion_snapshot.choices[0].message.content

    assert "Hello" == caught.value.partial.choices[0].message.content
    assert 0 == transport.open


async def test_leaving_early_closes():
    """
    Leaving the block ends the stream.
    """
    manager, transport = manager_of(*EVERYTHING)
    async with manager as stream:
        async for _ in stream:
            break

    assert 0 == transport.open


async def test_metrics():
    """
    Time to the first token, duration, chunks and tokens per second, on the loop's clock.
    """
    manager, _ = manager_of(
        ROLE, text("Hel"), text("lo"), event(chunk(finish="stop", usage=USAGE)), DONE, every=1.0
    )
    async with manager as stream:
        await stream.until_done()
        metrics = stream.metrics

    assert pytest.approx(2.0) == metrics.time_to_first_token
    assert pytest.approx(5.0) == metrics.duration
    assert (4, 2) == (metrics.chunks, metrics.completion_tokens)
    assert pytest.approx(2 / 3) == metrics.tokens_per_second


async def test_end_takes_a_packet_in_one_go(monkeypatch: pytest.MonkeyPatch):
    """
    Who only wants the end has each packet folded once, whatever kinds of chunks it holds, and not run by run.
    """
    sizes: list[int] = []
    fill: Any = Reading.fill

    async def counted(reading: Reading[Any]) -> list[Any]:
        items = await fill(reading)
        sizes.append(len(items))
        return items

    monkeypatch.setattr(Reading, "fill", counted)
    packet = b"".join([thought("Hm"), text("Hel"), text("lo"), call(0, "{}", id="f:0", name="f"), LAST])
    manager, _ = manager_of(ROLE, packet, DONE)
    async with manager as stream:
        completion = await stream.get_final_completion()

    assert [1, 5] == sizes[:2]
    assert "Hello" == completion.choices[0].message.content


def test_state_without_a_stream():
    """
    Chunks from elsewhere, folded by hand; before the first there is no snapshot.
    """
    state = ChatCompletionStreamState()
    with pytest.raises(RuntimeError, match="no chunk"):
        _ = state.current_completion_snapshot
    kinds: list[str] = []
    for raw in (HELLO + FINISH).split(b"\n\n")[:-1]:
        decoded = ChatCompletionChunk.model_validate(json.loads(raw.removeprefix(b"data: ")))
        kinds += [each.type for each in state.handle_chunk(decoded)]

    assert ["chunk", "chunk", "content.delta", "chunk", "content.delta", "chunk", "content.done"] == kinds
    assert "Hello" == state.get_final_completion().choices[0].message.content
