"""
`python -m benchmarks.limits.cost`: what the limiter itself costs, in CPU of this process, on a real loop.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from kimi_async.middleware.rate_limit.controller import AdmissionController
from kimi_async.middleware.rate_limit.limits import RateLimits

__all__ = ["main"]


async def _free(limits: RateLimits) -> tuple[float, float]:
    """Microseconds of an `acquire` that need not wait, and of it with `admitted` and `release`."""
    limiter = AdmissionController(limits)
    best = alone = 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(500):
            lease = await limiter.acquire()
            lease.admitted()
            lease.release()
        best = min(best, (time.perf_counter() - began) / 500)
        leases: list[Any] = []
        began = time.perf_counter()
        for _ in range(500):
            leases.append(await limiter.acquire())
        alone = min(alone, (time.perf_counter() - began) / 500)
        for lease in leases:
            lease.admitted()
            lease.release()
    return alone * 1e6, best * 1e6


async def _waiting(semaphore: bool) -> float:
    """
    Microseconds a grant with 10,000 waiters and a thousand grants a second: slots held for a tenth of a second, timers, tasks and
    the loop included; the same with a bare `asyncio.Semaphore` for what of it is the loop's.
    """
    loop = asyncio.get_running_loop()
    limiter = AdmissionController(RateLimits(concurrency=100))
    bare = asyncio.Semaphore(100)
    grants = 0

    async def caller() -> None:
        nonlocal grants
        if semaphore:
            await bare.acquire()
            loop.call_later(0.1, bare.release)
        else:
            lease = await limiter.acquire()
            lease.admitted()
            loop.call_later(0.1, lease.release)
        grants += 1

    tasks = [asyncio.create_task(caller()) for _ in range(10_000)]
    await asyncio.sleep(0.5)
    began, before = time.process_time(), grants
    await asyncio.sleep(3)
    spent = (time.process_time() - began) / (grants - before)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return spent * 1e6


async def _blocked() -> float:
    """Per cent of a core that 10,000 callers cost who wait for one slot."""
    limiter = AdmissionController(RateLimits(concurrency=1))
    held = await limiter.acquire()
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(10_000)]
    await asyncio.sleep(0.5)
    began = time.process_time()
    await asyncio.sleep(1)
    spent = time.process_time() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    held.release()
    return spent * 100


def main() -> None:
    known = RateLimits(concurrency=1_000, rpm=10**6, tpm=10**10)
    for name, limits in (("one limit", RateLimits(concurrency=1_000)), ("all limits", known)):
        alone, cycle = asyncio.run(_free(limits))
        print(f"acquire, {name}: {alone:.1f} µs; with admitted and release {cycle:.1f} µs")
    bare, ours = asyncio.run(_waiting(True)), asyncio.run(_waiting(False))
    print(f"a grant among 10,000 waiters: {ours:.1f} µs, of which {bare:.1f} are loop, timer and task")
    print(f"10,000 who wait: {asyncio.run(_blocked()):.2f} % of a core")


if __name__ == "__main__":
    main()
