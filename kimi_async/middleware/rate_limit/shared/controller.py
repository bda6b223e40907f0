"""
A limiter that keeps a queue and no limits: who may go is decided by a ledger that other processes ask too.
"""

import asyncio
import heapq
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

from ....errors import RateLimitWaitError, RequestTooCostlyError
from ....transport.exchange import Request
from ....transport.loops import PerLoop
from ..cost import too_costly
from ..limits import RateLimits, tier_of
from ..queue import FAIR_EVERY, Queue, Waiter
from ..stats import LimiterStats, LimitStats
from .engine import SharedEngine
from .message import SharedView
from .quota import SharedQuota
from .seam import Ask

__all__ = ["SharedController", "SharedLease"]

LONGEST_GATE = 120.0

_NAMES = {"concurrency": 0, "rpm": 1, "tpm": 2, "tpd": 3}
_REASONS = {
    "gate": "the server asked for silence",
    "overloaded": "the service is overloaded",
    "concurrency": "all slots are taken",
    "rpm": "the requests of the minute are spent",
    "tpm": "the tokens of the minute are spent",
    "tpd": "the tokens of the day are spent",
    "learning": "the ledger was lost and hears first what others have sent",
    "turn": "it is the turn of another process",
    "shared": "the shared quota cannot be reached",
}


class _Waiter(Waiter):
    """Somebody who waits, and what the engine asks for on its behalf."""

    __slots__ = ("ask", "lease", "timer")

    def __init__(
        self,
        future: asyncio.Future[None],
        tokens: int | Callable[[], int],
        queued: float,
        ask: "_Ask",
    ) -> None:
        super().__init__(future, tokens, queued, ask.deadline, "")
        self.ask = ask
        self.lease: int | None = None
        self.timer: asyncio.TimerHandle | None = None
        ask.waiter = self


class _Ask(Ask):
    __slots__ = ("waiter",)
    waiter: _Waiter


class SharedLease:
    """The permission to have one request under way. `release()` it when its reply has ended; more than once is harmless."""

    __slots__ = ("_at", "_done", "_line", "number", "pause", "reason", "waited")

    def __init__(self, line: "_LoopLine", number: int, at: float, waited: float, reason: str) -> None:
        self._line = line
        self._at = at
        self._done = False
        self.number: int = number
        self.waited: float = waited
        self.reason: str = reason
        self.pause: float = 0.0

    @property
    def ticket(self) -> "SharedLease":
        return self

    @property
    def sent(self) -> float:
        """When it was let go, on the loop's clock."""
        return self._at

    def admitted(self, headers: Mapping[str, str] | None = None) -> None:
        """The server took the request: its good status has come."""
        self._line.admitted(self.number, headers)

    def refused(
        self,
        dimension: str | None = None,
        *,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """The server refused it for a limit; this releases the lease."""
        if not self._done:
            self._line.refusals += 1
            self._line.engine.report(
                self.number,
                "refused",
                dimension=dimension,
                limit=limit,
                current=current,
                retry_after=retry_after,
            )
        self.release()

    def overloaded(self, retry_after: float | None = None) -> None:
        """The server has no capacity; this releases the lease."""
        if not self._done:
            self._line.refusals += 1
            self._line.engine.report(self.number, "overloaded", retry_after=retry_after)
        self.release()

    def release(self) -> None:
        """The reply has ended, or will never come."""
        if not self._done:
            self._done = True
            self._line.release(self.number, sent=True)

    def __enter__(self) -> "SharedLease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _LoopLine:
    """Those who wait on one event loop, as the engine of that loop sees them."""

    def __init__(
        self, controller: "SharedController", engine: SharedEngine, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.engine = engine
        self.loop = loop
        self.queue: Queue = Queue(loop)
        self.numbers: int = 0
        self.reason: str = ""
        self.wait: float = 0.0
        self.under_way: dict[int, float] = {}
        self.last_admitted: float = float("-inf")
        self.admissions: int = 0
        self.refusals = 0
        self._controller: weakref.ref[SharedController] = weakref.ref(controller)
        """The loop holds this, and must not hold whoever let go of the client."""
        engine.attach(self)

    @property
    def waiting(self) -> int:
        return self.queue.waiting

    @property
    def _longest_gate(self) -> float:
        controller = self._controller()
        return LONGEST_GATE if controller is None else controller.longest_gate

    def head(self, most: int) -> Sequence[Ask]:
        queue = self.queue
        if not queue.waiting or most <= 0:
            return ()
        counts = counts_tokens(self.engine.view())
        first: list[Ask] = []
        # Those who are gone are still in the heap: some more are taken than are needed.
        entries = heapq.nsmallest(most, (entry for entry in queue.heap if not entry[3].future.done()))
        waiters = [entry[3] for entry in entries]
        if queue.mixed:
            waiters = self._with_the_oldest(waiters, most)
        for waiter in waiters:
            ask = cast("_Waiter", waiter).ask
            if counts and not isinstance(waiter.tokens, int):
                waiter.tokens = ask.tokens = waiter.tokens()  # it came before the limit was known
                try:
                    _check_cost(ask.tokens, self.engine.view())
                except RequestTooCostlyError as error:
                    self._end(waiter, error)
                    continue
            first.append(ask)
        return first

    def _with_the_oldest(self, waiters: list[Waiter], most: int) -> list[Waiter]:
        """Every eighth place goes to whoever has waited longest, whatever the priorities."""
        oldest = [waiter for waiter in self.queue.line if not waiter.future.done()]
        order: list[Waiter] = []
        placed: set[int] = set()
        by_age, by_priority = iter(oldest), iter(waiters)
        while len(order) < min(most, len(waiters)):
            fair = (self.queue.granted + len(order)) % FAIR_EVERY == FAIR_EVERY - 1
            waiter = next(
                (each for each in (by_age if fair else by_priority) if id(each) not in placed), None
            )
            if waiter is None:
                break
            placed.add(id(waiter))
            order.append(waiter)
        return order

    def granted(self, ask: Ask, lease: int) -> bool:
        waiter = cast("_Ask", ask).waiter
        if waiter.future.done():
            return False
        waiter.lease = lease
        self._end(waiter, None)
        self.queue.granted += 1
        return True

    def told(self, reason: str, wait: float) -> None:
        self.reason, self.wait = reason, wait
        now = self.loop.time()
        queue = self.queue
        if reason in ("gate", "tpd") and wait > 1.25 * self._longest_gate:
            for *_, waiter in queue.heap:
                if not waiter.future.done():
                    allowed = f"and only {self._longest_gate:.6g} s are allowed (max_wait)"
                    self._end(waiter, self.error(reason, wait, allowed))
            return
        deadlines = queue.deadlines
        while deadlines and (deadlines[0][2].future.done() or deadlines[0][0] < now + wait):
            at, _, waiter = heapq.heappop(deadlines)
            if not waiter.future.done():
                left = max(0.0, at - now)
                self._end(waiter, self.error(reason, wait, f"and only {left:.3g} s are allowed"))

    def failed(self, error: Callable[[], BaseException]) -> None:
        for *_, waiter in self.queue.heap:
            if not waiter.future.done():
                self._end(waiter, error())

    def _end(self, waiter: Waiter, error: BaseException | None) -> None:
        waiter.reason = waiter.reason or self.reason
        self.queue.waiting -= 1
        cast("_Waiter", waiter).ask.gone = error is not None
        if error is None:
            waiter.future.set_result(None)
        else:
            waiter.future.set_exception(error)

    def error(self, reason: str, wait: float, why: str) -> RateLimitWaitError:
        view = self.engine.view()
        limit = view.limits[_NAMES[reason]] if reason in _NAMES else 0
        of = f" ({reason} {limit:,}, shared by {view.members})" if limit else ""
        return RateLimitWaitError(
            f"the shared quota held the request back: {_REASONS.get(reason, 'others are waiting')}{of}; it would be sent in about "
            f"{wait:.3g} s, {why}",
            eta=wait,
            reason=reason or None,
            limit=float(limit) if limit else None,
        )

    async def acquire(
        self,
        tokens: int | Callable[[], int],
        priority: int,
        deadline: float | None,
        mode: str,
        queued: float | None,
    ) -> SharedLease:
        loop = self.loop
        now = loop.time()
        view = self.engine.view()
        cost = 0
        if counts_tokens(view):
            tokens = cost = tokens if isinstance(tokens, int) else tokens()
            _check_cost(cost, view)
        if mode == "fail_fast":
            return await self._at_once(cost, priority)
        if self.queue.waiting and self.reason == "gate" and self.wait > 1.25 * self._longest_gate:
            raise self.error(self.reason, self.wait, "and so long a wait is not allowed (max_wait)")
        if deadline is not None and deadline <= now:
            raise self.error(self.reason, self.wait, "and the time allowed for the call is over")
        ask = _Ask(cost, priority, deadline)
        waiter = _Waiter(loop.create_future(), tokens, now if queued is None else queued, ask)
        if isinstance(tokens, int):
            ask.tokens = tokens
        self.numbers += 1
        self.queue.push(waiter, priority, self.numbers)
        if deadline is not None:
            waiter.timer = loop.call_at(deadline, self._late, waiter)
        self.engine.poke(priority)
        try:
            await waiter.future
        except BaseException:
            ask.gone = True
            if waiter.lease is not None:
                self.engine.release((waiter.lease,), sent=False)  # granted and cancelled in the same turn
            elif waiter.future.cancelled():
                self.queue.waiting -= 1
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
            if not self.queue.waiting:
                self.queue.forget()
        assert waiter.lease is not None
        return self._lease(waiter.lease, now, waiter.reason)

    def _lease(self, number: int, asked: float, reason: str) -> SharedLease:
        at = self.loop.time()
        self.under_way[number] = at
        # A round trip to the ledger is no wait for a limit.
        waited = at - asked if reason else 0.0
        return SharedLease(self, number, at, waited, reason)

    async def _at_once(self, cost: int, priority: int) -> SharedLease:
        why = "and it was not to wait (mode='fail_fast')"
        if self.queue.waiting:
            raise self.error(self.reason, self.wait, why)
        now = self.loop.time()
        grants = await self.engine.lease([Ask(cost, priority)], wait=False)
        if not grants:
            view = self.engine.view()
            raise self.error(view.reason or "shared", view.wait, why)
        return self._lease(grants[0].lease, now, "")

    def _late(self, waiter: _Waiter) -> None:
        if not waiter.future.done():
            self._end(waiter, self.error(self.reason, self.wait, "and the time allowed for the call is over"))

    def admitted(self, number: int, headers: Mapping[str, str] | None) -> None:
        if headers is not None and not self.engine.view().limits[1] and "msh-gid" in headers:
            tier = tier_of(headers.get("msh-gid"))
            if tier is not None:
                self.engine.suppose(tier)
        self.admissions += 1
        self.last_admitted = self.loop.time()
        self.engine.report(number, "admitted")

    def release(self, number: int, *, sent: bool) -> None:
        self.under_way.pop(number, None)
        self.engine.release((number,), sent=sent)


class SharedController:
    """
    Lets requests of one organisation go when the quota that it shares with other processes allows, in order.

    The `Limiter` of a client with `shared=`. Within a process the order is that of `AdmissionController`; between processes whoever is
    more urgent, or waits longer, goes first where there is not enough for all.
    """

    def __init__(self, quota: SharedQuota) -> None:
        self.limits: RateLimits = quota.limits
        self.quota: SharedQuota = quota
        self.longest_gate: float = LONGEST_GATE
        self._lines: PerLoop[_LoopLine] = PerLoop()

    def _line(self) -> _LoopLine:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            self._lines.clean()
            line = _LoopLine(self, self.quota.engine(), loop)
            self._lines.put(loop, line)
        return line

    def _known(self) -> list[_LoopLine]:
        return [line for _, line in self._lines.all()]

    @property
    def counts_tokens(self) -> bool:
        """Whether a limit on tokens is known, so that it matters what a request costs."""
        return any(counts_tokens(line.engine.view()) for line in self._known()) or bool(
            self.limits.tpm or self.limits.tpd
        )

    def try_acquire(self, tokens: int | Callable[[], int] = 0) -> SharedLease | None:
        """None: who may go is known only to the ledger."""
        return None

    async def acquire(
        self,
        tokens: int | Callable[[], int] = 0,
        *,
        priority: int = 0,
        deadline: float | None = None,
        mode: Literal["wait", "fail_fast"] = "wait",
        queued: float | None = None,
    ) -> SharedLease:
        """
        Waits for the turn of a request that costs `tokens`; a function is asked only if a limit on tokens is known.

        :raises RateLimitWaitError: the wait is certain to go beyond the deadline, or there is one (`fail_fast`), or the deadline came.
        :raises RequestTooCostlyError: it can never fit.
        :raises SharedLimitsError: the ledger cannot be reached, and `on_lost` or its never having been reached forbids to send.
        """
        return await self._line().acquire(tokens, priority, deadline, mode, queued)

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Tells everybody who waits on the running loop that waiting is of no use: `error` makes what each is raised."""
        line = self._lines.get(asyncio.get_running_loop())
        if line is not None:
            line.failed(error)

    def alive(self, request: Request, within: float) -> bool:
        """Whether this process had a request admitted within so many seconds, or has one under way for longer than a refusal takes."""
        line = self._line()
        now = line.loop.time()
        if now - line.last_admitted <= within:
            return True
        first = next(iter(line.under_way.values()), None)
        return first is not None and now - first > 2.0

    def view(self) -> SharedView:
        """What is known of the whole organisation's quota, by the latest word of the ledger."""
        lines = self._known()
        if lines:
            return lines[-1].engine.view()
        return SharedView.of(self.limits)

    def stats(self) -> LimiterStats:
        """What is waiting, for what, and what is known of each limit: `used` is the whole organisation's."""
        lines = self._known()
        view = self.view()
        waiting = sum(line.waiting for line in lines)
        wait = max((line.wait for line in lines if line.waiting), default=view.gate)
        everybody = max(view.waiting, waiting)
        rpm, slots = view.allowed[1], view.allowed[0]
        queue = 60.0 * everybody / rpm if rpm and everybody else 0.0

        def stats(which: int, allowed: int) -> LimitStats:
            limit = view.limits[which]
            return LimitStats(
                limit=float(limit) if limit else None,
                source=view.sources[which],
                used=view.used[which],
                allowed=float(allowed) if allowed else None,
            )

        return LimiterStats(
            waiting=waiting,
            waiting_for=next((line.reason for line in lines if line.waiting and line.reason), None),
            eta=wait + queue,
            in_flight=sum(len(line.under_way) for line in lines),
            concurrency=stats(0, slots),
            rpm=stats(1, rpm),
            tpm=stats(2, view.limits[2]),
            tpd=stats(3, view.limits[3]),
            gate=view.gate,
            overloaded=view.overloaded,
            admitted=sum(line.admissions for line in lines),
            refused=sum(line.refusals for line in lines),
        )

    @property
    def idle(self) -> bool:
        """Whether this process has nothing under way, and nobody waits in it."""
        return not any(line.under_way or line.waiting for line in self._known())

    async def aclose(self) -> None:
        """Leaves the quota, so that what this process had is the others' at once."""
        await self.quota.aclose()

    def __repr__(self) -> str:
        waiting = sum(line.waiting for line in self._known())
        under_way = sum(len(line.under_way) for line in self._known())
        return f"<SharedController {self.quota.quota} {under_way} in flight, {waiting} waiting>"


def counts_tokens(view: SharedView) -> bool:
    return bool(view.limits[2] or view.limits[3])


def _check_cost(tokens: int, view: SharedView) -> None:
    for which, name in ((2, "tpm"), (3, "tpd")):
        limit = view.limits[which]
        if limit and tokens > limit and view.sources[which] in ("config", "told"):
            raise too_costly("the shared quota can never hold", tokens, name, limit)
