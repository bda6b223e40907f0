"""
Who waits, in which order, on one event loop.
"""

import asyncio
import heapq
import threading
import weakref
from collections import deque
from collections.abc import Callable

from .ticket import Ticket
from .window import INF

__all__ = ["FAIR_EVERY", "TICK", "Queue", "Waiter"]

# A wait below this is not worth a timer, and a clock far from zero could not even count it.
TICK = 1e-4


# Every so many grants one goes to whoever has waited longest, whatever the priorities: the least urgent request waits at
# most eight times its place in the line.
FAIR_EVERY = 8


class Waiter:
    __slots__ = ("deadline", "future", "queued", "reason", "ticket", "tokens")

    def __init__(
        self,
        future: asyncio.Future[None],
        tokens: int | Callable[[], int],
        queued: float,
        deadline: float | None,
        reason: str,
    ) -> None:
        self.future: asyncio.Future[None] = future
        self.tokens: int | Callable[[], int] = tokens
        self.queued: float = queued
        self.deadline: float | None = deadline
        self.reason: str = reason
        self.ticket: Ticket | None = None


class Queue:
    """Those who wait on one event loop, which holds it. Only that loop's thread touches it."""

    __slots__ = (
        "__weakref__",
        "deadlines",
        "granted",
        "heap",
        "line",
        "loop",
        "mixed",
        "ref",
        "searched",
        "thread",
        "timer",
        "timer_at",
        "waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.ref: weakref.ref[asyncio.AbstractEventLoop] = weakref.ref(loop)
        self.searched: bool = False
        """Whether the loop was looked for among what nobody holds any more, since it last asked in turn with another."""
        self.thread: threading.Thread = threading.current_thread()
        """In which it ran then."""
        self.heap: list[tuple[int, float, int, Waiter]] = []
        """(-priority, when it was first queued, a number, who)."""
        self.line: deque[Waiter] = deque()
        """The same in the order of coming, kept once there are several priorities."""
        self.deadlines: list[tuple[float, int, Waiter]] = []
        self.mixed: bool = False
        self.granted: int = 0
        self.waiting: int = 0
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at: float = INF

    def push(self, waiter: Waiter, priority: int, number: int) -> None:
        if not self.waiting:
            self.forget()
        elif self.heap and not self.mixed and -self.heap[0][0] != priority:
            self.mixed = True
            self.line.extend(entry[3] for entry in sorted(self.heap, key=lambda entry: entry[1:3]))
        heapq.heappush(self.heap, (-priority, waiter.queued, number, waiter))
        if self.mixed:
            self.line.append(waiter)
        if waiter.deadline is not None:
            heapq.heappush(self.deadlines, (waiter.deadline, number, waiter))
        self.waiting += 1

    def forget(self) -> None:
        """Lets go of those who are gone, once nobody waits: they hold what they asked with, and that holds who owns the queue."""
        self.heap.clear()
        self.line.clear()
        self.deadlines.clear()
        self.mixed = False

    def first(self) -> Waiter | None:
        """Whose turn it is."""
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

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Ends the waiting of all, each with an error of its own."""
        for *_, waiter in self.heap:
            if not waiter.future.done():
                waiter.future.set_exception(error())
                self.waiting -= 1
        self.drop_timer()

    def set_timer(self, at: float, call: Callable[["Queue"], None]) -> None:
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
