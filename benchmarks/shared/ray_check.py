"""
python -m benchmarks.shared.ray_check rows      4,096 rows whose answers take two seconds, beside a plain gather of the same client
python -m benchmarks.shared.ray_check quota     two actors, one quota of 300 requests a minute, 600 rows
python -m benchmarks.shared.ray_check journal   a job killed half way and started again
python -m benchmarks.shared.ray_check actor     the ledger's actor killed while two members work
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray
import ray.data

from benchmarks.shared.__main__ import kimi
from kimi_async import AsyncKimi, RateLimits
from kimi_async.integrations.ray import NAMESPACE, map_dataset
from kimi_async.testing import ServerLedger
from kimi_async.testing.simulator.server_limits import ServerLimits

ROWS = 4_096


class Server:
    """The server on a thread of its own, since Ray blocks."""

    def __init__(self, ledger: ServerLedger) -> None:
        self.ledger = ledger
        self.base_url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        async with kimi(self.ledger) as (self.base_url, _):
            self._ready.set()
            await self._done.wait()

    def __enter__(self) -> Server:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()


def begin() -> None:
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=4, object_store_memory=200 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False


def rows(count: int) -> Any:
    return ray.data.from_items([{"id": f"r{n}", "question": f"Q{n}", "kept": n} for n in range(count)])


def client(server: Server) -> dict[str, Any]:
    return {"api_key": "sk-bench", "base_url": server.base_url, "max_retries": 50}


async def gather(server: Server, count: int) -> float:
    times: list[tuple[float, float]] = []
    async with AsyncKimi(**client(server), limits=RateLimits(hold=False), shared=False) as kimi_client:

        async def one(n: int) -> None:
            began = time.time()
            await kimi_client.chat.completions.create(
                model="kimi-k3", messages=[{"role": "user", "content": f"Q{n}"}], max_completion_tokens=16
            )
            times.append((began, time.time()))

        await asyncio.gather(*(one(n) for n in range(count)))
    return max(end for _, end in times) - min(begin for begin, _ in times)


def check_rows() -> dict[str, Any]:
    with Server(ServerLedger(ServerLimits(concurrency=10_000))) as server:
        plain = asyncio.run(gather(server, ROWS))
        begin()
        started = time.time()
        out = map_dataset(
            rows(ROWS),
            model="kimi-k3",
            prompt="question",
            limits=RateLimits(hold=False),
            quota="rows",
            timings=True,
            defaults={"max_completion_tokens": 16},
            client=client(server),
        ).take_all()
        whole = time.time() - started
        again = asyncio.run(gather(server, ROWS))
    span = max(row["ended"] for row in out) - min(row["began"] for row in out)
    ok = sorted(row["kept"] for row in out) == list(range(ROWS)) and not any(row["error"] for row in out)
    ratio = span / max(plain, again)
    return {
        "what": "rows", "first_to_last": round(span, 2), "plain": [round(plain, 2), round(again, 2)],
        "whole": round(whole, 2), "ratio": round(ratio, 3), "each_once": ok, "met": ok and ratio <= 1.3,
    }  # fmt: skip


def check_quota() -> dict[str, Any]:
    with Server(ServerLedger("tier5")) as server:
        begin()
        started = time.time()
        out = map_dataset(
            rows(600), model="kimi-k3", prompt="question", actors=2, limits="tier5", quota="two",
            defaults={"max_completion_tokens": 16}, client=client(server),
        ).take_all()  # fmt: skip
        took = time.time() - started
    refused = sum(server.ledger.rejected.values())
    ok = sorted(row["kept"] for row in out) == list(range(600)) and not any(row["error"] for row in out)
    return {
        "what": "quota", "seconds": round(took, 1), "admitted": server.ledger.admitted, "refused": refused,
        "each_once": ok, "met": ok and refused <= 3 and server.ledger.admitted == 600,
    }  # fmt: skip


JOB = """
import sys, ray, ray.data
from kimi_async import RateLimits
from kimi_async.integrations.ray import map_dataset
ray.init(include_dashboard=False, log_to_driver=False, num_cpus=4, object_store_memory=200 << 20)
ray.data.DataContext.get_current().enable_progress_bars = False
base_url, journal = sys.argv[1:]
ds = ray.data.from_items([{"id": f"r{n}", "question": f"Q{n}", "kept": n} for n in range(400)])
out = map_dataset(ds, model="kimi-k3", prompt="question", id="id", limits=RateLimits(concurrency=50), quota="job",
                  journal=journal, client={"api_key": "sk-bench", "base_url": base_url, "max_retries": 50}).take_all()
print(len(out), len({row["kept"] for row in out}), sum(row["error"] is not None for row in out))
"""


def answers_in(folder: str) -> list[str]:
    return [json.loads(line)["id"] for path in Path(folder).glob("*.jsonl") for line in path.open()]


async def check_journal() -> dict[str, Any]:
    ledger = ServerLedger(ServerLimits(concurrency=1_000))
    with tempfile.TemporaryDirectory() as folder:
        async with kimi(ledger) as (base_url, _):
            first = await asyncio.create_subprocess_exec(
                sys.executable, "-c", JOB, base_url, folder, start_new_session=True
            )
            while ledger.admitted < 200:  # noqa: ASYNC110 (the server counts and tells nobody)
                await asyncio.sleep(0.05)
            import os
            import signal

            os.killpg(first.pid, signal.SIGKILL)
            await first.wait()
            await asyncio.sleep(8)  # Ray's own processes find out that their driver is gone
            answered = set(answers_in(folder))
            sent = ledger.admitted
            second = await asyncio.create_subprocess_exec(
                sys.executable, "-c", JOB, base_url, folder, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await second.communicate()
        both = Counter(answers_in(folder))
    twice = [key for key in answered if both[key] > 1]
    return {
        "what": "journal", "answered_before_the_kill": len(answered), "sent_before": sent,
        "sent_after": ledger.admitted - sent, "answered_and_sent_again": len(twice), "said": out.decode().split(),
        "met": not twice and ledger.admitted - sent == 400 - len(answered) and out.split()[:3] == [b"400", b"400", b"0"],
    }  # fmt: skip


async def check_actor() -> dict[str, Any]:
    from kimi_async.middleware.rate_limit.shared import SharedController, SharedQuota

    ledger = ServerLedger("tier5")
    begin()
    async with kimi(ledger) as (base_url, _):
        members = [
            AsyncKimi(
                api_key="sk-bench",
                base_url=base_url,
                limits="tier5",
                shared="ray",
                quota="actor",
                max_retries=50,
            )
            for _ in range(2)
        ]

        async def caller(member: AsyncKimi) -> None:
            while True:
                await member.chat.completions.create(
                    model="kimi-k3", messages=[{"role": "user", "content": "x"}], max_completion_tokens=16
                )

        tasks = [asyncio.create_task(caller(member)) for member in members for _ in range(20)]
        await asyncio.sleep(70)
        limiter: Any = members[0].limiter
        assert isinstance(limiter, SharedController)
        epoch = limiter.quota.engine()._epoch  # type: ignore[attr-defined]
        assert isinstance(limiter.quota, SharedQuota)
        ray.kill(ray.get_actor("kimi-limits-actor", namespace=NAMESPACE), no_restart=False)
        killed = time.monotonic()
        while limiter.quota.engine()._epoch == epoch or limiter.view().mode != "shared":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        back = time.monotonic() - killed
        await asyncio.sleep(30)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in members:
            await member.close()
    arrivals = sorted(at for at, kind in ledger.log if not kind)
    gap = max(b - a for a, b in itertools.pairwise(arrivals))
    refused = sum(ledger.rejected.values())
    return {
        "what": "actor", "shared_again_after": round(back, 2), "longest_gap": round(gap, 2), "admitted": ledger.admitted,
        "refused": refused, "met": gap <= 5.0 and refused == 0,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["rows", "quota", "journal", "actor"])
    what = parser.parse_args().what
    if what == "journal":
        result = asyncio.run(check_journal())
    elif what == "actor":
        result = asyncio.run(check_actor())
    else:
        result = check_rows() if what == "rows" else check_quota()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
