"""
Results into the journal, and onto the disk in groups.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from ..resources.threads import in_thread, to_the_end
from .journal import Journal, JournalWriteError
from .results import Result

__all__ = ["Committer"]

_SYNC_EVERY: Final = 64
_SYNC_AFTER: Final = 0.2


class Committer:
    """Writes each line at once; its result is handed out now (``process``), or after the next sync (``disk``)."""

    def __init__(self, journal: Journal, *, disk: bool, deliver: Callable[[Result], None]) -> None:
        self.journal = journal
        self._disk = disk
        self._deliver = deliver
        self._written: list[Result] = []  # and handed out after the next sync
        self._waiter: asyncio.Future[None] | None = None
        self._ending = False
        self._unsynced = 0
        self._stale = False

    def commit(self, result: Result, line: bytes, *, replaces: bool = False) -> None:
        """
        Write a result's line and hand the result out: now, or after the next sync.

        Written here rather than in groups by a thread: a reply that has arrived and is not in the kernel when the
        process is killed would be paid for twice. One write of a kilobyte costs 5 µs, less than going to a thread.

        :raises JournalWriteError: with the line that was not written.
        """
        self._stale = self._stale or replaces
        self.journal.append([(result.custom_id, line)])
        self._unsynced += 1
        if self._disk:
            self._written.append(result)
            self._wake()
            return
        if self._unsynced == 1 or self._unsynced >= _SYNC_EVERY:
            self._wake()
        self._deliver(result)

    def end(self) -> None:
        """Nothing more will be committed."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def run(self) -> None:
        """Syncs the journal until the `end`: as many as gathered during the last sync, or every 64 results or 200 ms."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._unsynced:
                if self._ending:
                    return
                self._waiter = loop.create_future()
                await self._waiter
                continue
            if not self._disk and self._unsynced < _SYNC_EVERY and not self._ending:
                self._waiter = loop.create_future()
                timer = loop.call_later(_SYNC_AFTER, self._wake)
                try:
                    await self._waiter
                finally:
                    timer.cancel()
            # Not to be abandoned half-way: what is on the disk must be handed out.
            syncing = loop.create_task(self._sync())
            await to_the_end(syncing)
            syncing.result()

    async def _sync(self) -> None:
        group: Sequence[Result]
        group, self._written = self._written, []
        self._unsynced = 0
        await in_thread(self.journal.sync)
        for result in group:
            self._deliver(result)

    async def close(self) -> None:
        """
        Sync and close the journal.

        :raises JournalError: after closing it all the same.
        """
        try:
            if self._unsynced:
                await self._sync()
            if self._stale:
                # Sent again because the request had changed: of two lines for an id, opening keeps the later.
                await in_thread(_tidy, self.journal)
        finally:
            await in_thread(self.journal.close)


def _tidy(journal: Journal) -> None:
    path = journal.path
    journal.close()
    Journal.open(path, redo="none").close()


def joined(first: BaseException | None, error: JournalWriteError) -> BaseException:
    """The failure of a run after one more line could not be written."""
    if not isinstance(first, JournalWriteError):
        return error
    first.unsaved += error.unsaved
    return first
