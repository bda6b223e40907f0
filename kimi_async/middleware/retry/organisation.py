"""
What is known of one account at one host, and of one call to it.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple, Protocol, cast

from ...errors import APIConnectionError, Attempt, KimiError
from ...transport.exchange import Request, Response
from ..chain import Handler
from .breakers import OverloadBreaker
from .policy import Failure, RetryPolicy, Verdict

__all__ = ["KNOCK", "Admissions", "Call", "Lost", "Organisation", "is_unreachable"]

KNOCK = 0.5
"""Seconds between two tries to reach a host that cannot be reached, by all calls of the organisation together."""


def is_unreachable(error: BaseException | None) -> bool:
    """Whether no connection came about, so that nothing was sent."""
    return isinstance(error, APIConnectionError) and error.phase in ("dns", "connect", "tls")


class Admissions(Protocol):
    """What retry asks of the limiter below it."""

    longest_gate: float
    """Seconds of silence that a server may ask for; a longer wish fails those who queue."""

    def alive(self, request: Request, within: float) -> bool:
        """
        Whether a request of the same organisation was admitted within so many seconds, or is under way for longer than a
        refusal takes.
        """
        ...

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Ends the waiting of all who queue, each with an error of its own."""
        ...


class Lost(NamedTuple):
    """What is kept of an error: not the request, nor the frames, which hold the loop."""

    message: str
    phase: str | None


class Organisation:
    """What is known of one account at one host, on one loop, which it does not keep alive."""

    __slots__ = (
        "active",
        "admitted",
        "breaker",
        "lost",
        "quota",
        "quota_probe",
        "quota_since",
        "recent",
        "ref",
        "short",
        "sleepers",
        "turn",
        "unsent",
    )

    def __init__(self, policy: RetryPolicy, loop: asyncio.AbstractEventLoop) -> None:
        self.ref: weakref.ref[asyncio.AbstractEventLoop] = weakref.ref(loop)
        self.active: int = 0
        """Calls under way, waiting ones included."""
        self.admitted: float | None = None
        """When the last good status came."""
        self.breaker: OverloadBreaker = OverloadBreaker(
            policy.overload_threshold, policy.overload_patience, policy.overload_cooldown
        )
        self.recent: deque[Attempt] = deque(maxlen=16)
        """The overloads of the current row, for the error of a call that was never sent."""
        self.quota: str | None = None
        """What the server said about money, while it holds."""
        self.quota_since: float = 0.0
        self.quota_probe: float = 0.0
        self.sleepers: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
        """Held by their timers."""
        self.short: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
        """Those of them who wait for capacity: they go on as soon as somebody is served."""
        self.lost: Lost | None = None
        """The latest failure to connect, while nobody has reached the host since."""
        self.turn: float = 0.0
        """When somebody may try again whether it can be reached."""
        self.unsent: int = 0
        """Calls that a breaker has failed since the last probe."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """For the calls that run on it."""
        return cast("asyncio.AbstractEventLoop", self.ref())

    @property
    def gone(self) -> bool:
        """Whether its loop was closed, or dropped."""
        loop = self.ref()
        return loop is None or loop.is_closed()

    @property
    def open(self) -> bool:
        return self.quota is not None or self.breaker.next_probe is not None

    @property
    def troubled(self) -> bool:
        return self.quota is not None or self.breaker.generations > 0

    def succeeded(self, sent: float) -> None:
        """A request sent at `sent` was answered well. What was sent before the trouble began says nothing about it."""
        self.breaker.succeeded(sent)
        if not self.breaker.generations:
            _wake(self.short)
        if self.quota is not None and sent >= self.quota_since:
            self.quota = None

    def take_turn(self, now: float) -> bool:
        """Whether it is this caller's turn to try; while the host cannot be reached, one tries every half second."""
        if self.lost is None:
            return True
        if now < self.turn:
            return False
        self.turn = now + KNOCK
        return True

    def unreachable(self, error: APIConnectionError, now: float) -> None:
        """Nobody answered at the host's address."""
        self.lost = Lost(error.message, error.phase)
        self.turn = max(self.turn, now + KNOCK)

    def reached(self) -> None:
        """Somebody answered: those who waited for that go on at once."""
        if self.lost is not None:
            self.lost = None
            self.wake()

    async def pause(self, seconds: float, *, short: bool = False) -> None:
        """Sleeps, until a breaker opens at the latest; `short`: or until somebody is served."""
        if seconds <= 0:
            return
        loop = self.loop
        sleeper: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, (sleeper,))
        self.sleepers.add(sleeper)
        if short:
            self.short.add(sleeper)
        try:
            await sleeper
        finally:
            self.sleepers.discard(sleeper)
            self.short.discard(sleeper)
            timer.cancel()

    def wake(self) -> None:
        """Lets those who wait see that waiting is over."""
        _wake(self.sleepers)


def _wake(sleepers: Iterable[asyncio.Future[None]]) -> None:
    for sleeper in sleepers:
        if not sleeper.done():
            sleeper.set_result(None)


class Call:
    """One call that has failed at least once."""

    __slots__ = (
        "attempts",
        "began",
        "error",
        "failure",
        "outcome",
        "previous",
        "quick",
        "reconnected",
        "request",
        "requeued",
        "retries",
        "send",
        "spent",
        "traceback",
        "verdict",
    )

    def __init__(self, request: Request, send: Handler, began: float) -> None:
        self.request: Request = request
        self.send: Handler = send
        self.began: float = began
        self.attempts: int = 1
        """How often it was sent."""
        self.retries: int = 0
        """Retries used."""
        self.previous: float = 0.0
        self.spent: int = 0
        """What its retries took from the budget."""
        self.reconnected: bool = False
        self.requeued: float = -1.0
        """When it was last handed back to the limiter, …"""
        self.quick: int = 0
        """… and how often in a row that came to nothing at once."""
        self.outcome: Response | KimiError | None = None
        """The last failed attempt's reply, or the error it raised …"""
        self.error: KimiError | None = None
        """… and the error that either means."""
        self.traceback: TracebackType | None = None
        self.failure: Failure = Failure(cause="")
        self.verdict: Verdict = Verdict("stop", "")
