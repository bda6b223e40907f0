"""
One member of a shared quota: it keeps what its process has under way, and speaks with the ledger.

    engine = SharedEngine(ledger, RateLimits(...))
    grants = await engine.lease([Ask(tokens)])          or engine.attach(line), which is told of each grant
    engine.report(lease, "admitted")                    what the server said
    engine.release([lease], sent=True)                  the reply has ended
    await engine.aclose()                               leaves: nobody waits for what this member had

One message is under way at a time, and what comes meanwhile goes with the next: 25 leases cost little more than one. It is sent by a
task of the engine's own and never cancelled by a caller, since a connection that was cut in the middle of an answer is of no use to
anybody. Grants are for who waits now; what nobody wants goes back at once. The task ends when there has been nothing to do for a
while.

An engine belongs to the event loop on which it is first used.
"""

import asyncio
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import structs

from ....errors import SharedLimitsError
from ..limits import RateLimits
from .alone import Alone, History
from .message import Answer, Ledger, LedgerUnavailable, SharedView, Sync, conf_of
from .notes import Notes
from .seam import Ask, Grant, Line, OnLost, Outcome

__all__ = ["SharedEngine"]

logger: logging.Logger = logging.getLogger("kimi_async")

# So many of a line are told to the ledger at once.
MOST = 100
# Replies that end while others wait are told together.
GATHER = 0.03
# Refusals come in milliseconds, answers in seconds: silence for so long is an admission, and growth need not wait for answers.
SILENCE = 0.3
# A grant that was longer on its way than this is counted anew from its arrival: the server counts when the request comes.
SLOW = 0.1
LOST = 3
RECONNECT = (0.25, 1.0)
# Whoever never saw the ledger does not send; after so long it says so.
PATIENCE = 5.0
IDLE = 10.0
LEAVING = 2.0
OTHERS = (
    "the server counts %d requests in this minute, and the shared quota %d: others use the organisation's limits. "
    "Do all processes give the same quota= at the same place?"
)
_KINDS = {"concurrency": "slots", "rpm": "rpm", "qps": "rpm", "tpm": "tpm", "tpd": "tpd"}


@dataclass(slots=True)
class _Lease:
    at: float
    tokens: int
    refunded: bool = False
    good: bool = False


class _Asked:
    """The line of one call of `lease`."""

    def __init__(self, asks: Sequence[Ask], future: asyncio.Future[None]) -> None:
        self._asks = asks
        self.future = future
        self.grants: list[Grant] = []

    @property
    def waiting(self) -> int:
        return 0 if self.future.done() else len(self.head(len(self._asks)))

    def head(self, most: int) -> Sequence[Ask]:
        if self.future.done():
            return ()
        return [ask for ask in self._asks if not ask.gone][:most]

    def granted(self, ask: Ask, lease: int) -> bool:
        if self.future.done() and not self.grants:
            return False
        self.grants.append(Grant(lease, ask))
        if not self.future.done():
            self.future.set_result(None)
        return True

    def told(self, reason: str, wait: float) -> None:
        pass

    def failed(self, error: Callable[[], Exception]) -> None:
        if not self.future.done():
            self.future.set_exception(error())


class _Alarm:
    """A time to wait for, which may be moved while it is waited for."""

    __slots__ = ("_future", "due")

    def __init__(self) -> None:
        self.due: float = 0.0
        self._future: asyncio.Future[None] | None = None

    def sooner(self, when: float) -> None:
        if when < self.due:
            self.due = when
            self.ring()

    def ring(self) -> None:
        """Has whoever waits look at the time again."""
        if self._future is not None:
            _resolve(self._future)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        # A loop's clock counts no less than this; a pause below it would be no pause.
        while (left := self.due - loop.time()) > 1e-6:
            self._future = loop.create_future()
            timer = loop.call_later(left, _resolve, self._future)
            try:
                await self._future
            finally:
                timer.cancel()
                self._future = None


class SharedEngine:
    """
    A `SharedLimits` over a ledger. See the module.

    :param limits: what is known of the organisation's limits; what is not is learnt by all members together.
    :param on_lost: what happens while the ledger does not answer: `"share"` goes on with what this member had, `"block"` waits,
        `"raise"` raises `SharedLimitsError`. Whoever has never reached the ledger sends nothing in any case.
    """

    def __init__(
        self,
        ledger: Ledger,
        limits: RateLimits | None = None,
        *,
        on_lost: OnLost = "share",
        name: str = "",
        dice: Callable[[], float] = random.random,
    ) -> None:
        if on_lost not in ("share", "block", "raise"):
            raise ValueError(f"on_lost must be 'share', 'block' or 'raise'; got {on_lost!r}")
        limits = limits if limits is not None else RateLimits()
        self.ledger: Ledger = ledger
        self._patience: float = getattr(ledger, "patience", PATIENCE)
        self.member: str = secrets.token_hex(6)
        self.name: str = name or f"{socket.gethostname()}:{os.getpid()}"
        self._conf = conf_of(limits)
        self._on_lost: OnLost = on_lost
        self._dice = dice
        self._view = SharedView.of(limits)
        self._lines: list[Line] = []
        self._leases: dict[int, _Lease] = {}
        self._numbers = 0
        self._granted = 0
        """Asks whose grant is for a moment to come."""
        self._notes = Notes()
        self._history = History()
        self._epoch = self._seq = self._seen = 0
        self._alone: Alone | None = None
        self._alone_timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._failing_since = 0.0
        self._answers: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._alarm = _Alarm()
        self._last = -1.0
        self._starved = False
        self._priority = 0
        self._others_wait = False
        self._busy = 0.0
        self._closed = False
        self._warned = False

    # --- asked by a limiter -----------------------------------------------------------------------------------------

    def attach(self, line: Line) -> None:
        self._lines.append(line)

    def poke(self, priority: int = 0) -> None:
        if self._closed:
            raise SharedLimitsError("the shared quota was closed with its client")
        loop = self._running()
        if self._task is None:
            self._at(loop.time())
        if self._alone is not None:
            self._pump_alone()
        elif self._starved and priority <= self._priority:
            return  # the ledger has said when to ask again, and one more makes no difference to it
        elif not self._failures:
            self._at(loop.time())

    async def lease(self, asks: Sequence[Ask], *, wait: bool = True) -> list[Grant]:
        loop = self._running()
        line = _Asked(asks, loop.create_future())
        self.attach(line)
        self._starved = False
        self.poke(max((ask.priority for ask in asks), default=0))
        try:
            if wait:
                await line.future
            else:
                self._answers.append(answer := loop.create_future())
                await answer
        except BaseException:
            self.release([grant.lease for grant in line.grants], sent=False)
            line.grants.clear()
            raise
        finally:
            if not line.future.done():
                line.future.cancel()
            self._lines.remove(line)
        return line.grants

    def report(
        self,
        lease: int,
        outcome: Outcome,
        *,
        dimension: str | None = None,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        known = self._leases.get(lease)
        if known is None:
            return
        now = self._running().time()
        if outcome == "admitted":
            if not known.good:
                known.good = True
                self._notes.good()
            if self._starved and self._view.allowed[0] and self._view.allowed[0] != self._view.limits[0]:
                self._at(max(now, self._last + GATHER))  # more may be possible now
            return
        hint = retry_after or 0.0
        if known.tokens and not known.refunded:
            known.refunded = True  # refused requests are charged no tokens
            self._sent(known.at, 0, -known.tokens)
        if current and not self._warned and _counts_more(dimension, current, self._view, self._history):
            self._warned = True
            logger.warning(OTHERS, current, self._view.used[1])
        # Silence ends for nobody in the same millisecond as for the others.
        kind, silence = _refusal(outcome, dimension, limit, hint * (1.0 + 0.1 * self._dice()))
        self._notes.refused(kind, now, limit or 0, current or 0, silence)
        if self._alone is not None:
            self._alone.refused(hint, now)
        elif not self._failures:
            self._at(now)

    def release(self, leases: Sequence[int], *, sent: bool, tokens: int | None = None) -> None:
        gone = [known for known in (self._leases.pop(lease, None) for lease in leases) if known is not None]
        if not gone:
            return
        now = self._running().time()
        for known in gone:
            if not sent:
                self._sent(known.at, -1, 0 if known.refunded else -known.tokens)
            elif tokens is not None and tokens != known.tokens and not known.refunded:
                self._sent(known.at, 0, tokens - known.tokens)
        if self._alone is not None:
            self._pump_alone()
        elif not self._failures and (self._others_wait or self._starved):
            self._at(max(now, self._last + GATHER))

    def suppose(self, limits: RateLimits) -> None:
        """What the server says of the organisation's tier, believed where nobody knows better."""
        told, known = conf_of(limits), self._view.limits
        slots, rpm, tpm, tpd = (
            mine or (0 if believed else new)
            for mine, believed, new in zip(self._conf, known, told, strict=True)
        )
        self._conf = (slots, rpm, tpm, tpd)

    def view(self) -> SharedView:
        return self._view

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        task, self._task = self._task, None
        if self._alone_timer is not None:
            self._alone_timer.cancel()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for line in self._lines:
            line.failed(
                lambda: SharedLimitsError("the client was closed while requests waited for a shared quota")
            )
        if self._epoch and not self._failures:
            self._leases.clear()
            await self._leave()
        await self.ledger.aclose()

    # --- speaking with the ledger -----------------------------------------------------------------------------------

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _at(self, when: float) -> None:
        """Speaks with the ledger at that time, unless it does so before."""
        if self._closed:
            return
        if self._task is None:
            assert self._loop is not None
            self._alarm.due = when
            self._busy = when
            self._task = self._loop.create_task(self._run(), name="kimi_async shared limits")
        else:
            self._alarm.sooner(when)

    async def _run(self) -> None:
        loop = self._running()
        try:
            while True:
                await self._alarm.wait(loop)
                if self._is_idle(loop.time()):
                    await self._leave()
                    if self._is_idle(loop.time()):
                        break
                try:
                    await self._once()
                except Exception as error:
                    self._broken(error)
        finally:
            if not self._closed:
                self._task = None

    def _is_idle(self, now: float) -> bool:
        if self._leases or self._notes or any(line.waiting for line in self._lines):
            self._busy = now
        return now - self._busy > IDLE

    async def _leave(self) -> None:
        message = self._message([])
        message.leave = 1
        try:
            async with asyncio.timeout(
                LEAVING
            ):  # a client that is closed waits for it, and cannot be cancelled
                await self.ledger.sync(message)
            self._notes.heard(message.seq)
        except Exception as error:  # it will find out by itself
            logger.debug("leaving the shared quota failed: %s", error)
        self._seen = 0
        self._change(mode="idle")

    async def _once(self) -> None:
        asked = _asked(self._lines, self._granted, self._running().time())
        message = self._message(asked)
        loop = self._running()
        began = loop.time()
        self._alarm.due = began + 3600.0
        try:
            answer = await self.ledger.sync(message)
        except LedgerUnavailable as error:
            self._lost(error, loop.time())
            return
        finally:
            self._last = began
        self._heard(message, asked, answer, began, loop.time())

    def _broken(self, error: Exception) -> None:
        """Not an outage: a fault of the ledger, or of ours. Nobody is let go on its account, and each is told why."""
        logger.exception("the shared quota's ledger failed", exc_info=error)
        self._failures += 1
        self._alarm.due = self._running().time() + RECONNECT[1]
        text = str(error)
        self._fail(lambda: SharedLimitsError(f"the ledger of the shared quota failed: {text}"))

    def _message(self, asked: Sequence[tuple[Line, Ask]]) -> Sync:
        now = self._running().time()
        self._seq += 1
        if self._view.allowed[0] != self._view.limits[0]:
            for known in self._leases.values():
                if not known.good and now - known.at > SILENCE:
                    known.good = True
                    self._notes.good()
        return Sync(
            member=self.member,
            name=self.name,
            seq=self._seq,
            seen=self._seen,
            epoch=self._epoch,
            seed=secrets.randbits(40) or 1,
            mono=int(now * 1000),
            held=len(self._leases),
            want=[(ask.tokens, ask.priority) for _, ask in asked],
            waiting=max(len(asked), self._waiting()),
            items=self._notes.items(self._seq, now),
            conf=self._conf,
        )

    def _heard(
        self, message: Sync, asked: Sequence[tuple[Line, Ask]], answer: Answer, began: float, now: float
    ) -> None:
        if self._failures:
            logger.info("the shared quota's ledger answers again")
        self._failures = 0
        self._alone = None
        if answer.state == "register":
            # Another ledger, which knows nothing: it is told what this member sent in the last minute.
            self._epoch = answer.epoch
            self._seen = 0
            self._history.expire(now)
            self._notes.begin_anew(self._history.entries)
            self._alarm.due = now
            return
        if answer.state != "ok":
            self._alarm.due = now + RECONNECT[0]
            return
        self._epoch = answer.epoch
        self._seen = message.seq
        self._notes.heard(message.seq)
        self._others_wait = answer.lining > (1 if answer.reason else 0)
        self._starved = bool(answer.reason)
        self._priority = max((ask.priority for _, ask in asked), default=0)
        late = now - began > SLOW
        for (line, ask), delay in zip(asked, answer.grants, strict=False):
            self._numbers += 1
            lease = self._numbers
            wait = max(0.0, delay / 1000 - (now - began if late else 0.0))
            known = self._leases[lease] = _Lease(now + wait, ask.tokens)
            if late:
                self._notes.sent(began, -1, -ask.tokens)
                self._notes.sent(known.at, 1, ask.tokens)
            self._history.add(known.at, 1, ask.tokens)
            self._granted += 1
            ask.granted = True
            if wait > 0.0:
                self._running().call_later(wait, self._deliver, line, ask, lease)
            else:
                self._deliver(line, ask, lease)
        self._view = self._view.after(answer, now)
        self._answered()
        again = answer.again / 1000
        self._alarm.due = min(
            self._alarm.due, now + again * (1.0 + 0.2 * self._dice()) if again < 1.0 else now + again
        )
        if answer.reason:
            for line in list(self._lines):
                line.told(answer.reason, answer.wait / 1000)
        elif self._waiting() > 0:
            self._alarm.due = now  # they came while the question was under way
        self._alarm.ring()

    def _waiting(self) -> int:
        return sum(line.waiting for line in self._lines) - self._granted

    def _deliver(self, line: Line, ask: Ask, lease: int) -> None:
        self._granted -= 1
        if lease in self._leases and (ask.gone or not line.granted(ask, lease)) and not self._closed:
            self.release((lease,), sent=False)

    def _answered(self) -> None:
        for future in self._answers:
            _resolve(future)
        self._answers.clear()

    def _change(self, *, mode: Literal["shared", "alone", "learning", "blocked", "idle"]) -> None:
        assert self._loop is not None
        if self._view.mode != mode:
            self._view = structs.replace(self._view, mode=mode, since=self._loop.time())

    def _sent(self, at: float, count: int, tokens: int) -> None:
        """Counts what the ledger has not granted, or takes back what it has."""
        self._history.add(at, count, tokens)
        self._notes.sent(at, count, tokens)

    def _fail(self, error: Callable[[], Exception]) -> None:
        for line in list(self._lines):
            line.failed(error)
        for future in self._answers:
            if not future.done():
                future.set_exception(error())
        self._answers.clear()

    # --- while the ledger is away -----------------------------------------------------------------------------------

    def _lost(self, error: LedgerUnavailable, now: float) -> None:
        """It did not answer. Once may be the connection, twice bad luck; thrice is an outage."""
        self._failures += 1
        if self._failures == 1:
            self._failing_since = now
        if self._failures < LOST:
            self._alarm.due = now + 0.1 * (self._failures - 1)
            return
        # Never faster, also if there is something to tell: what comes back is not to be overrun.
        pause = min(RECONNECT[1], RECONNECT[0] * 2.0 ** (self._failures - LOST))
        self._alarm.due = now + pause * (0.75 + 0.5 * self._dice())
        text = str(error)

        def lost() -> SharedLimitsError:
            return SharedLimitsError(f"the shared quota cannot be reached: {text}")

        if self._failures == LOST:
            logger.warning("the shared quota cannot be reached (on_lost=%r): %s", self._on_lost, text)
        if self._on_lost == "raise" or (
            self._on_lost == "share" and not self._epoch and now - self._failing_since > self._patience
        ):
            self._change(mode="blocked")
            self._fail(lost)
        elif self._on_lost == "share" and self._epoch:
            if self._alone is None:
                self._alone = Alone(self._view, self._history, now)
            self._change(mode="alone")
            self._pump_alone()
        else:
            self._change(mode="blocked")
            for line in list(self._lines):
                line.told("shared", pause)
        self._answered()

    def _pump_alone(self) -> None:
        """Lets go whoever may without being asked for."""
        alone, loop = self._alone, self._running()
        if alone is None:
            return
        now = loop.time()
        for line, ask in _asked(self._lines, self._granted, now):
            wait, reason = alone.delay(ask.tokens, len(self._leases), self._history, now)
            if wait > 0.0:
                for each in list(self._lines):
                    each.told(reason, 0.0 if wait == float("inf") else wait)
                if wait < 60.0 and (self._alone_timer is None or self._alone_timer.when() < now):
                    self._alone_timer = loop.call_later(max(wait, 0.001), self._pump_alone)
                return
            alone.sent(now)
            self._numbers += 1
            self._leases[self._numbers] = _Lease(now, ask.tokens)
            self._sent(now, 1, ask.tokens)
            self._granted += 1
            ask.granted = True
            self._deliver(line, ask, self._numbers)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _asked(lines: Sequence[Line], granted: int, now: float) -> list[tuple[Line, Ask]]:
    """The first of all lines who are not to go in a moment anyway."""
    asked: list[tuple[Line, Ask]] = []
    for line in list(lines):
        for ask in line.head(MOST - len(asked) + granted):
            if not ask.granted and (ask.deadline is None or ask.deadline > now) and len(asked) < MOST:
                asked.append((line, ask))
        if len(asked) >= MOST:
            break
    return asked


def _refusal(outcome: Outcome, dimension: str | None, limit: int | None, hint: float) -> tuple[str, int]:
    """As what a refusal is told, and the silence in ms that comes with it."""
    if outcome == "overloaded":
        return "over", int(1000 * hint)
    kind = _KINDS.get(dimension or "", "some")
    if kind == "slots" and hint <= 1.65:
        return kind, 0 if limit else 100  # a slot may be free in the next millisecond
    return kind, int(1000 * hint)


def _counts_more(dimension: str | None, current: int, view: SharedView, history: History) -> bool:
    """Whether the server counts far more requests than the quota does."""
    return dimension in ("rpm", "qps") and current > 2 * max(view.used[1], history.count) + 10
