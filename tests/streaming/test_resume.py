"""
A stream that breaks off goes on where it was: against a server that continues a prefix word for word.
"""

import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kimi_async import AsyncKimi, IncompleteStreamError, KimiError, ResumePolicy, StreamStalledError, Timeout
from kimi_async.streaming.resume import can_mend, continued, why_not
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.testing.clock import run
from kimi_async.transport.exchange import Request
from kimi_async.types import (
    ChatCompletion,
    ChatCompletionMessage,
    ChatCompletionMessageToolCall,
    Choice,
    Function,
)

MESSAGES = [{"role": "user", "content": "Sing."}]

# Refrains on purpose: a continuation often begins as the answer began.
CONTENT = "la la la la 世界 la la 🎉 la la la — " * 6 + "fin"
REASONING = "hm hm hm, think think — " * 4


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def chunk(delta: dict[str, Any], *, number: int, finish: str | None = None, usage: Any = None) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
    if usage is not None:
        choice["usage"] = usage
    return event(
        {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000 + number,
            "model": "kimi-k3",
            "choices": [choice],
        }
    )


class Singer:
    """
    A server with partial mode: what it says after a prefix is what it would have said after it anyway.
    """

    def __init__(self, *, content: str = CONTENT, reasoning: str = REASONING, seed: int = 0) -> None:
        self.content = content
        self.reasoning = reasoning
        self.dice = random.Random(seed)
        self.bodies: list[dict[str, Any]] = []
        self.drops: list[int | None] = []
        """After how many bytes each reply breaks off; None for never."""
        self.reset = False
        self.told: dict[str, Any] = {}
        """More fields of each usage."""
        self.tells_each = False
        """Whether each chunk has the usage, and not the last alone."""

    def whole(self, body: dict[str, Any]) -> bytes:
        last = body["messages"][-1]
        prefix = last["content"] if last.get("partial") else ""
        assert self.content.startswith(prefix)
        if prefix:
            assert self.reasoning == last.get("reasoning_content", "")
        number = len(self.bodies)
        rest = self.content[len(prefix) :]
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": len(rest),
            "total_tokens": 10 + len(rest),
            **self.told,
        }
        each = usage if self.tells_each else None
        parts = [chunk({"role": "assistant", "content": ""}, number=number, usage=each)]
        if not prefix:
            thoughts = self.cut(self.reasoning)
            parts += [chunk({"reasoning_content": text}, number=number, usage=each) for text in thoughts]
        parts += [chunk({"content": text}, number=number, usage=each) for text in self.cut(rest)]
        parts += [chunk({}, number=number, finish="stop", usage=usage), b"data: [DONE]\n\n"]
        return b"".join(parts)

    def cut(self, text: str) -> list[str]:
        pieces: list[str] = []
        while text:
            size = self.dice.randint(1, 6)
            pieces.append(text[:size])
            text = text[size:]
        return pieces

    async def __call__(self, request: Request) -> Reply:
        body = request.json()
        self.bodies.append(body)
        data = self.whole(body)
        drop = self.drops.pop(0) if self.drops else None

        async def pieces() -> AsyncIterator[bytes]:
            sent = data if drop is None else data[:drop]
            while sent:
                size = self.dice.randint(1, 400)
                yield sent[:size]
                sent = sent[size:]
            if drop is not None and drop < len(data) and self.reset:
                raise ConnectionResetError(104, "Connection reset by peer")

        return Reply(
            headers={"content-type": "text/event-stream", "msh-request-id": f"r{len(self.bodies)}"},
            body=pieces(),
        )

    def client(self, **options: Any) -> AsyncKimi:
        return AsyncKimi(api_key="sk-test", advice=False, transport=MemoryTransport(self), **options)


async def sung(client: AsyncKimi, **options: Any) -> tuple[str, str, set[str], Any]:
    stream = await client.chat.completions.create(
        model="kimi-k3", messages=MESSAGES, stream=True, resume=ResumePolicy(), **options
    )
    content, reasoning, ids = [], [], set()
    async for each in stream:
        ids.add(each.id)
        for choice in each.choices:
            content.append(choice.delta.content or "")
            reasoning.append(choice.delta.reasoning_content or "")
    return "".join(content), "".join(reasoning), ids, stream


@pytest.mark.parametrize("reset", [False, True], ids=["cut", "reset"])
def test_resume_thousand_streams_dropped_at_random(reset: bool) -> None:
    """
    Dropped at any byte, up to three times, a stream gives the text of the undisturbed one, once.
    """

    async def main() -> None:
        dice = random.Random(20261122)
        for seed in range(500):
            singer = Singer(seed=seed)
            singer.reset = reset
            singer.drops = [dice.randint(0, 9_000) for _ in range(dice.randint(1, 3))]
            async with singer.client(max_retries=5) as client:
                content, reasoning, ids, stream = await sung(client)

            assert CONTENT == content
            assert REASONING == reasoning
            assert 1 == len(ids)
            snapshot = stream.snapshot()
            assert CONTENT == snapshot.choices[0].message.content
            assert REASONING == snapshot.choices[0].message.reasoning_content
            assert "stop" == snapshot.choices[0].finish_reason

    run(main())


def test_resume_dropped_at_every_event() -> None:
    """
    A drop after each event in turn loses nothing and repeats nothing, reasoning included.
    """

    async def main() -> None:
        whole = Singer(content="one two three", reasoning="think hard").whole({"messages": MESSAGES})
        ends = [i + 2 for i in range(len(whole)) if whole[i : i + 2] == b"\n\n"]
        for end in ends[1:-1]:
            singer = Singer(content="one two three", reasoning="think hard")
            singer.whole({"messages": MESSAGES})
            singer.dice = random.Random(0)
            singer.drops = [end]
            async with singer.client() as client:
                content, reasoning, _, _ = await sung(client)

            assert ("one two three", "think hard") == (content, reasoning)

    run(main())


async def test_resume_sends_prefix_with_reasoning() -> None:
    """
    The request for the rest ends with the answer so far, marked partial, its reasoning beside it.
    """
    singer = Singer(content="x" * 400, reasoning="r" * 8)
    singer.drops = [6_000]
    async with singer.client() as client:
        _, _, _, stream = await sung(client)

    first, second = singer.bodies
    assert MESSAGES == first["messages"]
    last = second["messages"][-1]
    assert ("assistant", True, "r" * 8) == (last["role"], last["partial"], last["reasoning_content"])
    assert "x" * 400 != last["content"]
    assert last["content"] == "x" * len(last["content"])
    assert [1] == [each.number for each in stream.resumptions]
    assert isinstance(stream.resumptions[0].error, IncompleteStreamError)


async def test_resume_usage_lists_requests() -> None:
    """
    Usage names every request; one that broke off before its usage came is listed without numbers.
    """
    singer = Singer()
    singer.drops = [7_000]
    async with singer.client() as client:
        _, _, _, stream = await sung(client)

    attempts = stream.usage.attempts
    assert [0, 10] == [each.prompt_tokens for each in attempts]
    assert "r2" == attempts[1].request_id
    assert stream.usage.completion_tokens == attempts[1].completion_tokens


@pytest.mark.parametrize(("tells_each", "cost"), [(True, 0.5), (False, None)], ids=["told", "not told"])
async def test_resume_usage_is_of_all_requests(tells_each: bool, cost: float | None) -> None:
    """
    Cached and reasoning tokens are added up as the others are. Money is, where each request said what it cost: the last
    one's price would pass for that of the whole answer.
    """
    singer = Singer()
    singer.tells_each = tells_each
    singer.told = {
        "cost": 0.25,
        "cached_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    singer.drops = [20_000 if tells_each else 7_000]
    async with singer.client() as client:
        _, _, _, stream = await sung(client)

    usage = stream.usage
    requests = 2 if tells_each else 1
    assert 2 == len(singer.bodies)
    assert (4 * requests, 4 * requests) == (usage.cached_tokens, usage.prompt_tokens_details.cached_tokens)
    assert 3 * requests == usage.completion_tokens_details.reasoning_tokens
    assert cost == usage.cost
    assert [0.25] * requests == [each.cost for each in usage.attempts if each.cost is not None]


async def test_resume_event_announced() -> None:
    """
    The helper tells of a resumption between the events before and after it, and the final text is whole.
    """
    singer = Singer()
    singer.drops = [7_000]
    async with (
        singer.client() as client,
        client.chat.completions.stream(model="kimi-k3", messages=MESSAGES, resume=ResumePolicy()) as stream,
    ):
        kinds = [each.type async for each in stream]
        text = await stream.get_final_text()

    assert CONTENT == text
    assert 1 == kinds.count("stream.resumed")
    at = kinds.index("stream.resumed")
    assert "content.delta" in kinds[:at]
    assert "content.delta" in kinds[at:]


def test_resume_without_progress_ends() -> None:
    """
    Resumptions that bring nothing new are counted, and end it with what had arrived before them.
    """

    async def main() -> None:
        singer = Singer(content="y" * 300, reasoning="")
        role = len(chunk({"role": "assistant", "content": ""}, number=1))
        singer.drops = [5_000, *[role + 10] * 10]
        async with singer.client() as client:
            with pytest.raises(IncompleteStreamError) as caught:
                await sung(client)

        assert 4 == len(singer.bodies)  # the first, and max_attempts = 3
        content = caught.value.partial.choices[0].message.content
        assert content
        assert "y" * len(content) == content
        assert any("not resumed" in note for note in caught.value.__notes__)

    run(main())


def test_resume_stall_goes_on() -> None:
    """
    Silence is a drop like another.
    """

    async def main() -> None:
        singer = Singer()
        whole = singer.whole({"messages": MESSAGES})
        plain = singer.__call__
        calls = 0

        async def handler(request: Request) -> Reply:
            nonlocal calls
            calls += 1
            if calls > 1:
                return await plain(request)

            async def silent() -> AsyncIterator[bytes]:
                import asyncio

                yield whole[:8_000]
                await asyncio.Event().wait()

            return Reply(body=silent())

        client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler), timeout=Timeout(idle=30))
        content, _, _, stream = await sung(client)

        assert CONTENT == content
        assert isinstance(stream.resumptions[0].error, StreamStalledError)

    run(main())


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"extra_body": {"n": 2}}, "n > 1"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
    ],
)
async def test_resume_refused_for_request(params: dict[str, Any], word: str) -> None:
    """
    What partial mode cannot continue raises as a plain stream would, and says why it was not resumed.
    """
    singer = Singer()
    singer.drops = [7_000]
    async with singer.client() as client:
        with pytest.raises(IncompleteStreamError) as caught:
            await sung(client, **params)

    assert 1 == len(singer.bodies)
    assert any(word in note for note in caught.value.__notes__)
    assert caught.value.partial.choices[0].message.content


def test_why_not_tool_call_in_progress() -> None:
    """
    Half a tool call cannot be continued.
    """
    call = ChatCompletionMessageToolCall(id="f:0", function=Function(name="f", arguments='{"a'))
    partial = ChatCompletion(choices=[Choice(message=ChatCompletionMessage(tool_calls=[call]))])

    reason = why_not({"messages": []}, partial)

    assert reason is not None
    assert "tool call" in reason


def test_continued_lengthens_own_prefix() -> None:
    """
    A prefix that the caller had given stays the beginning of the answer.
    """
    body = {
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "{", "partial": True}]
    }

    lengthened = continued(body, '"a"', None)

    assert [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": '{"a"', "partial": True},
    ] == lengthened["messages"]
    assert "{" == body["messages"][1]["content"]


async def test_resume_other_reasoning_after_restart() -> None:
    """
    A thought that comes out differently the second time is handed out whole and replaces the first in the result.
    """
    thoughts = iter(["alpha beta gamma", "alpha delta"])
    singer = Singer(content="done", reasoning="")

    async def handler(request: Request) -> Reply:
        singer.reasoning = next(thoughts)
        return await singer(request)

    first = len(chunk({"role": "assistant", "content": ""}, number=1))
    singer.drops = [first + 600]
    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler)) as client:
        content, _, _, stream = await sung(client)

    assert "done" == content
    assert stream.resumptions[0].restarted
    assert "alpha delta" == stream.snapshot().choices[0].message.reasoning_content


async def test_resume_needs_stream() -> None:
    """
    A whole reply has nothing to resume.
    """
    client = Singer().client()

    with pytest.raises(KimiError, match="stream=True"):
        await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, resume=ResumePolicy())  # type: ignore[call-overload]


def test_can_mend_total_is_final() -> None:
    """
    The caller's own bound on the whole is not stretched by asking again.
    """
    assert not can_mend(StreamStalledError(phase="total"))
    assert can_mend(StreamStalledError(phase="idle"))


async def test_resume_close_gives_connection_back() -> None:
    """
    Leaving a resumed stream early leaves no reply open.
    """
    singer = Singer()
    singer.drops = [7_000]
    transport = MemoryTransport(singer)
    async with AsyncKimi(api_key="sk-test", transport=transport) as client:
        stream = await client.chat.completions.create(
            model="kimi-k3", messages=MESSAGES, stream=True, resume=ResumePolicy()
        )
        async with stream:
            async for _ in stream:
                if stream.resumptions:
                    break

        assert 0 == transport.open
