"""
Who may send now: queues and timers around the arithmetic of `law`.
"""

import asyncio
import gc
import heapq
import logging
import os
import random
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from ...errors import RateLimitWaitError
from ...transport.exchange import Request
from ...transport.loops import PerLoop, nobody
from .cost import too_costly
from .law import Law
from .limits import RateLimits, tier_of
from .queue import TICK, Queue, Waiter
from .stats import LimiterStats, LimitStats, finite, rate_stats
from .ticket import Ticket
from .window import INF

__all__ = ["AdmissionController", "Lease"]

logger: logging.Logger = logging.getLogger("kimi_async")


LOOK = 1.0
"""Seconds after which those who wait look whether another thread's loop has ended with slots in its hands: it tells nobody."""

_controllers: "weakref.WeakSet[AdmissionController]" = weakref.WeakSet()


def _after_fork() -> None:
    for controller in list(_controllers):
        controller.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Lease:
    """The permission to have one request under way. `release()` it when its reply has ended; more than once is harmless."""

    __slots__ = ("_controller", "loop", "pause", "reason", "ticket", "waited")

    def __init__(
        self,
        controller: "AdmissionController",
        ticket: Ticket,
        loop: asyncio.AbstractEventLoop,
        waited: float = 0.0,
        reason: str = "",
    ) -> None:
        self._controller = controller
        self.ticket: Ticket = ticket
        self.loop: asyncio.AbstractEventLoop = loop
        self.waited: float = waited
        """Seconds in the queue."""
        self.reason: str = reason
        """What it waited for."""
        self.pause: float = 0.0
        """Once refused: seconds that this request alone should wait."""

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
        if not self.ticket.done:
            self._controller._release(self)  # pyright: ignore[reportPrivateUsage]

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class AdmissionController:
    """
    Lets requests of one organisation go when its limits allow, in order.

    Within a priority it is first come, first served, whatever a request costs: a large one is not overtaken by small ones for ever.
    A higher priority goes first, but every eighth place goes to whoever has waited longest.

    May be shared by several clients, and used from several event loops, also in several threads. For several processes there is
    `SharedController`.
    """

    def __init__(
        self,
        limits: RateLimits | str | Mapping[str, object] | None = None,
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.limits: RateLimits = RateLimits.of(limits)
        self._law = Law(self.limits, dice)
        self._lock = threading.RLock()
        _controllers.add(self)
        self._queues: PerLoop[Queue] = PerLoop()
        self._queue: Callable[[], Queue | None] = nobody
        """A weak reference to the queue of the loop that asked last."""
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
        queue = self._queues.get(asyncio.get_running_loop())
        assert queue is not None
        return await self._wait(queue, tokens, priority, deadline, mode, queued)

    def try_acquire(self, tokens: int | Callable[[], int] = 0) -> Lease | None:
        """A lease if the request may go now and nobody waits before it; None otherwise. Raises `RequestTooCostlyError`."""
        loop = asyncio.get_running_loop()
        queue = self._queue()
        if queue is None or queue.ref() is not loop:
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
            ticket = law.send(cost, now)
            ticket.loop = queue.ref
            return Lease(self, ticket, loop)

    async def _wait(
        self,
        queue: Queue,
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
            if self._too_long(wait):
                raise self._silenced(queue, now, wait)
            # Only what is certain is refused at once: slots may be free sooner than they were on average.
            if deadline is not None and wait < INF and now + wait > deadline:
                left = max(0.0, deadline - now)
                raise self._error(queue, cost, reason, now, f"and only {left:.3g} s are allowed", wait)
            self._numbers += 1
            waiter = Waiter(loop.create_future(), tokens, now if queued is None else queued, deadline, reason)
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
            self._freed(queue)
            raise
        finally:
            if not queue.waiting:
                queue.forget()
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
        raise too_costly("our own limiter refused", tokens, name, cap)

    def _too_long(self, wait: float) -> bool:
        """Whether the server asks for a longer silence than is waited out. Gates are spread by up to a quarter."""
        return self._law.reason == "gate" and 1.25 * self.longest_gate < wait < INF

    def _silenced(self, queue: Queue, now: float, wait: float) -> RateLimitWaitError:
        return self._error(
            queue, 0, "gate", now, f"and only {self.longest_gate:.6g} s are allowed (max_wait)", wait
        )

    def _error(
        self, queue: Queue, tokens: int, reason: str, now: float, why: str, wait: float | None = None
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
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is not None:
            queue.fail(error)

    def alive(self, request: Request, within: float) -> bool:
        """
        Whether the organisation had a request admitted within so many seconds, or has one under way for longer than a refusal takes.
        """
        with self._lock:
            return self._law.alive(within, asyncio.get_running_loop().time())

    def stats(self) -> LimiterStats:
        """What is waiting, for what, and what is known of each limit."""
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:
            now = self._law.time
        with self._lock:
            law = self._law
            waiting = self._waiting()
            wait = law.delay(0, now)
            reason = law.reason if wait > 0 or waiting else None
            concurrency = law.concurrency
            return LimiterStats(
                waiting=waiting,
                waiting_for=reason if waiting else None,
                eta=law.eta(waiting, 0, now),
                in_flight=len(law.inflight),
                concurrency=LimitStats(
                    limit=finite(concurrency.cap),
                    source=concurrency.source,
                    used=len(law.inflight),
                    allowed=finite(min(concurrency.limit, law.outage.limit)),
                ),
                rpm=rate_stats(law.requests, now),
                tpm=rate_stats(law.tokens, now),
                tpd=rate_stats(law.day, now),
                gate=max(0.0, law.gate - law.time),
                overloaded=law.outage.active,
                admitted=law.admissions,
                refused=law.rejections,
            )

    def __repr__(self) -> str:
        return f"<AdmissionController {len(self._law.inflight)} in flight, {self._waiting()} waiting>"

    def _waiting(self) -> int:
        return sum(queue.waiting for _, queue in self._queues.all())

    # --- telling ----------------------------------------------------------------------------------------------------

    def _admitted(self, lease: Lease, headers: Mapping[str, str] | None) -> None:
        loop = lease.loop
        law = self._law
        with self._lock:
            more = law.admitted(lease.ticket, loop.time())
            if headers is not None and law.requests.source == "none" and "msh-gid" in headers:
                self._learn_tier(headers)
                more = True
        if more:
            self._freed(self._queue())

    def _learn_tier(self, headers: Mapping[str, str]) -> None:
        limits = tier_of(headers.get("msh-gid"))
        if limits is not None:
            self._law.tier(limits)

    def _refused(
        self, lease: Lease, dimension: str | None, limit: int | None, current: int | None, hint: float | None
    ) -> None:
        now = lease.loop.time()
        with self._lock:
            lease.pause = self._law.refused(lease.ticket, dimension, limit, current, hint, now)
            self._law.done(lease.ticket, now)
        self._freed(self._queue())

    def _overloaded(self, lease: Lease, hint: float | None) -> None:
        now = lease.loop.time()
        with self._lock:
            lease.pause = self._law.overloaded(lease.ticket, hint, now)
            self._law.done(lease.ticket, now)
        self._freed(self._queue())

    def _release(self, lease: Lease) -> None:
        with self._lock:
            self._law.done(lease.ticket, lease.loop.time())
        self._freed(self._queue())

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and nobody waits."""
        return not self._law.inflight and not self._waiting()

    def give_back(self, lease: Lease) -> None:
        """For a lease that was not used: as if it had never been."""
        self._unsent(lease.ticket, lease.loop)
        self._freed(self._queue())

    def _unsent(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._law.unsent(ticket, loop.time())

    # --- waking -----------------------------------------------------------------------------------------------------

    def _queue_of(self, loop: asyncio.AbstractEventLoop) -> Queue:
        with self._lock:
            self._bury(loop.time())
            queue = self._queues.get(loop)
            if queue is None:
                queue = Queue(loop)
                self._queues.put(loop, queue)
            queue.searched, queue.thread = False, threading.current_thread()
            self._queue = weakref.ref(queue)
            return queue

    def _bury(self, now: float) -> None:
        """What was under way on a loop that is gone will never be given back by anybody."""
        if not self._queues.clean():
            return
        for ticket in list(self._law.inflight.values()):
            if ticket.loop is not None and ((loop := ticket.loop()) is None or loop.is_closed()):
                self._law.done(ticket, now)

    def forked(self) -> None:
        """In a child process: what is under way belongs to the parent, as do its loops, its waiters and the holder of its lock."""
        self._lock = threading.RLock()
        self._queues, self._queue = PerLoop(), nobody
        law = self._law
        for ticket in list(law.inflight.values()):
            law.done(ticket, law.time)

    def _freed(self, mine: Queue | None) -> None:
        """Something may be possible that was not: those who wait are looked at, each on its own loop."""
        if len(self._queues) == 1:
            if mine is None or not mine.waiting:
                return
            if asyncio._get_running_loop() is mine.loop:
                self._pump(mine)
                return
        self._wake_all()

    def _wake_all(self) -> None:
        running = asyncio._get_running_loop()
        for _, queue in self._queues.all():
            if not queue.waiting:
                continue
            if queue.loop is running:
                self._pump(queue)
            else:
                try:
                    queue.loop.call_soon_threadsafe(self._pump, queue)
                except RuntimeError:
                    pass  # that loop is closed, and with it all who waited there

    def _timer(self, queue: Queue) -> None:
        queue.timer = None
        queue.timer_at = INF
        self._search(queue)
        self._pump(queue)

    def _search(self, mine: Queue) -> None:
        """
        Takes back what loops hold that cannot run while one waits here. Of the others some may be held by nobody, and are gone
        only when the collector finds them; a program that waits for their slots gives it no work, so it is sent, once for each.
        """
        still, unsearched = self._idle(mine)
        with self._lock:
            for ticket in list(self._law.inflight.values()):
                if ticket.loop in still:
                    self._law.done(ticket, mine.loop.time())
        if unsearched:
            gc.collect()

    def _idle(self, mine: Queue) -> tuple[set[weakref.ref[asyncio.AbstractEventLoop]], bool]:
        """Of the loops that do not run: those whose thread has ended, or is this one, and whether others were not searched for."""
        me, unsearched = threading.current_thread(), False
        still: set[weakref.ref[asyncio.AbstractEventLoop]] = set()
        for loop, queue in self._queues.all():
            if queue is mine or loop.is_running() or loop.is_closed():
                continue
            if queue.thread is me or not queue.thread.is_alive():
                still.add(queue.ref)
            elif not queue.searched:
                queue.searched = unsearched = True
        return still, unsearched

    def _pump(self, queue: Queue) -> None:
        """Lets go whoever may, in order, and sets the timer for the next."""
        if not queue.waiting:
            queue.drop_timer()
            return
        law = self._law
        now = queue.loop.time()
        with self._lock:
            at = INF
            if len(self._queues) > 1:
                self._bury(now)
                at = now + LOOK
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
                    if self._too_long(wait):
                        queue.fail(partial(self._silenced, queue, now, wait))
                        return
                    waiter.reason = law.reason
                    at = min(at, now + max(wait, TICK))
                    break
                waiter.ticket = law.send(tokens, now)
                waiter.ticket.loop = queue.ref
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
