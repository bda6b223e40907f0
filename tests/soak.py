"""
Thousands of streams with random faults, for a given time; then what is left of them.

    .venv/bin/python tests/soak.py --seconds 600 --at-once 50 --seed 1

Each call is a case of `fault_cases.py` drawn at random, and is now and then left early, cancelled or dropped. Every ten seconds a
line tells calls, memory, descriptors and tasks. The last line says what leaked; the exit status is 1 if anything did.

Memory must be flat: what is resident at the end within 5 % of what it was after the first fifth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import random
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import kimi_async.streaming.clocks
import kimi_async.streaming.reading
from kimi_async import AsyncKimi, KimiError, RetryPolicy, Timeout
from kimi_async.streaming.stream import AsyncStream
from kimi_async.transport.exchange import Request, Response
from support.fault_cases import CASES, Case
from support.raw_server import Conversation, RawServer

# Cases that need a client of their own, pause everybody who shares the limit (as they should), or send for ever.
LEFT_OUT = ("rate limit", "endless", "giant")
CHOSEN = [case for case in CASES if not case.options and not any(word in case.name for word in LEFT_OUT)]
BY_NAME = {case.name: case for case in CHOSEN}


def resident() -> float:
    """
    MiB in memory now, where the system says so; else the most there ever was.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def give_back() -> None:
    """
    Collects, and lets the C library return what it keeps for later, so that what is resident is what is held.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def descriptors() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return -1


def alive() -> Counter[str]:
    gc.collect()
    kinds = (AsyncStream, Response, Request)
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)


async def script(conversation: Conversation) -> None:
    while (asked := await conversation.request()) is not None:
        await BY_NAME[asked.json()["messages"][0]["content"]].answer(conversation)
        if conversation.writer.is_closing():
            return


async def one(client: AsyncKimi, case: Case, dice: random.Random, counts: Counter[str]) -> None:
    manner = dice.choice(["whole", "whole", "early", "cancelled", "dropped"])

    async def call() -> None:
        messages: list[Any] = [{"role": "user", "content": case.name}]
        answer: Any = await client.chat.completions.create(
            model="kimi-k3", messages=messages, stream=case.stream
        )
        if not case.stream:
            return
        if manner == "dropped":
            await anext(answer, None)
            return
        async with answer:
            async for _ in answer:
                if manner == "early":
                    break

    task = asyncio.ensure_future(call())
    if manner == "cancelled":
        asyncio.get_running_loop().call_later(dice.random() * 0.05, task.cancel)
    await asyncio.wait([task])
    if task.cancelled():
        counts["cancelled"] += 1
    elif (error := task.exception()) is None:
        counts["answered"] += 1
    elif isinstance(error, KimiError):
        counts[type(error).__name__] += 1
    else:
        raise error


async def main(seconds: float, at_once: int, seed: int) -> int:
    warnings.simplefilter("ignore", ResourceWarning)
    logging.disable(logging.CRITICAL)
    kimi_async.streaming.clocks.GRACE = kimi_async.streaming.reading.DRAIN = 0.05  # type: ignore[misc]
    dice = random.Random(seed)
    counts: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    fault: list[str] = []
    async with RawServer(script) as server:
        client = AsyncKimi(
            api_key="sk-test-0123456789abcdef",
            base_url=server.base_url,
            timeout=Timeout(connect=2, read=0.2, first_token=0.2, idle=0.1),
            max_retries=1,
            retry=RetryPolicy(base=0, cap=0, quota_cooldown=0, budget_patience=0, overload_threshold=10**9),
        )
        before = asyncio.all_tasks(), descriptors()

        async def worker() -> None:
            while time.monotonic() < ends:
                await one(client, dice.choice(CHOSEN), dice, counts)
                server.requests.clear()

        async def reporter() -> list[float]:
            seen: list[float] = []
            pause = max(0.5, min(10.0, seconds / 10))
            while time.monotonic() < ends:
                await asyncio.sleep(pause)
                give_back()
                seen.append(resident())
                print(
                    f"{seconds - max(0.0, ends - time.monotonic()):6.0f} s  {sum(counts.values()):8,} calls  {seen[-1]:7.1f} MiB  "
                    f"{descriptors():4} descriptors  {len(asyncio.all_tasks()):4} tasks  {server.connections:8,} connections opened",
                    flush=True,
                )
            return seen

        reporting = asyncio.ensure_future(reporter())
        await asyncio.gather(*(worker() for _ in range(at_once)))
        seen = await reporting
        in_flight = client.limiter.stats().in_flight
        await client.close()
        await server.quiet(10)
        await asyncio.sleep(0.1)
        if in_flight:
            fault.append(f"{in_flight} slots")
        if left := asyncio.all_tasks() - before[0] - server.open:
            fault.append(f"{len(left)} tasks: {list(left)[:3]}")
        if (more := descriptors() - before[1]) > 0:
            fault.append(f"{more} descriptors")
        client = None  # type: ignore[assignment]
    if kept := alive():
        fault.append(f"objects {dict(kept)}")
    early = seen[len(seen) // 5]
    if seen[-1] > early * 1.05:
        fault.append(f"memory {early:.1f} -> {seen[-1]:.1f} MiB")
    print(", ".join(f"{name} {count:,}" for name, count in counts.most_common()))
    print("leaked: " + ("; ".join(fault) if fault else "nothing"))
    return 1 if fault else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--at-once", type=int, default=50, help="calls at the same time (50)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.seconds, arguments.at_once, arguments.seed)))
