"""
What is left of loops, processes and keys that are gone, and what a limit must never do.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from kimi_async import AsyncKimi, RateLimitReachedError, RateLimits, RequestTooCostlyError
from kimi_async.middleware.rate_limit.controller import AdmissionController
from kimi_async.middleware.stack import KEPT
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport import Request

JSON = {"content-type": "application/json"}
WHOLE = (
    b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
)
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


async def good(_: Request) -> Reply:
    return Reply(200, JSON, WHOLE)


def test_slot_of_a_dead_loop_is_free_again():
    """
    A lease that was open when its loop ended does not keep the next loop waiting.
    """
    controller = AdmissionController(RateLimits(concurrency=1))

    async def take() -> None:
        await asyncio.wait_for(controller.acquire(), 1)

    asyncio.run(take())
    asyncio.run(take())

    assert 1 == controller.stats().in_flight


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_slot_of_a_parent_process_is_not_the_childs():
    """
    A forked child has the parent's knowledge of the limits, and none of its leases, nor its lock.
    """
    controller = AdmissionController(RateLimits(concurrency=1))

    async def take() -> None:
        await asyncio.wait_for(controller.acquire(), 5)

    asyncio.run(take())
    with controller._lock:
        child = os.fork()
        if not child:
            code = 1
            try:
                asyncio.run(take())
                code = 0
            finally:
                os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def test_keys_of_the_past_are_forgotten():
    """
    A service with a key for each user does not keep the limits of all of them for ever.
    """
    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(good)) as client:
        for number in range(3 * KEPT):
            await client.with_options(api_key=f"sk-{number:06}").chat.completions.create(
                model="kimi-k3", messages=MESSAGES
            )

        assert len(client._stack._limiters) <= KEPT
        assert len(client._stack._handlers) <= KEPT


async def test_told_limit_does_not_lock_the_client_for_good():
    """
    The model's default budget is our guess: a told limit below it refuses no later call.
    """
    refusal = {
        "error": {
            "message": "request reached organization TPM rate limit, current: 9000, limit: 10000",
            "type": "rate_limit_reached_error",
        }
    }
    replies = iter([Reply(429, JSON, json.dumps(refusal))])

    async def answer(request: Request) -> Reply:
        return next(replies, None) or await good(request)

    async with AsyncKimi(api_key="sk-test", max_retries=0, transport=MemoryTransport(answer)) as client:
        with pytest.raises(RateLimitReachedError):
            await client.chat.completions.create(model="kimi-k3", messages=MESSAGES)
        for _ in range(3):
            await client.chat.completions.create(model="kimi-k3", messages=MESSAGES)

        with pytest.raises(RequestTooCostlyError):  # a budget that the caller named is no guess
            await client.chat.completions.create(
                model="kimi-k3", messages=MESSAGES, max_completion_tokens=20_000
            )


async def test_limit_error_inside_a_stream_teaches_the_limiter():
    """
    A refusal under status 200 names the limit as one of status 429 does.
    """
    refusal = {
        "error": {
            "message": "request reached organization max concurrency: 7, please try again after 1 seconds",
            "type": "rate_limit_reached_error",
        }
    }

    async def answer(_: Request) -> Reply:
        return Reply(200, {"content-type": "text/event-stream"}, f"data: {json.dumps(refusal)}\n\n")

    async with AsyncKimi(api_key="sk-test", max_retries=0, transport=MemoryTransport(answer)) as client:
        with pytest.raises(RateLimitReachedError):
            await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, stream=True)

        assert 7 == client.limiter.stats().concurrency.limit
        assert 0 == client.limiter.stats().in_flight
