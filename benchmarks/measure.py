"""
Clocks, memory and the few statistics that the benchmarks use.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

__all__ = [
    "Cost",
    "cost_of",
    "percentile",
    "pin",
    "raise_descriptor_limit",
    "resident",
    "settle_memory",
    "spread",
]


class Cost:
    """CPU and wall seconds of this process between entering and leaving; the CPU of all its threads counts."""

    cpu: float
    wall: float

    def __enter__(self) -> Cost:
        gc.collect()  # the garbage of the warm-up is not this run's
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.cpu = time.process_time() - self._cpu
        self.wall = time.perf_counter() - self._wall


async def cost_of(
    act: Callable[[], Awaitable[object]], *, seconds: float, at_most: int = 10_000
) -> tuple[Cost, int]:
    """Repeats `act` until `seconds` have passed, at least once; its cost and how often it ran."""
    times = 0
    with Cost() as cost:
        end = time.perf_counter() + seconds
        while True:
            await act()
            times += 1
            if times >= at_most or time.perf_counter() >= end:
                break
    return cost, times


def percentile(values: Sequence[float], share: float) -> float:
    """
    The nearest-rank percentile: the smallest value that at least `share` (0…1) of all values do not exceed.

    ValueError where there are no values.
    """
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[int(rank) - 1]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def resident() -> int:
    """Bytes of memory that are resident now; where the system cannot say, the most that ever were."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def pin(core: int | None) -> None:
    """Stays on one core, where the system allows."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def settle_memory() -> None:
    """
    Has the process free one large piece of memory, as any program has that has run for a while.

    glibc maps each piece of 128 KiB and more anew until one as large was freed. asyncio asks for 256 KiB at each read: without this
    each read of a client that leaves that as it is costs 16 µs more, or not, by luck.
    """
    bytes(4 << 20)


def raise_descriptor_limit() -> int:
    """As many open sockets as the system allows without asking; that number."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
