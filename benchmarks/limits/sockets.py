"""
The same on real sockets: 300 calls of 0.2 s into ten slots, and a 20 s storm under 200 calls, beside `AsyncOpenAI`.

The server is a process of its own, so that a client's CPU does not slow its counterpart.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.runner import serving
from kimi_async.testing.simulator.server_limits import ServerLedger, ServerLimits, Storm

__all__ = ["compare", "serve"]

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_784_131_200,
    "model": "kimi-k3",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


async def serve(slots: int, takes: float, storm: float) -> None:
    """
    Prints its port; answers until its standard input ends.
    """
    from aiohttp import web

    loop = asyncio.get_running_loop()
    ledger: ServerLedger | None = None
    requests = 0

    async def chat(request: web.Request) -> web.Response:
        nonlocal ledger, requests
        await request.read()
        now = loop.time()
        if ledger is None:
            storms = [Storm(now, now + storm, 1.0, 0.5)] if storm else []
            ledger = ServerLedger(ServerLimits(slots), storms=storms)
        requests += 1
        permit = ledger.admit(now)
        try:
            if permit.refusal is not None:
                await asyncio.sleep(permit.delay)
                body = {"error": {"message": permit.refusal.message, "type": permit.refusal.type}}
                return web.json_response(
                    body, status=permit.refusal.status, headers=dict(permit.refusal.headers)
                )
            await asyncio.sleep(takes)
            return web.json_response(ANSWER)
        finally:
            permit.release()

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": requests,
                "rejected": sum(ledger.rejected.values()) if ledger else 0,
                "peak": ledger.peak_in_flight if ledger else 0,
            }
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/counts", counts)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def _server(slots: int, takes: float, storm: float) -> AbstractContextManager[int]:
    return serving(
        "-c",
        f"import asyncio; from benchmarks.limits.sockets import serve; asyncio.run(serve({slots}, {takes}, {storm}))",
    )


async def _calls(client: Any, calls: int) -> int:
    lost: Counter[str] = Counter()

    async def call() -> bool:
        try:
            await client.chat.completions.create(
                model="kimi-k3", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=16
            )
        except Exception as error:  # whatever a client raises is a call lost
            lost[type(error).__name__] += 1
            return False
        return True

    succeeded = sum(await asyncio.gather(*[call() for _ in range(calls)]))
    if lost:
        print(f"  lost: {dict(lost)}", file=sys.stderr)
    return succeeded


def _clients(base: str, slots: int) -> dict[str, Any]:
    from kimi_async import AsyncKimi
    from kimi_async.middleware.rate_limit.limits import RateLimits

    makers: dict[str, Any] = {
        "kimi_async": lambda: AsyncKimi(api_key="sk-bench", base_url=f"{base}/v1", limits=RateLimits()),
        "kimi_async, configured": lambda: AsyncKimi(
            api_key="sk-bench", base_url=f"{base}/v1", limits=RateLimits(concurrency=slots)
        ),
    }
    try:
        from openai import AsyncOpenAI
    except ImportError:
        print("openai is not installed; left out")
    else:
        makers["AsyncOpenAI"] = lambda: AsyncOpenAI(api_key="sk-bench", base_url=f"{base}/v1")
        makers["AsyncOpenAI, 10 retries"] = lambda: AsyncOpenAI(
            api_key="sk-bench", base_url=f"{base}/v1", max_retries=10
        )
    return makers


def compare() -> list[str]:
    """
    Prints both tables; returns the goals missed.
    """
    missed: list[str] = []
    for title, slots, takes, storm, calls in (
        ("300 calls of 0.2 s, 10 slots, on sockets", 10, 0.2, 0.0, 300),
        ("200 calls, the first 20 s overloaded, on sockets", 100, 0.5, 20.0, 200),
    ):
        print(f"\n### {title}\n\n| | succeeded | s | refused | requests a call |\n|---|---|---|---|---|")
        for name in _clients("", slots):
            with _server(slots, takes, storm) as port:
                base = f"http://127.0.0.1:{port}"
                succeeded, took = asyncio.run(_run(base, name, slots, calls))
                with urllib.request.urlopen(f"{base}/counts") as reply:
                    counts = json.load(reply)
            each = counts["requests"] / calls
            print(
                f"| {name} | {succeeded}/{calls} | {took:.1f} | {counts['rejected']} | {each:.2f} |",
                flush=True,
            )
            if not name.startswith("kimi"):
                continue
            configured = name.endswith("configured")
            ideal = calls / slots * takes
            if succeeded < calls:
                missed.append(f"{title}: {name} {succeeded}/{calls}")
            if not storm and took > ideal * (1.08 if configured else 1.25):
                missed.append(f"{title}: {name} took {took:.1f} s of an ideal {ideal:.1f}")
            if not storm and counts["rejected"] > (0 if configured else 0.06 * calls):
                missed.append(f"{title}: {name} had {counts['rejected']} refused")
            if storm and each > 2.2:
                missed.append(f"{title}: {name} sent {each:.2f} a call")
    return missed


async def _run(base: str, name: str, slots: int, calls: int) -> tuple[int, float]:
    client = _clients(base, slots)[name]()
    began = time.perf_counter()
    succeeded = await _calls(client, calls)
    took = time.perf_counter() - began
    await client.close()
    return succeeded, took
