"""
    python -m benchmarks.shared kill --redis | --host | --alone    eight processes, one killed every ten seconds
    python -m benchmarks.shared kill --redis --outage 70            … the server away for ten seconds, and empty after it
    python -m benchmarks.shared slots --redis | --host              how soon a killed process's slots are another's
    python -m benchmarks.shared cost --redis | --host               processor time of a lease and of a message
    python -m benchmarks.shared draw RESULT.json … > goodput.svg    the picture of several `kill` runs

Figures go to standard output as JSON, with the bounds that were met or not. Times are real: `kill` takes two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.shared.draw import draw
from kimi_async.testing import ServerLedger

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.redis_server import RedisServer

RPM, ANSWER, TIER = 300, 2.0, "tier5"
COMPLETION = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "kimi-k3",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}

WORKER = """
import asyncio, os, sys
from kimi_async import AsyncKimi, KimiError

async def main(base_url, shared, crowd, ahead):
    shift = float(ahead)
    if shift:
        import time
        real = time.time
        time.time = lambda: real() + shift  # nothing of a quota may depend on a member's wall clock
    client = AsyncKimi(api_key="sk-bench", base_url=base_url, limits="tier5" if shared else None, shared=shared or False,
                       quota="bench", max_retries=50)
    client = client.with_options(default_headers={"x-member": str(os.getpid())})
    async def caller():
        while True:
            try:
                await client.chat.completions.create(model="kimi-k3", messages=[{"role": "user", "content": "x"}],
                                                     max_completion_tokens=16)
            except KimiError as error:
                print(type(error).__name__, error, file=sys.stderr)
                await asyncio.sleep(1)
    async with asyncio.TaskGroup() as group:
        for _ in range(int(crowd)):
            group.create_task(caller())

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def kimi(ledger: ServerLedger) -> AsyncIterator[tuple[str, Counter[str]]]:
    """A server with limits whose answers take two seconds."""
    loop = asyncio.get_running_loop()
    by_member: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        permit = ledger.admit(loop.time(), 0)
        if permit.refusal is not None:
            refusal = permit.refusal
            error = {"error": {"message": refusal.message, "type": refusal.type}}
            return web.json_response(error, status=refusal.status, headers=dict(refusal.headers))
        by_member[request.headers.get("x-member", "")] += 1
        try:
            await asyncio.sleep(ANSWER)
        finally:
            permit.release()
        return web.json_response(COMPLETION)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/v1", by_member
    finally:
        await runner.cleanup()


async def worker(base_url: str, shared: str, crowd: int, ahead: float) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, base_url, shared, str(crowd), str(ahead)
    )


async def kill(shared: str, server: RedisServer | None, options: argparse.Namespace) -> dict[str, Any]:
    ledger = ServerLedger(TIER)
    loop = asyncio.get_running_loop()
    async with kimi(ledger) as (base_url, by_member):
        ahead = iter([3600.0 * n * (-1) ** n if options.outage else 0.0 for n in range(200)])
        alive = [await worker(base_url, shared, options.crowd, next(ahead)) for _ in range(options.processes)]
        while not ledger.admitted:  # noqa: ASYNC110 (the server counts and tells nobody)
            await asyncio.sleep(0.05)
        began = loop.time()
        kills = 0
        for second in range(1, options.seconds + 1):
            await asyncio.sleep(max(0.0, began + second - loop.time()))
            if options.every and second % options.every == 0 and second < options.seconds - 2:
                victim = alive.pop(0)
                victim.kill()
                await victim.wait()
                kills += 1
                alive.append(await worker(base_url, shared, options.crowd, next(ahead)))
            if server is not None and options.outage:
                if second == options.outage:
                    server.kill()
                if second == options.outage + 10:
                    server.start()
        for process in alive:
            process.kill()
            await process.wait()
    first = min(at for at, kind in ledger.log if not kind)
    minutes = options.seconds // 60
    admitted = sum(1 for at, kind in ledger.log if not kind and at < first + 60.0 * minutes)
    refused = sum(ledger.rejected.values())
    arrivals = sorted(at for at, _ in ledger.log)
    most = max(sum(1 for other in arrivals[i:] if other < at + 60.0) for i, at in enumerate(arrivals))
    shares = [float(n) for n in by_member.values()]
    result = {
        "what": "alone" if not shared else shared.partition(":")[0],
        "seconds": options.seconds,
        "kills": kills,
        "outage": options.outage,
        "admitted": ledger.admitted,
        "refused": refused,
        "goodput": round(admitted / (RPM * minutes), 4),
        "refused_per_success": round(refused / max(1, ledger.admitted), 4),
        "most_in_a_minute": most,
        "by_second": [
            sum(1 for at, kind in ledger.log if not kind and first + s <= at < first + s + 1)
            for s in range(options.seconds)
        ],
    }
    if not kills:
        result["jain"] = round(sum(shares) ** 2 / (len(shares) * sum(n * n for n in shares)), 4)
    if shared:
        result["met"] = result["goodput"] >= 0.98 and result["refused_per_success"] <= 0.005  # type: ignore[operator]
    return result


HOLDER = """
import asyncio, sys
from kimi_async.middleware.rate_limit.shared import Ask, SharedQuota

async def main(shared):
    engine = SharedQuota(shared, "slots", limits="tier5").engine()
    held = 0
    while held < 100:
        held += len(await engine.lease([Ask() for _ in range(100 - held)]))
    print("held", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1]))
"""


async def slots(shared: str) -> dict[str, Any]:
    from kimi_async.middleware.rate_limit.limits import RateLimits
    from kimi_async.middleware.rate_limit.shared import Ask, SharedQuota

    took: list[float] = []
    quota = SharedQuota(shared, "slots", limits=RateLimits(concurrency=100))
    engine = quota.engine()
    for _ in range(3):
        code = HOLDER.replace('limits="tier5"', "limits=__import__('kimi_async').RateLimits(concurrency=100)")
        holder = await asyncio.create_subprocess_exec(sys.executable, "-c", code, shared, stdout=-1)
        assert holder.stdout is not None
        await holder.stdout.readline()
        assert not await engine.lease([Ask()], wait=False)
        holder.kill()
        await holder.wait()
        began = time.perf_counter()
        leases: list[int] = []
        while len(leases) < 100:
            leases += [grant.lease for grant in await engine.lease([Ask() for _ in range(100 - len(leases))])]
        took.append(round(time.perf_counter() - began, 3))
        engine.release(leases, sent=True)
    await quota.aclose()
    bound = 0.2 if shared == "host" else 4.0
    return {"what": shared.partition(":")[0], "slots_back_after": took, "met": max(took) <= bound}


async def cost(shared: str, server: RedisServer | None) -> dict[str, Any]:
    from kimi_async.middleware.rate_limit.limits import RateLimits
    from kimi_async.middleware.rate_limit.shared import Ask, SharedQuota

    result: dict[str, Any] = {"what": shared.partition(":")[0]}
    for at_once in (1, 25):
        quota = SharedQuota(shared, f"cost{at_once}", limits=RateLimits(concurrency=1000, rpm=1_000_000))
        engine = quota.engine()
        rounds = 2_000 // at_once
        messages = engine._seq  # type: ignore[attr-defined]
        cpu, server_cpu, wall = time.process_time(), server.cpu() if server else 0.0, time.perf_counter()
        for _ in range(rounds):
            leases: list[int] = []
            while len(leases) < at_once:
                grants = await engine.lease([Ask(100) for _ in range(at_once - len(leases))])
                leases += [grant.lease for grant in grants]
            engine.release(leases, sent=True)
        leased = rounds * at_once
        told = engine._seq - messages  # type: ignore[attr-defined]
        result[f"client_us_a_lease_{at_once}"] = round((time.process_time() - cpu) * 1e6 / leased, 1)
        result[f"ms_a_round_{at_once}"] = round((time.perf_counter() - wall) * 1e3 / rounds, 3)
        if server is not None:
            result[f"server_us_a_message_{at_once}"] = round((server.cpu() - server_cpu) * 1e6 / told, 1)
        await quota.aclose()
    if server is not None:
        result["met"] = result["client_us_a_lease_25"] <= 100 and result["server_us_a_message_25"] <= 300
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kill", "slots", "cost", "draw"])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--redis", nargs="?", const="", help="an address; without one, a server of its own")
    parser.add_argument("--host", action="store_true")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--seconds", type=int, default=125)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--outage", type=int, default=0, help="when the server is killed, for ten seconds")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--crowd", type=int, default=25)
    options = parser.parse_args()
    if options.what == "draw":
        sys.stdout.write(draw([json.loads(Path(name).read_text()) for name in options.files]))
        return
    server: RedisServer | None = None
    shared = "host" if options.host else ""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KIMI_SHARED_DIR"] = folder
        if options.redis is not None:
            shared = options.redis
            if not shared:
                server = RedisServer()
                server.start()
                shared = server.url
        try:
            if options.what == "kill":
                result = asyncio.run(kill(shared, server, options))
            elif options.what == "slots":
                result = asyncio.run(slots(shared))
            else:
                result = asyncio.run(cost(shared, server))
        finally:
            if server is not None:
                server.kill()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
