"""
How many requests may be under way at once, and how far a run may go ahead of who takes its results.
"""

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Pace"]


class Pace:
    """
    Counts the workers and what they hold, and keeps them waiting while too much is not taken.

    :param concurrency: requests under way at once; None asks ``allowed``, again at each `recap`.
    :param window: items pulled and not yet taken by the consumer; None makes it follow the concurrency.
    :param slack: results that may wait beside what is under way: at least this many, and ``share`` times the concurrency.
    """

    def __init__(
        self,
        concurrency: int | None,
        window: int | None,
        *,
        allowed: Callable[[], int],
        slack: int = 64,
        share: int = 1,
    ) -> None:
        self.follows: bool = concurrency is None
        self.cap: int = concurrency or 1
        self.held: int = 0
        """Pulled and not yet taken by the consumer."""
        self.workers: int = 0
        self.idle: int = 0
        self.in_flight: int = 0
        self._window = window or 0
        self._fixed = window
        self._allowed = allowed
        self._slack = slack
        self._share = share
        self._open = False
        self._gates: deque[asyncio.Future[None]] = deque()

    @property
    def window(self) -> int:
        return self._window

    @property
    def full(self) -> bool:
        """Whether nothing more may be pulled before something is taken."""
        return self.held >= self._window and not self._open

    @property
    def wants_worker(self) -> bool:
        return self.workers < self.cap and not self.idle and not self._open

    def recap(self) -> None:
        """Asks again how many there may be."""
        if self.follows:
            self.cap = self._allowed()
        self._window = self._fixed or self.cap + max(self._slack, self._share * self.cap)

    def release(self) -> None:
        """One item less is held: it was taken, or there is nothing to take."""
        self.held -= 1
        while self._gates:
            gate = self._gates.popleft()
            if not gate.done():
                gate.set_result(None)
                return

    def open(self) -> None:
        """Lets everybody through for good: nothing more is to be pulled."""
        self._open = True
        while self._gates:
            gate = self._gates.popleft()
            if not gate.done():
                gate.set_result(None)

    async def room(self) -> None:
        """Waits until something may be pulled."""
        while self.full:
            gate = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            self.idle += 1
            try:
                await gate
            finally:
                self.idle -= 1
