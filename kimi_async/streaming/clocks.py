"""
The clocks of a streamed reply, and a stream's turn in the loop.

`Timeout.first_token`, `idle` and `total` count decoded events rather than bytes, so that comments and blank lines cannot stretch
them, and they run only while the stream is being waited for. `limit_of` decides; `Clocks` acts on it; `Turn` says when somebody
else should have the loop.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from ..transport.exchange import Timeout
from ..transport.loops import PerLoop

__all__ = ["Clocks", "Ticks", "Turn", "limit_of", "ticks_of", "turn_of"]

# Some servers say finish_reason and then neither [DONE] nor goodbye (MoonshotAI/kimi-code#2762). The answer is whole by then;
# this is for the usage that may follow.
GRACE = 5.0

# Turns of the loop between a clock's running out and our believing it. When something else has kept the loop busy, the timer may
# be heard before the socket; the server was not silent because we did not listen. asyncio reads sockets before it looks at
# timers, uvloop after; in three turns what had come is digested with either.
TURNS = 3

WAITS, FLOWS, SAID = 0, 1, 2
"""Before the first event; after it; after the last finish_reason."""


def limit_of(timeout: Timeout, state: int, started: float, since: float) -> tuple[float, str] | None:
    """
    When the present wait must end, in loop time, and which bound says so.

    :param started: when the request was sent; `since`: when this wait began.
    """
    limit: tuple[float, str] | None = None
    if state == WAITS:
        if timeout.first_token is not None:
            limit = (started + timeout.first_token, "first_token")
    elif state == FLOWS:
        if timeout.idle is not None:
            limit = (since + timeout.idle, "idle")
    else:
        limit = (since + (GRACE if timeout.idle is None else min(GRACE, timeout.idle)), "grace")
    if timeout.total is not None and (limit is None or started + timeout.total < limit[0]):
        limit = (started + timeout.total, "total")
    return limit


class Clocks:
    """Ends a wait by cancelling its task when the limit has passed; `expired` then says that it was we."""

    __slots__ = (
        "__weakref__",
        "cancelling",
        "expired",
        "loop",
        "since",
        "started",
        "state",
        "task",
        "timeout",
        "timer",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: Timeout, started: float) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.timeout: Timeout = timeout
        self.started: float = started
        self.state: int = WAITS
        self.since: float = 0.0
        """When the present wait began."""
        self.task: asyncio.Task[Any] | None = None
        """Who waits; None while nobody does."""
        self.cancelling: int = 0
        self.expired: bool = False
        self.timer: asyncio.TimerHandle | None = None

    def limit(self) -> tuple[float, str] | None:
        return limit_of(self.timeout, self.state, self.started, self.since)

    def moved(self, state: int) -> None:
        """Another bound holds from the next wait on."""
        if self.state != state:
            self.state = state
            self.stop()

    def watch(self) -> None:
        # One timer a stream, not one a wait: `since` moves on with every wait (60 ns), and the timer looks at it only when it
        # fires. It holds the clocks weakly, so that a dropped stream is collected at once and not after `idle` seconds.
        limit = self.limit()
        if limit is not None:
            self.timer = self.loop.call_at(limit[0], _look, cast("weakref.ref[Clocks]", weakref.ref(self)))

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def look(self, turns: int) -> None:
        if turns == TURNS:
            self.timer = None
        elif self.timer is not None:
            return  # it was not silence: a later wait has begun
        if self.task is None:
            return  # nobody waits; the next wait sets a timer
        limit = self.limit()
        if limit is None:
            return
        if limit[0] > self.loop.time():
            self.watch()
        elif turns:
            self.loop.call_soon(_look, cast("weakref.ref[Clocks]", weakref.ref(self)), turns - 1)
        else:
            self.expired = True
            self.task.cancel()


def _look(ref: "weakref.ref[Clocks]", turns: int = TURNS) -> None:
    clocks = ref()
    if clocks is not None:
        clocks.look(turns)


# How long streams may keep the loop to themselves before the other tasks have their turn. With the slice that is being handled
# and the reading of the sockets the worst delay of another task stays below three of these; at 6 ms streams took 3 % more CPU
# (`python -m benchmarks -w fair`).
SHARE = 0.010
# A turn is noted at most so often, which spares streams that wait for every packet a callback with each.
NOTED = 0.002


class Turn:
    """
    How long the present turn of one loop has been streams' only. A stream whose data is always there never waits, and a loop
    in which nobody waits serves nobody else: no timer, no cancellation, no heartbeat.
    """

    __slots__ = ("_cost", "_loop", "_queue", "_runs", "_since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._since = 0.0
        self._runs = False
        self._queue: deque[asyncio.Future[None]] = deque()
        """Who waits for a turn with what was read, first come, first served."""
        self._cost = SHARE / 8
        """Seconds that a reader lately took for what it had waited with: so many of them have the next turn as fit into the share."""

    def is_over(self, now: float, goes_on: bool = False) -> bool:
        """Whether whoever asks should let the others have the loop first (`wait`). Who `goes_on` need not queue for the same turn."""
        if self._runs:
            return now - self._since > SHARE or (bool(self._queue) and not goes_on)
        if self._queue and not goes_on:
            return True
        if now - self._since > NOTED:
            self._runs = True
            self._since = now
            self._loop.call_soon(self._end)
        return False

    async def wait(self) -> None:
        """Returns when it is this one's turn."""
        future = self._loop.create_future()
        self._queue.append(future)
        if len(self._queue) == 1:
            self._loop.call_soon(self._release)
        await future

    def took(self, seconds: float) -> None:
        """How long one had the loop after its `wait`."""
        self._cost += (min(seconds, SHARE) - self._cost) / 8

    def _end(self) -> None:
        self._runs = False

    def _release(self) -> None:
        left = min(256, int(SHARE / max(self._cost, 1e-6)) or 1)
        queue = self._queue
        while queue and left:
            future = queue.popleft()
            if not future.done():
                future.set_result(None)
                left -= 1
        if queue:
            self._loop.call_soon(self._release)


_turns: PerLoop[Turn] = PerLoop()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """The one that all streams of a loop share."""
    turn = _turns.get(loop)
    if turn is None:
        turn = Turn(loop)
        _turns.put(loop, turn)
    return turn


# Pauses of many streams end together, so that one timer and one look at the sockets serve them all.
TICK = 0.05


class Ticks:
    """
    The moments at which the streams of one loop take up their connections again: many at once, and so many that others have
    the loop between them.
    """

    __slots__ = ("_alone", "_due", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[int, list[Callable[[int], None]]] = {}
        self._alone = 0

    def call(self, now: float, seconds: float, callback: Callable[[int], None]) -> int:
        """
        Calls back, with the number that this returns, at the last tick within so many seconds; at the next if there is none.
        """
        tick = max(int((now + seconds) / TICK), int(now / TICK) + 1)
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = []
            self._loop.call_at(tick * TICK, self._ring, tick)
        due.append(callback)
        return tick

    def call_alone(self, now: float, seconds: float, callback: Callable[[int], None]) -> int:
        """The same by a timer of its own, for pauses that are shorter than a tick."""
        self._alone -= 1
        self._loop.call_at(now + seconds, callback, self._alone)
        return self._alone

    def _ring(self, tick: int) -> None:
        due, now = self._due[tick], self._loop.time
        until = now() + SHARE / 2
        try:
            while due:
                due.pop()(tick)
                if now() > until:
                    break
        finally:  # one that fails keeps nobody from being called
            if due:
                self._loop.call_soon(self._ring, tick)
            else:
                del self._due[tick]


_ticks: PerLoop[Ticks] = PerLoop()


def ticks_of(loop: asyncio.AbstractEventLoop) -> Ticks:
    """The ticks that all streams of a loop share."""
    ticks = _ticks.get(loop)
    if ticks is None:
        ticks = Ticks(loop)
        _ticks.put(loop, ticks)
    return ticks
