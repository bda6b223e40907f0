"""A ledger inside one process: for several clients that are to be counted as several members, and for tests."""

import threading
import time
from collections.abc import Callable

from .ledger import State, sync
from .message import Answer, Sync

__all__ = ["MemoryLedger"]


class MemoryLedger:
    """
    Keeps a quota in memory. May be used from several event loops, also in several threads.

    :param clock: seconds, never set back; `time.monotonic` unless told otherwise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state: State = State()
        self._clock = clock
        self._lock = threading.Lock()

    async def sync(self, message: Sync) -> Answer:
        with self._lock:
            return sync(self.state, message, message.now or int(self._clock() * 1000) + 1)

    async def aclose(self) -> None:
        """Nothing is open."""
