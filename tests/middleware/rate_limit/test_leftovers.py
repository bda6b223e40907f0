"""
What is left of loops, processes and keys that are gone, and what a limit must never do.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
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


def kept(client: AsyncKimi) -> int:
    return len(client._stack._recent) + len(client._stack._earlier)


async def ask(client: AsyncKimi, key: str) -> None:
    await client.with_options(api_key=key).chat.completions.create(model="kimi-k3", messages=MESSAGES)


@pytest.mark.parametrize("given", [False, True])
async def test_keys_of_the_past_are_forgotten(given: bool):
    """
    A service with a key for each user does not keep what it knows of all of them for ever, be the limiter its own or not.
    """
    limiter = AdmissionController() if given else None
    async with AsyncKimi(api_key="sk-test", limiter=limiter, transport=MemoryTransport(good)) as client:
        for number in range(3 * KEPT):
            await ask(client, f"sk-{number:06}")

        assert kept(client) <= KEPT


async def test_key_in_use_is_kept_while_others_are_forgotten():
    """
    What was learnt of an organisation that is used again and again stays, however many others come and go.
    """
    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(good)) as client:
        busy = client.with_options(api_key="sk-busy")
        limiter = busy.limiter
        for number in range(3 * KEPT):
            await ask(client, f"sk-{number:06}")
            if number % 50 == 0:
                await ask(client, "sk-busy")

        assert busy.limiter is limiter


async def test_key_with_a_call_under_way_is_never_forgotten():
    """
    Hundreds of users at once have as many limiters, each with its own call, and are forgotten when those have ended.
    """
    gate = asyncio.Barrier(2 * KEPT)

    async def slow(request: Request) -> Reply:
        if not all_there:
            await gate.wait()
            all_there.append(kept(client))
        return await good(request)

    all_there: list[int] = []
    users = 2 * KEPT
    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(slow)) as client:
        await asyncio.gather(*(ask(client, f"sk-{number:06}") for number in range(users)))
        for number in range(users, 3 * users):
            await ask(client, f"sk-{number:06}")

        assert users == all_there[0]
        assert kept(client) <= users


def test_slot_of_a_dead_loop_is_free_for_whoever_waits_in_another_thread():
    """
    A loop that ends with a slot in its hands tells nobody; those who wait elsewhere find out.
    """
    controller = AdmissionController(RateLimits(concurrency=1))
    taken, queued = threading.Event(), threading.Event()

    def other() -> None:
        async def take() -> None:
            await controller.acquire()
            taken.set()
            await asyncio.to_thread(queued.wait, 5)

        asyncio.run(take())

    thread = threading.Thread(target=other)
    thread.start()
    assert taken.wait(5)

    async def wait() -> None:
        waiting = asyncio.ensure_future(controller.acquire())
        await asyncio.sleep(0)
        assert 1 == controller.stats().waiting
        queued.set()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(wait())
    thread.join()


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


CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}\n\n'


@pytest.mark.parametrize("parts", [[], [CHUNK], [CHUNK, CHUNK]], ids=["first", "second", "later"])
@pytest.mark.parametrize("joined", [True, False], ids=["one packet", "packet by packet"])
async def test_limit_error_inside_a_stream_teaches_the_limiter(parts: list[bytes], joined: bool):
    """
    A refusal under status 200 names the limit as one of status 429 does, be it the first event or a later one.
    """
    refusal = {
        "error": {
            "message": "request reached organization max concurrency: 7, please try again after 1 seconds",
            "type": "rate_limit_reached_error",
        }
    }
    packets = [*parts, f"data: {json.dumps(refusal)}\n\n".encode()]

    async def answer(_: Request) -> Reply:
        return Reply(200, {"content-type": "text/event-stream"}, b"".join(packets) if joined else packets)

    async with AsyncKimi(api_key="sk-test", max_retries=0, transport=MemoryTransport(answer)) as client:
        with pytest.raises(RateLimitReachedError):
            async for _ in await client.chat.completions.create(
                model="kimi-k3", messages=MESSAGES, stream=True
            ):
                pass

        known = client.limiter.stats()
        assert (7, 0, 1) == (known.concurrency.limit, known.in_flight, known.refused)
