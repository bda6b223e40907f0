"""
Refusals that follow no limit, and what they leave: `python -m benchmarks.limits.strays`.

A server without limits refuses a share of the requests by chance, as one bad replica of many does, or a firewall: 429s without a
number, with and without `Retry-After: 1`, 503s, and `engine_overloaded_error`. Virtual time; `--sockets` is on real ones.

*Open loop*: twenty times as many calls wait as there are slots, so that a retry that waits holds none; measured against what
fits, (1 - p) of slots / time. *Closed loop*: 32 callers, each with the next call when one is done; measured against a client that
merely repeats each call after the same waits.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.limits.experiments import _world
from kimi_async.errors import KimiError
from kimi_async.middleware.chain import chain
from kimi_async.middleware.rate_limit.controller import AdmissionController, Lease
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.middleware import RateLimitMiddleware
from kimi_async.middleware.retry.middleware import RetryMiddleware
from kimi_async.testing.clock import run
from kimi_async.testing.memory_transport import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

__all__ = ["KINDS", "Stray", "Unheld", "main", "measure"]

KINDS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "429": (429, {}, b'{"error":{"message":"too many requests"}}'),
    "429, Retry-After: 1": (429, {"retry-after": "1"}, b'{"error":{"message":"too many requests"}}'),
    "503": (503, {}, b'{"error":{"message":"try again"}}'),
    "overloaded": (503, {}, b'{"error":{"message":"busy","type":"engine_overloaded_error"}}'),
}


@dataclass(frozen=True)
class Stray:
    kind: str
    share: float
    slots: int
    takes: float
    given: bool
    opened: bool

    @property
    def seconds(self) -> float:
        """Long enough for some hundreds of calls, short enough for a second of ours."""
        return max(10.0, 40 * self.takes)

    @property
    def bound(self) -> float:
        """The least that is asked for, as a share of the measure."""
        if self.opened and self.kind.endswith("1"):
            return 0.5
        return 0.8

    def __str__(self) -> str:
        loop = "open" if self.opened else "closed"
        return f"{self.kind} p={self.share:g} {loop} {self.slots} x {self.takes:g} s{' given' if self.given else ''}"


class Unheld(AdmissionController):
    """A limiter that holds nobody back and learns nothing: what is refused comes again after the same waits."""

    def __init__(self) -> None:
        super().__init__(RateLimits(hold=False))

    def _refused(
        self, lease: Lease, dimension: str | None, limit: int | None, current: int | None, hint: float | None
    ) -> None:
        self._overloaded(lease, hint)

    def _overloaded(self, lease: Lease, hint: float | None) -> None:
        lease.pause = hint or 0.0
        self._release(lease)


class _Server:
    def __init__(self, stray: Stray, seed: int) -> None:
        self.stray = stray
        self.dice = random.Random(seed)
        self.served = 0
        self.held = 0
        self.most = stray.slots if stray.opened else 10**9

    async def __call__(self, _: Request) -> Reply:
        status, headers, body = KINDS[self.stray.kind]
        await asyncio.sleep(min(0.002, self.stray.takes / 10))
        if self.dice.random() < self.stray.share:
            return Reply(status, {"content-type": "application/json", **headers}, body)
        await asyncio.sleep(self.stray.takes)
        self.served += 1
        return Reply(200, {}, b'{"id": "x"}')


def measure(stray: Stray, seed: int, *, naive: bool = False) -> tuple[float, int]:
    """Calls served a second, and calls lost."""
    world = _world()
    server = _Server(stray, seed)
    outcome: list[int] = [0]

    async def main() -> None:
        transport = MemoryTransport(server)
        transport.requests = world._Forgetful()
        dice = random.Random(seed + 1).random
        limits = {"concurrency": stray.slots} if stray.given or stray.opened else None
        limiter = Unheld() if naive else AdmissionController(limits, dice=dice)
        send = chain(
            [RetryMiddleware(limiter=limiter, dice=dice), RateLimitMiddleware(limiter)], transport.send
        )

        async def caller() -> None:
            while True:
                request = Request("POST", world.URL, body=world.BODY, max_retries=8)
                request.headers["authorization"] = "Bearer test"
                try:
                    response = await send(request)
                    await response.read()
                    if response.status >= 400:
                        outcome[0] += 1
                except KimiError:
                    outcome[0] += 1

        tasks = [asyncio.ensure_future(caller()) for _ in range(20 * stray.slots if stray.opened else 32)]
        await asyncio.sleep(stray.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())
    return server.served / stray.seconds, outcome[0]


def experiments(quick: bool) -> list[Stray]:
    found: list[Stray] = []
    for kind in KINDS:
        shares = (0.002, 0.05, 0.2, 0.3) if kind.startswith("429") else (0.01, 0.05, 0.2)
        for share in shares:
            for slots, takes in (
                ((8, 0.5), (64, 0.01)) if quick else ((8, 0.01), (8, 0.5), (64, 0.01), (64, 5.0))
            ):
                found.append(Stray(kind, share, slots, takes, True, True))
            for takes in (0.02, 3.0) if quick else (0.01, 0.02, 0.5, 3.0):
                found += [Stray(kind, share, 32, takes, given, False) for given in (False, True)]
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits.strays", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=11)
    parser.add_argument("--only", default="", help="only experiments whose name holds this")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--sockets", action="store_true", help="on real sockets instead, beside AsyncOpenAI")
    options: Any = parser.parse_args(arguments)
    if options.sockets:
        from benchmarks.limits.stray_sockets import compare

        return _verdict(compare(options.first_seed), options.check)
    missed = 0
    print("| refusals | measured against | share of it | lost | |\n|---|---|---:|---:|---|")
    for stray in experiments(options.quick):
        if options.only not in str(stray):
            continue
        shares: list[float] = []
        lost = 0
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            served, failed = measure(stray, seed)
            lost += failed
            if stray.opened:
                against = stray.slots / (stray.takes + min(0.002, stray.takes / 10)) * (1 - stray.share)
            else:
                against = measure(stray, seed, naive=True)[0]
            shares.append(served / against)
        share = statistics.median(shares)
        bad = share < stray.bound
        missed += bad
        against_name = "what fits" if stray.opened else "mere repetition"
        print(f"| {stray} | {against_name} | {share:.2f} | {lost} | {'MISSED' if bad else ''} |", flush=True)
    return _verdict(missed, options.check)


def _verdict(missed: int, check: bool) -> int:
    print(f"\n{missed} missed" if missed else "\nall bounds met")
    return 1 if missed and check else 0


if __name__ == "__main__":
    sys.exit(main())
