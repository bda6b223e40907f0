"""
What is left of loops, processes and keys that are gone, and what a limit must never do.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import weakref
from functools import partial
from typing import Any

import pytest

from kimi_async import AsyncKimi, RateLimitReachedError, RateLimits, RequestTooCostlyError
from kimi_async.middleware.rate_limit.controller import LOOK, AdmissionController, Lease
from kimi_async.middleware.stack import KEPT
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.testing.clock import VirtualClockLoop
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


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_slot_of_a_loop_that_was_dropped_is_free_again():
    """
    A loop that nobody closed, and nobody holds, has no slots: neither for the next loop nor for its waiters.
    """
    controller = AdmissionController(RateLimits(concurrency=1))

    async def take() -> None:
        await controller.acquire()
        waiting = asyncio.ensure_future(controller.acquire())
        await asyncio.sleep(0)
        del waiting

    for _ in range(3):
        loop = asyncio.SelectorEventLoop()
        loop.run_until_complete(take())
        del loop
        gc.collect()
        assert 0 == controller.stats().waiting

    async def take_at_once() -> Lease | None:
        return controller.try_acquire()

    assert asyncio.run(take_at_once()) is not None


def hold_slot_elsewhere(controller: AdmissionController, loop: asyncio.AbstractEventLoop) -> None:
    """
    Takes a slot on a loop of an earlier thread, which has ended.
    """
    thread = threading.Thread(target=loop.run_until_complete, args=(controller.acquire(),))
    thread.start()
    thread.join()


@pytest.mark.parametrize("ended", [True, False], ids=["thread ended", "this thread"])
def test_slot_of_a_loop_that_cannot_run_is_free_for_whoever_waits(ended: bool):
    """
    A loop that is still held, or that nothing ever collects (uvloop's), gives nothing back if its thread has ended, or is busy with
    the loop that waits.
    """
    controller = AdmissionController(RateLimits(concurrency=1))
    kept = asyncio.SelectorEventLoop()
    if ended:
        hold_slot_elsewhere(controller, kept)
    else:
        kept.run_until_complete(controller.acquire())
    clock = VirtualClockLoop()
    clock.run_until_complete(asyncio.wait_for(controller.acquire(), 2 * LOOK))

    assert 1 == controller.stats().in_flight
    kept.close()
    clock.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_loop_of_a_living_thread_is_searched_for():
    """
    The collector is sent for it, since a program that only waits gives it no work; a loop that is held keeps its slot.
    """
    controller = AdmissionController(RateLimits(concurrency=2))
    done, over = threading.Event(), threading.Event()
    kept = asyncio.SelectorEventLoop()

    def elsewhere() -> None:
        for loop in (kept, asyncio.SelectorEventLoop()):
            loop.run_until_complete(controller.acquire())
        del loop
        done.set()
        over.wait(10)

    thread = threading.Thread(target=elsewhere)
    gc.disable()
    try:
        thread.start()
        assert done.wait(10)
        clock = VirtualClockLoop()
        clock.run_until_complete(asyncio.wait_for(controller.acquire(), 2 * LOOK))
        with pytest.raises(TimeoutError):
            clock.run_until_complete(asyncio.wait_for(controller.acquire(), 5 * LOOK))
        clock.close()
    finally:
        gc.enable()
        over.set()
        thread.join()
        kept.close()


def tokens_by(controller: AdmissionController) -> int:
    return controller.limits.concurrency or 0


async def test_limiter_that_was_let_go_of_is_collected_though_its_loop_runs_on():
    """
    Those who once waited hold nothing of it.
    """
    controller = AdmissionController(RateLimits(concurrency=1))
    lease = await controller.acquire()
    waiting = asyncio.ensure_future(controller.acquire(deadline=asyncio.get_running_loop().time() + 60))
    late = asyncio.ensure_future(controller.acquire(partial(tokens_by, controller)))
    await asyncio.sleep(0)
    lease.release()
    (await waiting).release()
    (await late).release()
    gone = weakref.ref(controller)
    del controller, lease, waiting, late
    await asyncio.sleep(0)  # asyncio itself holds the task that has just ended
    gc.collect()

    assert gone() is None


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
