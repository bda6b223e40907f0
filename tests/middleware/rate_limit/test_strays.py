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


async def test_call_refused_again_and_again_waits_no_longer_than_it_is_asked_to():
    """
    While others get through, a server that asks for a second is asked again after about a second, the tenth time as well.
    """
    loop = asyncio.get_running_loop()
    unlucky: list[float] = []

    async def answer(request: Request) -> Reply:
        await asyncio.sleep(0.01)
        if request.headers.get("x-unlucky") and len(unlucky) < 10:
            unlucky.append(loop.time())
            return Reply(429, {**JSON, "retry-after": "1"}, b'{"error":{"message":"no"}}')
        return Reply(200, JSON, WHOLE)

    async with AsyncKimi(
        api_key="sk-test", base_url="https://gateway.example.com/v1", transport=MemoryTransport(answer)
    ) as client:

        async def others() -> None:
            while True:
                await client.chat.completions.create(model="m", messages=MESSAGES)
                await asyncio.sleep(0.1)

        beside = asyncio.ensure_future(others())
        await client.with_options(max_retries=2).chat.completions.create(
            model="m", messages=MESSAGES, extra_headers={"x-unlucky": "yes"}
        )
        beside.cancel()

    assert 10 == len(unlucky)
    assert unlucky[-1] - unlucky[0] <= 9 * 1.3
