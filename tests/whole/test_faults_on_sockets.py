"""
Real sockets, real faults: each case of `fault_cases.py` says what the server does, and what the caller must see.

After every case nothing is left: no connection, no task, no slot.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import kimi_async.streaming.clocks
import kimi_async.streaming.reading
from kimi_async import AsyncKimi, KimiError, RetryPolicy, Timeout
from kimi_async.errors import APIConnectionError, APIError, APIStatusError
from support.fault_cases import BROKEN, NOT_STREAMED, TOLERATED, Case
from support.raw_server import RawServer, every

QUICK = {"connect": 2.0, "read": 0.3, "first_token": 0.3, "idle": 0.12}
AT_ONCE = RetryPolicy(base=0.0, cap=0.0)
QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds on goodbyes, shortened: what is tested is that there are some."""
    monkeypatch.setattr(kimi_async.streaming.clocks, "GRACE", 0.1)
    monkeypatch.setattr(kimi_async.streaming.reading, "DRAIN", 0.1)


def client_for(server: RawServer, case: Case) -> AsyncKimi:
    options = dict(case.options)
    timeout = Timeout(**{**QUICK, **options.pop("timeout", {})})
    return AsyncKimi(
        api_key="sk-test-0123456789abcdef",
        base_url=server.base_url,
        timeout=timeout,
        max_retries=1,
        retry=AT_ONCE,
        **options,
    )


async def call(client: AsyncKimi, case: Case) -> tuple[str | None, int, KimiError | None]:
    """Content, chunks handed out, and the error if there was one."""
    content: list[str] = []
    chunks = 0
    try:
        if not case.stream:
            completion = await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
            return completion.choices[0].message.content, 0, None
        async with await client.chat.completions.create(
            model="kimi-k3", messages=QUESTION, stream=True
        ) as stream:
            async for chunk in stream:
                chunks += 1
                content += [choice.delta.content or "" for choice in chunk.choices]
    except KimiError as error:
        return "".join(content) if chunks else None, chunks, error
    return "".join(content), chunks, None


async def left_behind(before: set[asyncio.Task[Any]], server: RawServer) -> set[asyncio.Task[Any]]:
    await server.quiet()
    return asyncio.all_tasks() - before - server.open


async def play(case: Case) -> None:
    async with asyncio.timeout(10), RawServer(every(case.answer)) as server:
        before = asyncio.all_tasks()
        async with client_for(server, case) as client:
            content, chunks, error = await call(client, case)
            limiter = client.limiter
        assert (case.error or type(None)) is type(error) or isinstance(error, case.error or ()), repr(error)
        assert case.sent == len(server.requests)
        assert case.content == content or (case.content is None and case.chunks is None)
        if error is None:
            assert case.chunks is None or case.chunks == chunks
        else:
            assert case.told in str(error)
            assert case.phase is None or case.phase == getattr(error, "phase", None)
        if case.stream and isinstance(error, APIError) and case.chunks is not None:
            assert case.chunks == error.chunks == chunks
            if chunks:
                assert case.content == error.partial.choices[0].message.content
                assert error.bytes_received > 0
            else:
                assert error.partial is None
        if case.sent == 2 and isinstance(error, (APIConnectionError, APIStatusError)):
            assert 1 == len(error.attempts)
        assert set() == await left_behind(before, server)
        assert 0 == limiter.stats().in_flight


@pytest.mark.parametrize("case", BROKEN, ids=str)
async def test_stream_broken(case: Case):
    """
    A stream that did not end well raises what happened, with everything that had arrived, and leaves nothing behind.
    """
    await play(case)


@pytest.mark.filterwarnings("ignore:.*without a finish_reason")
@pytest.mark.parametrize("case", TOLERATED, ids=str)
async def test_stream_odd_but_whole(case: Case):
    """What real servers and relays do differently costs nobody their answer."""
    await play(case)


@pytest.mark.parametrize("case", NOT_STREAMED, ids=str)
async def test_create_reply(case: Case):
    """
    A reply that is not streamed is a completion, or a typed error; the call is repeated where that may help.
    """
    await play(case)
