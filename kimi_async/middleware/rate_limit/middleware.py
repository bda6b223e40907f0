"""
Who may send now: queues and timers around the arithmetic of `adaptive`.

    limits = RateLimits(concurrency=15, rpm=100, tpm=2_000_000)      or "tier1", or None: learnt
    limiter = AdmissionController(limits)                            one per organisation
    RateLimitMiddleware(limiter)                                     below retry, above the user's own

Between retry and this limiter there is one small agreement:

* Every attempt comes down the chain again. A request whose `extensions["requeued"]` is set keeps the place in
  the queue that it was given first, and its `priority`, raised by retry, puts it before its own kind.
* A slot is held from the sending of an attempt to the end of its reply, and never while retry waits.
* `AdmissionController.alive(request, within)` tells retry whether the organisation is being admitted: if so, a refused
  attempt uses nothing up.
* What waits for a limit, or for the server's `Retry-After`, waits here. `RateLimitWaitError` says that the wait was
  ours, what for, and for how long; a refusal by the server keeps its own class.

One quota may be used by several processes: what they have in common is a `SharedLimits`, which hands out leases in small bundles and hears
what came of them. `InProcessLimits` is the one that needs no wire; others need three methods.

A request that need not wait costs a few microseconds. One that must costs a future and a place in a heap: there is
one timer per event loop, and no task, no polling, nothing at all while nobody waits.
"""

import asyncio
import heapq
import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from ...codec.refusals import classify
from ...errors import APIConnectionError, RateLimitWaitError, RequestTooCostlyError
from ...transport.exchange import Request, Response
from ..chain import Handler
from ..events import LimiterWaited, Observer, where
from .law import INF, Law, Rate, RateLimits, Ticket, tier_of

__all__ = [
    "AdmissionController",
    "Bundle",
    "InProcessLimits",
    "Lease",
    "LimitStats",
    "LimiterStats",
    "RateLimitMiddleware",
    "RateLimits",
    "SharedLimits",
    "tokens_of",
]

logger: logging.Logger = logging.getLogger("kimi_async")

# A wait below this is not worth a timer, and a clock far from zero could not even count it.
TICK = 1e-4

# Every so many grants one goes to whoever has waited longest, whatever the priorities: the least urgent request waits at
# most eight times its place in the line.
FAIR_EVERY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStats:
    """One limit as it is believed to be."""

    limit: float | None
    """None while unknown."""
    source: str
    """`config`, `told` (by a 429's text), `tier` (by a header), `seen` (counted), `none`."""
    used: int
    """Of the current minute (or day, or slots)."""
    allowed: float | None
    """How much of it is ours now: less than `limit` where others share it or after a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterStats:
    """What a limiter is doing, at one moment."""

    waiting: int
    """Requests in the queue."""
    waiting_for: str | None
    """What the first of them waits for: `gate` (the server said so), `overloaded`, `concurrency`, `rpm`, `tpm`, `tpd`; None if
    nobody waits."""
    eta: float
    """Seconds until a request that came now would be sent, as far as can be told."""
    in_flight: int
    concurrency: LimitStats
    rpm: LimitStats
    tpm: LimitStats
    tpd: LimitStats
    gate: float
    """Seconds for which the server still wants silence; 0 if it does not."""
    overloaded: bool
    """Whether only probes are sent, because the service has no capacity."""
    admitted: int
    """Requests admitted so far."""
    refused: int
    """Requests refused so far, for a limit or for lack of capacity."""


class Lease:
    """
    The permission to have one request under way. `release()` it when its reply has ended; more than once is harmless.
    """

    __slots__ = ("_controller", "_loop", "_ticket", "reason", "waited")

    def __init__(
        self,
        controller: "AdmissionController",
        ticket: Ticket,
        loop: asyncio.AbstractEventLoop,
        waited: float = 0.0,
        reason: str = "",
    ) -> None:
        self._controller = controller
        self._ticket = ticket
        self._loop = loop
        self.waited: float = waited
        """Seconds in the queue."""
        self.reason: str = reason
        """What it waited for."""

    def admitted(self, headers: Mapping[str, str] | None = None) -> None:
        """The server took the request: its good status has come."""
        self._controller._admitted(self, headers)  # pyright: ignore[reportPrivateUsage]

    def refused(
        self,
        dimension: str | None = None,
        *,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """The server refused it for a limit; this releases the lease."""
        self._controller._refused(self, dimension, limit, current, retry_after)  # pyright: ignore[reportPrivateUsage]

    def overloaded(self, retry_after: float | None = None) -> None:
        """The server has no capacity; this releases the lease."""
        self._controller._overloaded(self, retry_after)  # pyright: ignore[reportPrivateUsage]

    def release(self) -> None:
        """The reply has ended, or will never come."""
        if not self._ticket.done:
            self._controller._release(self)  # pyright: ignore[reportPrivateUsage]

    @property
    def ticket(self) -> Ticket:
        return self._ticket

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _Waiter:
    __slots__ = ("deadline", "future", "queued", "reason", "ticket", "tokens")

    def __init__(
        self,
        future: asyncio.Future[None],
        tokens: int | Callable[[], int],
        queued: float,
        deadline: float | None,
        reason: str,
    ) -> None:
        self.future = future
        self.tokens = tokens
        self.queued = queued
        self.deadline = deadline
        self.reason = reason
        self.ticket: Ticket | None = None


class _Queue:
    """
    Those who wait on one event loop. Only that loop's thread touches it.
    """

    __slots__ = (
        "asking",
        "deadlines",
        "granted",
        "heap",
        "line",
        "loop",
        "mixed",
        "timer",
        "timer_at",
        "waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.asking: asyncio.Task[None] | None = None
        """Fetches leases of a quota shared with others."""
        self.heap: list[tuple[int, float, int, _Waiter]] = []
        """(-priority, when it was first queued, a number, who)."""
        self.line: deque[_Waiter] = deque()
        """The same in the order of coming, kept once there are several priorities."""
        self.deadlines: list[tuple[float, int, _Waiter]] = []
        self.mixed = False
        self.granted = 0
        self.waiting = 0
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = INF

    def push(self, waiter: _Waiter, priority: int, number: int) -> None:
        if not self.waiting:
            self.heap.clear()
            self.line.clear()
            self.deadlines.clear()
            self.mixed = False
        elif self.heap and not self.mixed and -self.heap[0][0] != priority:
            self.mixed = True
            self.line.extend(entry[3] for entry in sorted(self.heap, key=lambda entry: entry[1:3]))
        heapq.heappush(self.heap, (-priority, waiter.queued, number, waiter))
        if self.mixed:
            self.line.append(waiter)
        if waiter.deadline is not None:
            heapq.heappush(self.deadlines, (waiter.deadline, number, waiter))
        self.waiting += 1

    def first(self) -> _Waiter | None:
        """
        Whose turn it is.
        """
        if self.mixed and self.granted % FAIR_EVERY == FAIR_EVERY - 1:
            line = self.line
            while line and line[0].future.done():
                line.popleft()
            if line:
                return line[0]
        heap = self.heap
        while heap and heap[0][3].future.done():
            heapq.heappop(heap)
        return heap[0][3] if heap else None

    def set_timer(self, at: float, call: Callable[["_Queue"], None]) -> None:
        if self.timer is not None:
            if self.timer_at <= at:
                return  # it looks again then, and sets the next one
            self.timer.cancel()
        self.timer_at = at
        self.timer = self.loop.call_at(at, call, self)

    def drop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.timer_at = INF


@dataclass(frozen=True, slots=True)
class Bundle:
    """Leases for so many requests, of a quota shared with others."""

    leases: tuple[int, ...]
    ttl: float = 0.2
    """Seconds for which they may be kept unused. Then they are to be given back."""


class SharedLimits(Protocol):
    """
    One quota for several processes. The limits, and what is learnt about them, live behind it; who uses it keeps only a queue.

    `report` and `release` must return at once; what they have to send may go later, and together.
    """

    async def lease(self, count: int, tokens: int) -> Bundle:
        """
        Waits until a request of `tokens` may go, and gives leases for it and, if there is room, for up to `count` like it.
        """
        ...

    def report(
        self,
        lease: int,
        outcome: Literal["admitted", "refused", "overloaded"],
        *,
        dimension: str | None = None,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """What the server said to the request."""
        ...

    def release(self, leases: Sequence[int], *, sent: bool) -> None:
        """The replies have ended; or, if not `sent`, the leases were never used."""
        ...


class AdmissionController:
    """
    Lets requests of one organisation go when its limits allow, in order.

    Within a priority it is first come, first served, whatever a request costs: a large one is not overtaken by small ones for ever.
    A higher priority goes first, but every eighth place goes to whoever has waited longest.

    May be shared by several clients, and used from several event loops, also in several threads.
    """

    def __init__(
        self,
        limits: RateLimits | str | Mapping[str, Any] | None = None,
        *,
        shared: SharedLimits | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.limits: RateLimits = RateLimits.of(limits)
        # With a shared quota nothing is known or learnt here: one of many sees too little.
        self._law = Law(self.limits if shared is None else RateLimits(hold=False), dice)
        self._shared = shared
        self._stock: deque[tuple[int, float]] = deque()
        """Leases not used so far, and until when they may be kept."""
        self._lock = threading.RLock()
        self._queues: list[_Queue] = []
        self._queue: _Queue | None = None
        self._numbers = 0
        self.longest_gate: float = 120.0
        """Seconds of silence asked for by the server that are waited out; a request that comes during a longer one is refused at
        once. Retry sets it to its `max_wait`."""

    # --- asking -----------------------------------------------------------------------------------------------------

    @property
    def counts_tokens(self) -> bool:
        """Whether a limit on tokens is known, so that it matters what a request costs."""
        return self._law.counts_tokens

    async def acquire(
        self,
        tokens: int | Callable[[], int] = 0,
        *,
        priority: int = 0,
        deadline: float | None = None,
        mode: Literal["wait", "fail_fast"] = "wait",
        queued: float | None = None,
    ) -> Lease:
        """
        Waits for the turn of a request that costs `tokens`; a function is asked only if a limit on tokens is known.

        `deadline` and `queued` are times of the running loop; `queued` is when the request first came, if it comes
        again. Raises `RateLimitWaitError` at once if the wait is certain to go beyond the deadline (or if there is any, with
        `fail_fast`), and when the deadline has come; `RequestTooCostlyError` if it can never fit.
        """
        lease = self.try_acquire(tokens)
        if lease is not None:
            return lease
        queue = self._queue
        assert queue is not None
        return await self._wait(queue, tokens, priority, deadline, mode, queued)

    def try_acquire(self, tokens: int | Callable[[], int] = 0) -> Lease | None:
        """
        A lease if the request may go now and nobody waits before it; None otherwise. Raises `RequestTooCostlyError`.
        """
        loop = asyncio.get_running_loop()
        queue = self._queue
        if queue is None or queue.loop is not loop:
            queue = self._queue_of(loop)
        if queue.waiting:
            return None
        with self._lock:
            now = loop.time()
            law = self._law
            cost = 0
            if law.counts_tokens:
                cost = tokens if isinstance(tokens, int) else tokens()
                self._check_cost(cost)
            if law.delay(cost, now) > 0.0:
                return None
            if self._shared is None:
                return Lease(self, law.send(cost, now), loop)
            number = self._from_stock(now)
            if number is None:
                return None
            ticket = law.send(cost, now)
            ticket.lease = number
            return Lease(self, ticket, loop)

    async def _wait(
        self,
        queue: _Queue,
        tokens: int | Callable[[], int],
        priority: int,
        deadline: float | None,
        mode: str,
        queued: float | None,
    ) -> Lease:
        loop = queue.loop
        now = loop.time()
        with self._lock:
            law = self._law
            cost = 0
            if law.counts_tokens:
                cost = tokens if isinstance(tokens, int) else tokens()
                self._check_cost(cost)
                tokens = cost
            wait = law.delay(cost, now)
            reason = law.reason
            if mode == "fail_fast":
                raise self._error(queue, cost, reason, now, "and it was not to wait (mode='fail_fast')")
            if reason == "gate" and wait > 1.25 * self.longest_gate:  # gates are spread by up to a quarter
                raise self._error(
                    queue,
                    cost,
                    reason,
                    now,
                    f"and only {self.longest_gate:.6g} s are allowed (max_wait)",
                    wait,
                )
            # Only what is certain is refused at once: slots may be free sooner than they were on average.
            if deadline is not None and wait < INF and now + wait > deadline:
                left = max(0.0, deadline - now)
                raise self._error(queue, cost, reason, now, f"and only {left:.3g} s are allowed", wait)
            self._numbers += 1
            waiter = _Waiter(
                loop.create_future(), tokens, now if queued is None else queued, deadline, reason
            )
            queue.push(waiter, priority, self._numbers)
        self._pump(queue)
        try:
            await waiter.future
        except BaseException:
            if waiter.ticket is not None:
                # Granted and cancelled in the same turn: the turn is given to the next.
                self._unsent(waiter.ticket, loop)
            elif waiter.future.cancelled():
                # Whoever was answered, by a deadline or by `fail`, is not counted any more.
                queue.waiting -= 1
            if queue.asking is not None and not queue.waiting:
                queue.asking.cancel()
                queue.asking = None
            self._freed(queue)
            raise
        if waiter.ticket is None:
            now = loop.time()
            with self._lock:
                raise self._error(queue, cost, law.reason, now, "and the time allowed for the call is over")
        return Lease(self, waiter.ticket, loop, loop.time() - now, waiter.reason)

    def _check_cost(self, tokens: int) -> None:
        found = self._law.too_costly(tokens)
        if found is None:
            return
        name, cap = found
        raise RequestTooCostlyError(
            f"our own limiter refused the request: it is charged about {tokens:,} tokens (prompt and max_completion_tokens), and the "
            f"limit is {cap:,.0f} tokens {'a day' if name == 'tpd' else 'a minute'}; lower max_completion_tokens",
            eta=None,
            reason=name,
            limit=cap,
        )

    def _error(
        self, queue: _Queue, tokens: int, reason: str, now: float, why: str, wait: float | None = None
    ) -> RateLimitWaitError:
        law = self._law
        eta = law.eta(queue.waiting, tokens, now) if wait is None else wait
        rate = {"rpm": law.requests, "tpm": law.tokens, "tpd": law.day}.get(reason)
        limit = rate.cap if rate is not None else law.concurrency.limit if reason == "concurrency" else None
        named = {
            "gate": "the server asked for silence",
            "overloaded": "the service is overloaded",
            "concurrency": "all slots are taken",
            "rpm": "the requests of the minute are spent",
            "tpm": "the tokens of the minute are spent",
            "tpd": "the tokens of the day are spent",
        }.get(reason, "others are waiting")
        of = f" ({reason} {limit:,.0f})" if limit is not None and limit < INF else ""
        return RateLimitWaitError(
            f"our own limiter held the request back: {named}{of}; it would be sent in about {eta:.3g} s, {why}",
            eta=eta,
            reason=reason,
            limit=limit if limit is not None and limit < INF else None,
        )

    def fail(self, error: Callable[[], BaseException]) -> None:
        """
        Tells everybody who waits on the running loop that waiting is of no use: `error` makes what each of them is raised.
        """
        running = asyncio.get_running_loop()
        for queue in self._queues:
            if queue.loop is running:
                for *_, waiter in queue.heap:
                    if not waiter.future.done():
                        waiter.future.set_exception(error())
                        queue.waiting -= 1
                queue.drop_timer()

    def alive(self, request: Request, within: float) -> bool:
        """
        Whether the organisation had a request admitted within so many seconds, or has one under way for longer than a refusal takes.
        """
        with self._lock:
            return self._law.alive(within, asyncio.get_running_loop().time())

    def stats(self) -> LimiterStats:
        """
        What is waiting, for what, and what is known of each limit.
        """
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:
            now = self._law.time
        with self._lock:
            law = self._law
            waiting = sum(queue.waiting for queue in self._queues)
            wait = law.delay(0, now)
            reason = law.reason if wait > 0 or waiting else None
            concurrency = law.concurrency
            return LimiterStats(
                waiting=waiting,
                waiting_for=reason if waiting else None,
                eta=law.eta(waiting, 0, now),
                in_flight=len(law.inflight),
                concurrency=LimitStats(
                    limit=_finite(concurrency.cap),
                    source=concurrency.source,
                    used=len(law.inflight),
                    allowed=_finite(min(concurrency.limit, law.outage.limit)),
                ),
                rpm=_rate_stats(law.requests, now),
                tpm=_rate_stats(law.tokens, now),
                tpd=_rate_stats(law.day, now),
                gate=max(0.0, law.gate - law.time),
                overloaded=law.outage.active,
                admitted=law.admissions,
                refused=law.rejections,
            )

    def __repr__(self) -> str:
        law = self._law
        waiting = sum(queue.waiting for queue in self._queues)
        return f"<AdmissionController {len(law.inflight)} in flight, {waiting} waiting>"

    # --- telling ----------------------------------------------------------------------------------------------------

    def _admitted(self, lease: Lease, headers: Mapping[str, str] | None) -> None:
        loop = lease.loop
        law = self._law
        if self._shared is not None and lease.ticket.lease is not None:
            self._shared.report(lease.ticket.lease, "admitted")
            headers = None
        with self._lock:
            more = law.admitted(lease.ticket, loop.time())
            if headers is not None and law.requests.source == "none" and "msh-gid" in headers:
                self._learn_tier(headers)
                more = True
        if more:
            self._freed(self._queue)

    def _learn_tier(self, headers: Mapping[str, str]) -> None:
        limits = tier_of(headers.get("msh-gid"))
        if limits is not None:
            self._law.tier(limits)

    def _refused(
        self, lease: Lease, dimension: str | None, limit: int | None, current: int | None, hint: float | None
    ) -> None:
        now = lease.loop.time()
        number = lease.ticket.lease
        if self._shared is not None and number is not None:
            self._shared.report(
                number, "refused", dimension=dimension, limit=limit, current=current, retry_after=hint
            )
            return lease.release()
        with self._lock:
            self._law.refused(lease.ticket, dimension, limit, current, hint, now)
            self._law.done(lease.ticket, now)
        self._freed(self._queue)

    def _overloaded(self, lease: Lease, hint: float | None) -> None:
        now = lease.loop.time()
        number = lease.ticket.lease
        if self._shared is not None and number is not None:
            self._shared.report(number, "overloaded", retry_after=hint)
            return lease.release()
        with self._lock:
            self._law.overloaded(lease.ticket, hint, now)
            self._law.done(lease.ticket, now)
        self._freed(self._queue)

    def _release(self, lease: Lease) -> None:
        with self._lock:
            self._law.done(lease.ticket, lease.loop.time())
        if self._shared is not None and lease.ticket.lease is not None:
            self._shared.release((lease.ticket.lease,), sent=True)
        self._freed(self._queue)

    def give_back(self, lease: Lease) -> None:
        """
        For a lease that was not used: as if it had never been.
        """
        self._unsent(lease.ticket, lease.loop)
        self._freed(self._queue)

    def _unsent(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._law.unsent(ticket, loop.time())
        if self._shared is not None and ticket.lease is not None:
            self._shared.release((ticket.lease,), sent=False)

    # --- a shared quota ---------------------------------------------------------------------------------------------

    def _from_stock(self, now: float) -> int | None:
        """A lease that may still be used."""
        self._clear_stock(now)
        return self._stock.popleft()[0] if self._stock else None

    def _clear_stock(self, now: float) -> None:
        late: list[int] = []
        while self._stock and self._stock[0][1] <= now:
            late.append(self._stock.popleft()[0])
        if late and self._shared is not None:
            self._shared.release(late, sent=False)

    def _ask(self, queue: _Queue, tokens: int | Callable[[], int]) -> None:
        """One question at a time, for as many as wait."""
        if queue.asking is None or queue.asking.done():
            cost = tokens if isinstance(tokens, int) else tokens()
            queue.asking = queue.loop.create_task(self._fetch(queue, cost), name="kimi_async shared limits")

    async def _fetch(self, queue: _Queue, tokens: int) -> None:
        assert self._shared is not None
        try:
            bundle = await self._shared.lease(min(queue.waiting, 32), tokens)
        except Exception as error:  # whatever a back end raises concerns all who wait for it
            queue.asking = None
            for *_, waiter in queue.heap:
                if not waiter.future.done():
                    waiter.future.set_exception(error)
                    queue.waiting -= 1
            return
        until = queue.loop.time() + bundle.ttl
        self._stock.extend((lease, until) for lease in bundle.leases)
        queue.asking = None
        self._pump(queue)
        if self._stock:
            queue.loop.call_at(until, self._clear_stock, until)

    # --- waking -----------------------------------------------------------------------------------------------------

    def _queue_of(self, loop: asyncio.AbstractEventLoop) -> _Queue:
        with self._lock:
            self._queues = [queue for queue in self._queues if not queue.loop.is_closed()]
            for queue in self._queues:
                if queue.loop is loop:
                    break
            else:
                queue = _Queue(loop)
                self._queues.append(queue)
            self._queue = queue
            return queue

    def _freed(self, mine: _Queue | None) -> None:
        """
        Something may be possible that was not: those who wait are looked at, each on its own loop.
        """
        if len(self._queues) == 1:
            if mine is None or not mine.waiting:
                return
            if asyncio._get_running_loop() is mine.loop:
                self._pump(mine)
                return
        self._wake_all()

    def _wake_all(self) -> None:
        running = asyncio._get_running_loop()
        for queue in list(self._queues):
            if not queue.waiting:
                continue
            if queue.loop is running:
                self._pump(queue)
            else:
                try:
                    queue.loop.call_soon_threadsafe(self._pump, queue)
                except RuntimeError:
                    pass  # that loop is closed, and with it all who waited there

    def _timer(self, queue: _Queue) -> None:
        queue.timer = None
        queue.timer_at = INF
        self._pump(queue)

    def _pump(self, queue: _Queue) -> None:
        """
        Lets go whoever may, in order, and sets the timer for the next.
        """
        if not queue.waiting:
            queue.drop_timer()
            return
        law = self._law
        now = queue.loop.time()
        with self._lock:
            at = INF
            while queue.waiting:
                waiter = queue.first()
                if waiter is None:
                    break  # all were cancelled in this turn; each takes itself off the count
                tokens = waiter.tokens
                if not isinstance(tokens, int):
                    if law.counts_tokens:
                        tokens = waiter.tokens = tokens()  # it came before the limit was known
                    else:
                        tokens = 0
                wait = law.delay(tokens, now)
                if wait > 0.0:
                    waiter.reason = law.reason
                    at = now + max(wait, TICK)
                    break
                if self._shared is None:
                    waiter.ticket = law.send(tokens, now)
                else:
                    number = self._from_stock(now)
                    if number is None:
                        waiter.reason = "shared"
                        self._ask(queue, waiter.tokens)
                        break
                    waiter.ticket = law.send(tokens, now)
                    waiter.ticket.lease = number
                waiter.future.set_result(None)
                queue.granted += 1
                queue.waiting -= 1
                if law.full:
                    break  # the usual end with a slot for each reply that ends: no need to ask again
            deadlines = queue.deadlines
            while deadlines and (deadlines[0][0] <= now or deadlines[0][2].future.done()):
                _, _, late = heapq.heappop(deadlines)
                if not late.future.done():
                    late.future.set_result(None)  # without a ticket: its time is over
                    queue.waiting -= 1
            if not queue.waiting:
                queue.drop_timer()
                return
            if deadlines:
                at = min(at, deadlines[0][0])
            if at < INF:
                queue.set_timer(at, self._timer)


class InProcessLimits:
    """
    A `SharedLimits` for several controllers of one process: the arithmetic of one of them, without a wire.

    Also what a broker between processes would keep: it sees leases, not requests.
    """

    def __init__(self, limits: RateLimits | str | Mapping[str, Any] | None = None) -> None:
        self.controller: AdmissionController = AdmissionController(limits)
        """The one that knows; its `stats()` are those of all."""
        self._leases: dict[int, Lease] = {}

    async def lease(self, count: int, tokens: int) -> Bundle:
        lease: Lease | None = await self.controller.acquire(tokens)
        numbers: list[int] = []
        while lease is not None:
            number = lease.ticket.seq
            self._leases[number] = lease
            numbers.append(number)
            lease = self.controller.try_acquire(tokens) if len(numbers) < count else None
        return Bundle(tuple(numbers))

    def report(
        self,
        lease: int,
        outcome: Literal["admitted", "refused", "overloaded"],
        *,
        dimension: str | None = None,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        known = self._leases.get(lease)
        if known is None:
            return
        if outcome == "admitted":
            known.admitted()
        elif outcome == "refused":
            known.refused(dimension, limit=limit, current=current, retry_after=retry_after)
        else:
            known.overloaded(retry_after)

    def release(self, leases: Sequence[int], *, sent: bool) -> None:
        for number in leases:
            lease = self._leases.pop(number, None)
            if lease is None:
                continue
            if sent:
                lease.release()
            else:
                self.controller.give_back(lease)


def _finite(value: float) -> float | None:
    return value if value < INF else None


def _rate_stats(rate: Rate | None, now: float) -> LimitStats:
    if rate is None:
        return LimitStats(limit=None, source="none", used=0, allowed=None)
    return LimitStats(
        limit=_finite(rate.cap),
        source=rate.source,
        used=rate.window.total,
        allowed=_finite(rate.allowed(now)),
    )


class RateLimitMiddleware:
    """
    Holds each attempt back until the limits allow it, and tells the limiter what came of it.

    Kimi's limits are about inference. Reading lists, files and balances is not held back, nor are uploads, batch jobs and token counts;
    these carry `extensions["unlimited"]`, so that retry waits for them itself.
    """

    def __init__(self, limiter: AdmissionController, *, watcher: Observer | None = None) -> None:
        self.limiter = limiter
        self._watcher = watcher
        self._warned = False

    async def __call__(self, request: Request, send: Handler) -> Response:
        if request.method != "POST":
            return await send(request)
        if not request.url.endswith("/chat/completions") and _UNLIMITED.search(request.url):
            request.extensions["unlimited"] = True
            return await send(request)
        limiter = self.limiter
        extensions = request.extensions
        queued = extensions.get("queued") if extensions.get("requeued") else None
        tokens = partial(self._tokens, request)
        lease = limiter.try_acquire(tokens)
        if lease is None:
            lease = await limiter.acquire(
                tokens, priority=request.priority, deadline=request.deadline, mode=request.mode, queued=queued
            )
        try:
            if lease.waited > 0.0:
                extensions["waited"] = lease.waited  # retry wants to know when it really left
            if lease.waited > 0.0 and self._watcher is not None:
                self._watcher(LimiterWaited(**where(request), wait=lease.waited, reason=lease.reason))
            response = await send(request)
        except BaseException:
            lease.release()
            raise
        status = response.status
        if status < 400:
            lease.admitted(response.headers)
        elif status in (429, 503, 529):
            extensions.setdefault("queued", lease.ticket.sent - lease.waited)
            await _refused(response, lease)
            return response
        response.on_close(lease.release)
        return response

    def _tokens(self, request: Request) -> int:
        if request.cost is not None:
            return max(0, request.cost)
        body = request.body
        if not isinstance(body, bytes | bytearray):
            return 0
        prompt, budget, defaulted = tokens_of(bytes(body))
        if defaulted and not self._warned:
            cap = self.limiter.stats().tpm.limit
            if cap is not None and budget > 0.05 * cap:
                self._warned = True
                logger.warning(
                    "max_completion_tokens is not set, so each request is charged the model's default of %d tokens: "
                    "%.0f %% of the %d tokens a minute; set it to what you need",
                    budget,
                    100.0 * budget / cap,
                    int(cap),
                )
        return prompt + budget


async def _refused(response: Response, lease: Lease) -> None:
    """
    Tells the limiter why. The body is read here; it stays for whoever asks again.
    """
    try:
        body = await response.read()
    except APIConnectionError:
        body = b""
    except BaseException:
        lease.release()
        raise
    shape = classify(response.status, response.headers, body, time.time())
    if shape.kind == "rate_limit":
        told = shape.limit
        dimension = told.dimension if told is not None else None
        lease.refused(
            "rpm" if dimension == "qps" else dimension,
            limit=told.limit if told is not None else None,
            current=told.current if told is not None else None,
            retry_after=shape.retry_after,
        )
    elif shape.kind in ("overloaded", "unavailable"):
        lease.overloaded(shape.retry_after)
    else:
        lease.release()


_UNLIMITED = re.compile(r"/(?:files|batches|tokenizers|signatures)(?:[/?]|$)")


# --- what a request costs ---------------------------------------------------------------------------------------------

_BUDGET = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d{1,9})')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,100})"')

# What is charged for an answer where the request does not bound it (platform.kimi.ai/docs/api/chat, 2026-09).
DEFAULT_BUDGETS = ((b"kimi-k3", 131_072), (b"kimi-k2", 32_768), (b"moonshot-v1", 1_024))
OTHER_BUDGET = 32_768

# An image is some one or two thousand tokens, not a quarter of its base64.
IMAGE = 1_500


def tokens_of(body: bytes) -> tuple[int, int, bool]:
    """
    What a chat request is charged on arrival: prompt, budget of the answer, and whether that budget is the model's default.

    An estimate without decoding, some microseconds even for megabytes: a token for every four bytes of JSON, base64 data counted
    as pictures. In JSON text a quote inside a string is escaped, so `"max_completion_tokens":` can only be a key.
    """
    size = len(body)
    if size > 8_192 and b";base64," in body:
        at = body.find(b";base64,")
        while at >= 0:
            end = body.find(b'"', at)
            if end < 0:
                break
            size -= max(0, end - at - 4 * IMAGE)
            at = body.find(b";base64,", end)
    found = (
        _BUDGET.search(body, 0, 4_096)
        or _BUDGET.search(body, max(0, len(body) - 4_096))
        or _BUDGET.search(body)
    )
    if found:
        return size // 4, int(found[1]), False
    model = _MODEL.search(body)
    name = model[1].lower() if model else b""
    for prefix, budget in DEFAULT_BUDGETS:
        if name.rpartition(b"/")[2].startswith(prefix):
            return size // 4, budget, True
    return size // 4, OTHER_BUDGET, True
