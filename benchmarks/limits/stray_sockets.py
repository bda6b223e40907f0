"""
The same on real sockets: `python -m benchmarks.limits.strays --sockets`, some five minutes.

One server in a process of its own, which refuses by chance. What takes long costs little, so those rows run at once, beside what
they are measured against; calls of 10 and 20 ms keep a core busy and run one after the other, ten seconds each, of which the first
wish for silence takes one.

*Open loop*: against the same client where nothing is refused, times (1 - p). *Closed loop*: against the same client with a limiter
that holds nobody back, so that each call comes again after the same waits. *Forty calls at once*: against `AsyncOpenAI`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.limits.sockets import ANSWER
from benchmarks.limits.strays import KINDS, Stray, Unheld
from benchmarks.runner import serving

__all__ = ["compare", "serve"]

MESSAGES = [{"role": "user", "content": "hi"}]
SLOW = [
    Stray(kind, share, slots, takes, True, True)
    for slots, takes, cases in (
        (8, 0.5, (("429", 0.2), ("429, Retry-After: 1", 0.05), ("429, Retry-After: 1", 0.3), ("overloaded", 0.2))),
        (64, 0.5, (("429", 0.05), ("429", 0.3), ("429, Retry-After: 1", 0.2), ("503", 0.2))),
        (64, 5.0, (("429, Retry-After: 1", 0.3), ("overloaded", 0.05))),
    )
    for kind, share in cases
] + [
    Stray(kind, share, 32, takes, given, False)
    for takes, cases in (
        (0.5, (("429", 0.05), ("429", 0.3), ("429, Retry-After: 1", 0.2), ("503", 0.2))),
        (3.0, (("429", 0.002), ("429, Retry-After: 1", 0.3), ("overloaded", 0.05), ("overloaded", 0.2))),
    )
    for kind, share in cases
    for given in (False, True)
]  # fmt: skip
QUICK = [
    Stray("429", 0.2, 8, 0.01, True, True),
    Stray("429, Retry-After: 1", 0.3, 8, 0.01, True, True),
    Stray("429", 0.002, 32, 0.02, True, False),
    Stray("429", 0.3, 32, 0.02, False, False),
    Stray("429, Retry-After: 1", 0.05, 32, 0.02, False, False),
    Stray("429, Retry-After: 1", 0.3, 32, 0.02, True, False),
    Stray("503", 0.01, 32, 0.02, False, False),
    Stray("overloaded", 0.2, 32, 0.02, False, False),
]


async def serve(seed: int) -> None:
    """
    Prints its port; answers until its standard input ends. The path says what is refused: kind, share, seconds of an answer.
    """
    from aiohttp import web

    dice = random.Random(seed)

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        status, headers, body = KINDS[list(KINDS)[int(request.match_info["kind"])]]
        if dice.random() < float(request.match_info["share"]):
            return web.Response(
                status=status, body=body, headers={"content-type": "application/json", **headers}
            )
        await asyncio.sleep(float(request.match_info["takes"]))
        return web.json_response(ANSWER)

    app = web.Application()
    app.router.add_post("/{kind}/{share}/{takes}/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def _url(base: str, kind: str, share: float, takes: float) -> str:
    return f"{base}/{list(KINDS).index(kind)}/{share}/{takes}/v1"


@contextlib.asynccontextmanager
async def _ours(url: str, limits: dict[str, int], *, held: bool = True) -> AsyncIterator[Any]:
    from kimi_async import AsyncKimi
    from kimi_async.middleware.rate_limit.limits import RateLimits

    # A server on loopback is held back by nothing unless it is told that limits are to be expected.
    how: dict[str, Any] = {"limits": RateLimits(**limits)} if held else {"limiter": Unheld()}
    async with AsyncKimi(api_key="sk-bench", base_url=url, max_retries=8, **how) as client:
        yield client


async def _ask(client: Any) -> bool:
    try:
        await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, max_completion_tokens=16)
    except Exception:  # whatever a client raises is a call lost
        return False
    return True


async def _served(base: str, stray: Stray, seconds: float, *, share: float, held: bool) -> tuple[float, int]:
    """Calls answered a second, and calls lost."""
    answered = lost = 0
    limits = {"concurrency": stray.slots} if stray.given or stray.opened else {}
    async with _ours(_url(base, stray.kind, share, stray.takes), limits, held=held) as client:

        async def caller() -> None:
            nonlocal answered, lost
            while True:
                if await _ask(client):
                    answered += 1
                else:
                    lost += 1

        tasks = [asyncio.ensure_future(caller()) for _ in range(20 * stray.slots if stray.opened else 32)]
        await asyncio.sleep(seconds)
        found = answered / seconds, lost
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def _measure(base: str, stray: Stray, seconds: float) -> tuple[float, int]:
    """Its share of what it is measured against, and calls lost. Both at once where that costs neither anything."""
    ours = _served(base, stray, seconds, share=stray.share, held=True)
    if stray.opened:
        other = _served(base, stray, seconds, share=0.0, held=True)
    else:
        other = _served(base, stray, seconds, share=stray.share, held=False)
    if stray.takes < 0.1:
        (served, lost), (against, _) = await ours, await other
    else:
        (served, lost), (against, _) = await asyncio.gather(ours, other)
    return served / (against * (1 - stray.share if stray.opened else 1.0)), lost


async def _forty(base: str, kind: str, *, openai: bool) -> tuple[float, int]:
    """Seconds for forty calls at once of which three in ten are refused, and calls lost."""
    loop = asyncio.get_running_loop()
    url = _url(base, kind, 0.3, 0.2)
    async with contextlib.AsyncExitStack() as stack:
        if openai:
            from openai import AsyncOpenAI

            client: Any = await stack.enter_async_context(
                AsyncOpenAI(api_key="sk-bench", base_url=url, max_retries=8)
            )
        else:
            client = await stack.enter_async_context(_ours(url, {}))
        began = loop.time()
        answered = sum(await asyncio.gather(*(_ask(client) for _ in range(40))))
        return loop.time() - began, 40 - answered


def _report(name: str, against: str, share: float, lost: int, bad: bool) -> int:
    print(f"| {name} | {against} | {share:.2f} | {lost} | {'MISSED' if bad else ''} |", flush=True)
    return bad


async def _compare(seed: int) -> int:
    missed = 0
    code = f"import asyncio; from benchmarks.limits.stray_sockets import serve; asyncio.run(serve({seed}))"
    with serving("-c", code) as port:
        base = f"http://127.0.0.1:{port}"
        print("| refusals | measured against | share of it | lost | |\n|---|---|---:|---:|---|")
        for stray in QUICK:
            missed += _row(stray, *await _measure(base, stray, 10.0))
        for opened in (
            True,
            False,
        ):  # apart: a thousand callers that begin at once take the loop for a second
            rows = [stray for stray in SLOW if stray.opened == opened]
            found = await asyncio.gather(*(_measure(base, row, max(20.0, 12 * row.takes)) for row in rows))
            for stray, (share, lost) in zip(rows, found, strict=True):
                missed += _row(stray, share, lost)
        for kind in KINDS:
            rounds = await asyncio.gather(*(_forty(base, kind, openai=False) for _ in range(9)))
            other = await asyncio.gather(*(_forty(base, kind, openai=True) for _ in range(9)))
            mine, theirs = (statistics.median(one[0] for one in runs) for runs in (rounds, other))
            lost = sum(one[1] for one in rounds)
            name = f"{kind} p=0.3, 40 calls of 0.2 s at once: {mine:.1f} s"
            missed += _report(
                name, f"AsyncOpenAI, {theirs:.1f} s", mine / theirs, lost, mine > 1.5 * theirs or lost > 0
            )
    return missed


def _row(stray: Stray, share: float, lost: int) -> int:
    against = "no refusals, times 1 - p" if stray.opened else "mere repetition"
    return _report(str(stray), against, share, lost, share < stray.bound)


def compare(seed: int) -> int:
    """Prints the tables; returns how many bounds were missed."""
    return asyncio.run(_compare(seed))
