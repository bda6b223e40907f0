"""
A crowd that comes at once, and a server that refuses some of it by accident. In virtual time.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport import Request

JSON = {"content-type": "application/json"}
WHOLE = (
    b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
)
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


pytestmark = pytest.mark.virtual_clock


class Accidents:
    """Refuses a share of the requests by chance, long before it answers the others."""

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self.dice = random.Random(seed)

    async def __call__(self, _: Request) -> Reply:
        await asyncio.sleep(0.01)
        if self.dice.random() < self.share:
            return Reply(429, {**JSON, "retry-after": "1"}, b'{"error":{"message":"no"}}')
        await asyncio.sleep(0.2)
        return Reply(200, JSON, WHOLE)


# These learnt a limit of one to nineteen requests a minute from the first ten milliseconds, in which only refusals come, and took
# a minute to twenty for their forty calls.
@pytest.mark.parametrize(("share", "seed"), [(0.3, 101), (0.5, 106), (0.5, 122), (0.5, 4)])
async def test_crowd_refused_by_accident_before_anybody_was_answered_learns_no_limit(share: float, seed: int):
    """
    Refusals overtake answers: those that are under way count neither for a limit nor against it.
    """
    loop = asyncio.get_running_loop()
    transport = MemoryTransport(Accidents(share, seed))
    async with AsyncKimi(
        api_key="sk-test", base_url="https://gateway.example.com/v1", max_retries=4, transport=transport
    ) as client:
        await asyncio.gather(
            *(client.chat.completions.create(model="m", messages=MESSAGES) for _ in range(40))
        )
        known = client.limiter.stats()

    assert known.rpm.limit is None
    assert loop.time() < 20


@pytest.mark.parametrize("status", [429, 503])
async def test_call_refused_again_and_again_waits_as_long_as_it_is_asked_to(status: int):
    """
    While others get through, a server that asks for a second is asked again after about a second, the tenth time as well.
    """
    loop = asyncio.get_running_loop()
    unlucky: list[float] = []

    async def answer(request: Request) -> Reply:
        await asyncio.sleep(0.01)
        if request.headers.get("x-unlucky") and len(unlucky) < 10:
            unlucky.append(loop.time())
            return Reply(status, {**JSON, "retry-after": "1"}, b'{"error":{"message":"no"}}')
        await asyncio.sleep(0.2)
        return Reply(200, JSON, WHOLE)

    async with AsyncKimi(
        api_key="sk-test", base_url="https://gateway.example.com/v1", transport=MemoryTransport(answer)
    ) as client:

        async def others() -> None:
            while True:
                await client.chat.completions.create(model="m", messages=MESSAGES)

        beside = asyncio.ensure_future(others())
        await asyncio.sleep(1.0)
        await client.with_options(max_retries=2).chat.completions.create(
            model="m", messages=MESSAGES, extra_headers={"x-unlucky": "yes"}
        )
        beside.cancel()

    assert 10 == len(unlucky)
    # Three 429s in a row may be a limit of slots, and for one of those nobody waits longer than for a slot.
    assert 9.0 - (status == 429) <= unlucky[-1] - unlucky[0] <= 9 * 1.3


class Slots:
    """Refuses whoever comes while all slots are taken, and names neither a limit nor a number."""

    def __init__(self, slots: int, takes: float, headers: dict[str, str]) -> None:
        self.slots = slots
        self.takes = takes
        self.headers = JSON | headers
        self.held = 0

    async def __call__(self, _: Request) -> Reply:
        await asyncio.sleep(0.002)
        if self.held >= self.slots:
            return Reply(429, self.headers, b'{"error":{"message":"no"}}')
        self.held += 1
        await asyncio.sleep(self.takes)
        self.held -= 1
        return Reply(200, JSON, WHOLE)


@pytest.mark.parametrize("headers", [{}, {"retry-after": "1"}])
async def test_crowd_before_slots_that_no_text_names_keeps_them_full(headers: dict[str, str]):
    """
    A hundred calls through five slots take hardly longer than ten seconds, and the number is found.
    """
    loop = asyncio.get_running_loop()
    async with AsyncKimi(
        api_key="sk-test", max_retries=4, transport=MemoryTransport(Slots(5, 0.5, headers))
    ) as client:
        await asyncio.gather(
            *(client.chat.completions.create(model="m", messages=MESSAGES) for _ in range(100))
        )
        known = client.limiter.stats()

    assert 5 == known.concurrency.limit
    assert loop.time() < 11


# Each of these learnt a limit from accidents and kept it: a fifteenth to a half of what fits got through.
@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("seed", [23, 103, 108, 110])
async def test_limit_learnt_from_accidents_does_not_last(share: float, seed: int):
    """
    Where as many are refused below a limit that was guessed as above, it is given up.
    """
    answered = 0
    async with AsyncKimi(
        api_key="sk-test", max_retries=8, transport=MemoryTransport(Accidents(share, seed))
    ) as client:

        async def caller() -> None:
            nonlocal answered
            while True:
                await client.chat.completions.create(model="m", messages=MESSAGES)
                answered += 1

        callers = [asyncio.ensure_future(caller()) for _ in range(16)]
        await asyncio.sleep(20)
        for each in callers:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    # A call takes 0.21 s, and those that are refused wait for a second and some more before they come again.
    assert answered > 0.8 * 16 * 20 / (0.21 + share / (1 - share) * 1.14)
