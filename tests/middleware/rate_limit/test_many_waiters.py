"""
Fifty thousand who wait at once.
"""

from __future__ import annotations

import asyncio

import pytest

from kimi_async import RateLimits, RateLimitWaitError
from kimi_async.middleware.rate_limit.controller import AdmissionController

pytestmark = pytest.mark.virtual_clock

MANY = 50_000


async def test_waiters_fifty_thousand_go_in_order_less_the_cancelled_and_the_late():
    """
    Each is granted, cancelled or told that its time is over, once; the others move up, and nothing is left behind.
    """
    loop = asyncio.get_running_loop()
    controller = AdmissionController(RateLimits(concurrency=1))
    first = await controller.acquire()
    granted: list[int] = []
    late: list[int] = []

    async def wait(number: int) -> None:
        try:
            lease = await controller.acquire(deadline=loop.time() + 1.0 if number % 11 == 0 else None)
        except RateLimitWaitError:
            late.append(number)
        else:
            granted.append(number)
            lease.release()

    tasks = [asyncio.ensure_future(wait(number)) for number in range(MANY)]
    await asyncio.sleep(0.5)
    for task in tasks[::7]:
        task.cancel()
    await asyncio.sleep(1.0)
    waiting = controller.stats().waiting
    first.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    known = controller.stats()

    assert [number for number in range(0, MANY, 11) if number % 7] == late
    assert [number for number in range(MANY) if number % 7 and number % 11] == granted
    assert len(granted) == waiting
    assert (0, 0) == (known.waiting, known.in_flight)
