"""
What all calls of a client share when things go wrong: the budget of retries, and the breaker for overloads.
"""

import asyncio
import math
import sys
import weakref
from collections import deque

__all__ = ["OverloadBreaker", "RetryBudget"]

# The law and its numbers are those of the AWS SDKs of 2026 (botocore, AWS_NEW_RETRIES_2026).
CAPACITY = 500
TRANSIENT = 14
"""What a retry costs the budget …"""
THROTTLE = 5
"""… and what it costs if the server throttled."""
DEPOSIT = 1
PROBE = 1.0
"""Seconds between two retries that nothing pays for, while the budget is spent and calls wait for it."""


class RetryBudget:
    """
    What all retries of a client together may cost, so that an outage is not answered with a multiple of the usual load.

    500 tokens, or None for no limit; a retry costs 14, or 5 if the server throttled; a success gives 1 back, or what its retries had cost.

    Where it is spent, everybody would wait for the success of others, and nobody try: one of those who wait goes each second. If that
    works two go on, then four: while others wait, the success of a retry gives back twice its cost.
    """

    __slots__ = ("_probe_at", "_repaid", "_waiters", "available", "capacity")

    def __init__(self, capacity: int | None = CAPACITY) -> None:
        if capacity is None:
            capacity = sys.maxsize
        if capacity < 0:
            raise ValueError(f"RetryBudget capacity must be 0 or more; got {capacity!r}")
        self.capacity: int = capacity
        self.available: int = capacity
        """What is left."""
        self._probe_at: float = 0.0
        """`loop.time()` from which on one who waits may go without paying."""
        self._repaid: int = 0
        """How many retries have worked."""
        self._waiters: deque[tuple[int, weakref.ref[asyncio.Future[None]]]] = deque()
        """Each is held by whoever waits for it: here it would hold a loop that was dropped."""

    def spend(self, cost: int) -> bool:
        """Takes `cost`, if there is as much and nobody waits for it already."""
        while self._waiters and _left(self._waiters[0][1]()):
            self._waiters.popleft()
        if cost > self.available or self._waiters:
            return False
        self.available -= cost
        return True

    def repay(self, spent: int) -> None:
        """Gives back what a call has spent that a retry has brought to its end."""
        self._repaid += 1
        self.deposit((2 * spent if self._waiters else spent) or DEPOSIT)

    def deposit(self, amount: int = DEPOSIT) -> None:
        """Gives back, and lets those go on who have waited longest."""
        self.available = min(self.capacity, self.available + amount)
        while self._waiters:
            cost, ref = self._waiters[0]
            waiter = ref()
            if waiter is None or _left(waiter):
                self._waiters.popleft()
            elif cost <= self.available:
                self._waiters.popleft()
                self.available -= cost
                loop = waiter.get_loop()
                if loop is asyncio._get_running_loop():
                    waiter.set_result(None)
                else:
                    try:
                        loop.call_soon_threadsafe(
                            _grant, self, cost, waiter
                        )  # a client used on several loops
                    except RuntimeError:  # closed in the meantime
                        self.available += cost
            else:
                break

    async def spend_within(self, cost: int, seconds: float, latest: float = math.inf) -> int:
        """
        Takes `cost` as soon as the success of others has earned it; what success is to give back, or 0 if for `seconds` no retry has
        worked, or `latest` has come.

        A restart of the server fails all calls in flight at once, more than the budget covers. If it is back, the first
        successes pay for the rest; if not, one goes each second, at no cost.
        """
        if self.spend(cost):
            return cost
        if seconds <= 0 or cost > self.capacity:
            return 0
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._waiters or self._probe_at > now + PROBE:
            self._probe_at = now + PROBE
        until, repaid = min(now + seconds, latest), self._repaid
        waiter: asyncio.Future[None] = loop.create_future()
        entry = (cost, weakref.ref(waiter))
        self._waiters.append(entry)
        try:
            while not waiter.done() and (now := loop.time()) < latest:
                if now >= until:
                    if repaid == self._repaid:
                        break
                    until, repaid = min(now + seconds, latest), self._repaid
                if now >= self._probe_at:
                    self._probe_at = now + PROBE
                    return cost
                await asyncio.wait([waiter], timeout=min(until, self._probe_at) - now)
        except asyncio.CancelledError:
            if waiter.done():
                self.deposit(cost)  # granted in the moment of cancellation: it goes back
            raise
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)
            granted = waiter.done()
            waiter.cancel()  # what another thread's loop grants from here on goes back
        return cost if granted else 0

    def __repr__(self) -> str:
        if self.capacity == sys.maxsize:
            return "<RetryBudget without limit>"
        return f"<RetryBudget {self.available}/{self.capacity}>"


def _left(waiter: asyncio.Future[None] | None) -> bool:
    """Whether nobody waits for it any more: answered, cancelled, or of a loop that is gone."""
    return waiter is None or waiter.done() or waiter.get_loop().is_closed()


def _grant(budget: RetryBudget, cost: int, waiter: asyncio.Future[None]) -> None:
    if waiter.done():
        budget.deposit(cost)
    else:
        waiter.set_result(None)


class OverloadBreaker:
    """
    Notices that a service is down for longer than waiting makes sense. Times are `loop.time()`.

    Overloads are counted by generation: requests that were under way together when the first of them failed are one
    observation, not a hundred. Only the success of a request sent since the trouble began ends it; a long answer
    that had been admitted before says nothing about now.

    While it is open one call may try, the first a second after, the next ones more slowly, up to every `cooldown`; none before the
    server's `Retry-After`.
    """

    FIRST = 1.0
    GROWTH = 1.5

    __slots__ = ("cooldown", "generations", "last", "next_probe", "patience", "pause", "since", "threshold")

    def __init__(self, threshold: int, patience: float, cooldown: float) -> None:
        self.threshold: int = threshold
        self.patience: float = patience
        self.cooldown: float = cooldown
        self.generations: int = 0
        self.since: float = 0.0
        """When the first overload of the row came back."""
        self.last: float = 0.0
        self.next_probe: float | None = None
        """When one call may try again; None while closed."""
        self.pause: float = 0.0
        """Seconds from that try to the next."""

    def failed(self, sent: float, now: float, hint: float | None = None) -> bool:
        """Notes an overload, and the seconds that it asks to wait. True if this opens the breaker."""
        if self.next_probe is not None:
            # Not from now on: a refusal that takes 8 s to arrive would add them to the recovery.
            self.next_probe = max(self.next_probe, now + (hint or 0.0))
        if not self.generations:
            self.since = now
        elif sent < self.last:
            return False
        self.generations += 1
        self.last = now
        if self.generations < self.threshold or now - self.since < self.patience:
            return False
        if self.next_probe is not None:
            return False
        self.pause = min(self.FIRST, self.cooldown)
        self.next_probe = now + max(self.pause, hint or 0.0)
        return True

    def succeeded(self, sent: float) -> None:
        """Notes a success."""
        if self.generations and sent >= self.since:
            self.generations = 0
            self.next_probe = None

    def blocked(self, now: float) -> float | None:
        """Seconds until a call may try, or None if this one may: while open, one a pause."""
        if self.next_probe is None:
            return None
        if now < self.next_probe:
            return self.next_probe - now
        self.pause = min(self.pause * self.GROWTH, self.cooldown)
        self.next_probe = now + self.pause
        return None
