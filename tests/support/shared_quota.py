"""
Several processes that share a quota, in one process on a virtual clock: members that come, die and return, and a ledger that is away,
slow, forgetful, or has its clock set.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kimi_async.middleware.chain import chain
from kimi_async.middleware.rate_limit import RateLimitMiddleware
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.shared import SharedController, SharedQuota
from kimi_async.middleware.rate_limit.shared.ledger import State, sync
from kimi_async.middleware.rate_limit.shared.message import Answer, LedgerUnavailable, Sync
from kimi_async.middleware.retry.middleware import RetryMiddleware
from kimi_async.testing.memory_transport import MemoryTransport
from kimi_async.testing.simulator.server_limits import ServerLedger
from support.limited_transport import LimitedServer, Outcome, crowd

__all__ = ["Fleet", "WireLedger"]


class WireLedger:
    """A ledger behind a wire: `fault` may say what happens to a message; `skew` is what its host's clock shows beyond the time."""

    def __init__(self, rtt: float = 0.001, seed: int = 1) -> None:
        self.state = State()
        self.rtt = rtt
        self.skew = 0.0
        self.away = False
        self.frozen: asyncio.Event | None = None
        self.fault: Callable[[Sync], str] = lambda message: ""
        self.messages = 0
        self.dice = random.Random(seed)

    def forget(self) -> None:
        self.state = State()

    async def sync(self, message: Sync) -> Answer:
        loop = asyncio.get_running_loop()
        if self.away:
            await asyncio.sleep(0.002)
            raise LedgerUnavailable("connection refused")
        await asyncio.sleep(self.rtt / 2)
        what = self.fault(message)
        if what == "lost before":
            await asyncio.sleep(0.5)
            raise LedgerUnavailable("no answer within 0.5 s")
        if self.frozen is not None:
            thaw = self.frozen

            async def later() -> None:
                await thaw.wait()
                self._now(message)

            task = asyncio.create_task(later())
            try:
                await asyncio.wait_for(asyncio.shield(task), 0.5)
            except TimeoutError:
                raise LedgerUnavailable("no answer within 0.5 s") from None
            return sync(self.state, message, int((loop.time() + self.skew) * 1000) + 1)
        answer = self._now(message)
        if what == "lost after":
            await asyncio.sleep(0.5)
            raise LedgerUnavailable("no answer within 0.5 s")
        if what == "twice":
            self._now(message)
        await asyncio.sleep(self.rtt / 2 + (0.4 if what == "slow" else 0.0))
        return answer

    def _now(self, message: Sync) -> Answer:
        self.messages += 1
        at = 1_000_000 + int((asyncio.get_running_loop().time() + self.skew) * 1000)
        return sync(self.state, message, at)

    async def aclose(self) -> None:
        pass


@dataclass
class Fleet:
    """Processes, each with a crowd of its own."""

    ledger: WireLedger
    server: LimitedServer
    outcome: Outcome
    limits: RateLimits | None
    crowd: int = 60
    on_lost: str = "share"
    limiters: dict[str, SharedController] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    costs: list[int] = field(default_factory=list)
    """What requests cost, in turn."""

    @classmethod
    def of(
        cls,
        tier: str | ServerLedger = "tier5",
        *,
        limits: str | RateLimits | None = "tier5",
        latency: float = 2.0,
        **kw: object,
    ) -> Fleet:
        server = LimitedServer(
            ServerLedger(tier) if isinstance(tier, str) else tier,
            latency=latency,
            sigma=0.3,
            ack=None,
            seed=5,
        )
        outcome = Outcome(1e9, server)
        return cls(WireLedger(), server, outcome, RateLimits.of(limits), **kw)  # type: ignore[arg-type]

    def start(self, name: str) -> SharedController:
        limiter = SharedController(SharedQuota(self.ledger, limits=self.limits, on_lost=self.on_lost))  # type: ignore[arg-type]
        send = chain(
            [RetryMiddleware(limiter=limiter), RateLimitMiddleware(limiter)],
            MemoryTransport(self.server).send,
        )
        self.limiters[name] = limiter
        self.tasks[name] = asyncio.create_task(
            crowd(
                send,
                self.outcome,
                tasks=self.crowd,
                until=1e9,
                user=name,
                cost=itertools.cycle(self.costs) if self.costs else None,
            )
        )
        return limiter

    async def kill(self, name: str) -> None:
        """As kill -9: nobody says goodbye. (What it had on the server ends there at once.)"""
        limiter = self.limiters.pop(name)
        engine = limiter.quota.engine()
        engine._closed = True  # type: ignore[attr-defined]
        if engine._task is not None:  # type: ignore[attr-defined]
            engine._task.cancel()  # type: ignore[attr-defined]
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.wait([task])

    async def stop(self) -> None:
        for name in list(self.limiters):
            limiter = self.limiters[name]
            task = self.tasks.pop(name)
            task.cancel()
            await asyncio.wait([task])
            await limiter.aclose()

    def most_in_a_minute(self) -> int:
        """The most that came to the server within any 60 s."""
        times = sorted(at for at, _ in self.server.ledger.log)
        most = first = 0
        for last, at in enumerate(times):
            while times[first] <= at - 60.0:
                first += 1
            most = max(most, last - first + 1)
        return most

    def goodput(self, rpm: int, minutes: int) -> float:
        times = sorted(at for at, kind in self.server.ledger.log if not kind)
        return sum(1 for at in times if at < times[0] + 60.0 * minutes) / (rpm * minutes)

    @property
    def refusals(self) -> int:
        return sum(self.server.ledger.rejected.values())
