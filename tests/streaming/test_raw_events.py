"""
A stream that is handed on as bytes is watched as one that is read.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import (
    AsyncKimi,
    ConfigurationError,
    IncompleteStreamError,
    RateLimitReachedError,
    ResumePolicy,
)
from kimi_async.sse import SSEDecoder
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

QUESTION = [{"role": "user", "content": "Count."}]
DONE = b"data: [DONE]\n\n"


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def event(delta: Any, finish: Any = None, **more: Any) -> bytes:
    return data({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


ROLE = event({"role": "assistant", "content": ""})
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
BODY = ROLE + event({"content": "a"}) + event({"content": "b"}) + event({}, "stop", usage=USAGE) + DONE


async def opened(body: bytes, size: int, **options: Any) -> tuple[Any, MemoryTransport]:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    async def serve(_: Request) -> Reply:
        return Reply(headers={"content-type": "text/event-stream"}, body=pieces())

    transport = MemoryTransport(serve)
    client = AsyncKimi(api_key="sk-test", transport=transport, max_retries=0)
    stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True, **options)
    return stream, transport


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
async def test_raw_events_are_what_came(size: int) -> None:
    """
    However it is cut, every event is handed on once and whole, and the usage is known.
    """
    stream, transport = await opened(BODY, size)

    found = [piece async for piece in stream.raw_events()]

    assert BODY == b"".join(found)
    assert all(piece.endswith(b"\n\n") for piece in found)
    assert USAGE == stream.usage.to_dict()
    assert 0 == transport.open


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(
    ("end", "error"),
    [
        (b"", IncompleteStreamError),
        (data({"error": {"code": 429, "message": "rate limit reached"}}) + DONE, RateLimitReachedError),
        (b"event: error\n" + data({"code": 429, "message": "TPM limit reached"}), RateLimitReachedError),
        (data({"code": 429, "message": "TPM limit reached", "data": None}) + DONE, RateLimitReachedError),
        (b'{"error":{"message":"TPM limit reached","code":429}}\n\n' + DONE, RateLimitReachedError),
    ],
)
async def test_raw_events_raise_what_the_stream_would(end: bytes, error: type[Exception], size: int) -> None:
    """
    An error, or a cut, is never handed on as a good end.
    """
    stream, transport = await opened(ROLE + event({"content": "a"}) + end, size)
    found: list[bytes] = []

    with pytest.raises(error):
        async for piece in stream.raw_events():
            found.append(piece)

    said = [each.data for each in SSEDecoder().feed(b"".join(found))]
    assert 2 == len(said)
    assert 0 == transport.open


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
async def test_raw_events_tell_the_answer(size: int) -> None:
    """
    Afterwards the answer is known as of any stream.
    """
    stream, _ = await opened(BODY, size)

    found = [piece async for piece in stream.raw_events()]

    assert BODY == b"".join(found)
    assert "ab" == stream.snapshot().choices[0].message.content
    assert 4 == stream.chunks


async def test_raw_events_of_a_mended_stream_are_refused() -> None:
    """
    What is changed on the way is not handed on as it came.
    """
    stream, _ = await opened(BODY, 50, leaked_tools="mend")
    async with stream:
        with pytest.raises(ConfigurationError, match="mend"):
            stream.raw_events()


async def test_raw_events_left_early_close() -> None:
    """
    When the reader has gone the model is stopped.
    """
    stream, transport = await opened(BODY, 50)
    relay = stream.raw_events()
    await anext(relay)
    await relay.aclose()
    await stream.close()

    assert 0 == transport.open


async def test_raw_events_refused_where_they_would_not_fit() -> None:
    """
    A resumed stream, or one that was iterated, cannot be handed on as it came.
    """
    stream, _ = await opened(BODY, 50, resume=ResumePolicy())
    async with stream:
        with pytest.raises(ConfigurationError, match="resume"):
            await anext(stream.raw_events())
    stream, _ = await opened(BODY, 150)
    async with stream:
        await anext(stream)
        with pytest.raises(ConfigurationError, match="iterated"):
            await anext(stream.raw_events())
