"""
Results on their way to who iterates, in the order they are finished or in that of the input.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from .results import Result

__all__ = ["Outbox"]


class Outbox:
    """:param released: called for each item that the consumer took, or of which there is nothing to take."""

    def __init__(self, *, ordered: bool, released: Callable[[], None]) -> None:
        self._ordered = ordered
        self._released = released
        self._ready: deque[Result] = deque()
        self._early: dict[int, Result | None] = {}  # by position: finished before an earlier one
        self._turn = 0
        self._waiters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._ready)

    def put(self, result: Result) -> None:
        if self._ordered:
            self._in_turn(result.index, result)
            return
        self._ready.append(result)
        self.wake()

    def skip(self, index: int) -> None:
        """There will be nothing for this position."""
        if self._ordered:
            self._in_turn(index, None)
        else:
            self._released()

    def take(self) -> Result:
        result = self._ready.popleft()
        self._released()
        return result

    def clear(self) -> None:
        self._ready.clear()

    async def wait(self) -> None:
        """Waits for something to look at; there may be nothing after all."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        # All of them, should several tasks share one iteration: those who come too late wait again.
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _in_turn(self, index: int, result: Result | None) -> None:
        early = self._early
        early[index] = result
        while self._turn in early:
            ready = early.pop(self._turn)
            self._turn += 1
            if ready is None:
                self._released()
            else:
                self._ready.append(ready)
        self.wake()
