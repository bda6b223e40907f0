"""
Where the requests of a run come from, one at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, cast

from ..resources.threads import in_thread
from .request_files import check_lines
from .requests import Requests, check_requests, file_items, path_of

__all__ = ["Source"]


class Source:
    """An iterable, an async iterable, or a file that is checked before its first line is given."""

    def __init__(self, requests: Requests, total: int | None = None) -> None:
        self._requests = requests
        self._next: Iterator[object] | None = None
        self._anext: AsyncIterator[object] | None = None
        self._lock = asyncio.Lock()
        self._pulling: Any = None
        self.total = total
        """Items in it, where that is known."""
        self.taken: int = 0
        self.exhausted: bool = False
        """Whether nothing more is to be had, or wanted."""

    @property
    def lock(self) -> asyncio.Lock:
        """Held while an item is taken: iterators cannot be shared."""
        return self._lock

    @property
    def complete(self) -> bool:
        """Whether everything was taken."""
        return self.exhausted or (self.total is not None and self.taken >= self.total)

    async def open(self, *, model: str | None, repair: bool, max_line: int) -> None:
        """:raises InvalidLinesError: for a file of which some lines cannot be sent."""
        requests: Any = self._requests
        path = path_of(requests)
        if path is not None:
            found = await in_thread(
                lambda: check_lines(path, batch=False, model=model, repair=repair, max_line=max_line)
            )
            found.raise_if_bad()
            self.total = found.lines
            self._anext = file_items(path)
        elif hasattr(requests, "__aiter__"):
            self._anext = cast("AsyncIterator[object]", requests.__aiter__())
        else:
            check_requests(requests)
            self._next = iter(requests)
        if self.total is None and hasattr(requests, "__len__"):
            self.total = len(requests)

    async def next(self) -> tuple[int, object]:
        """The next item and its position. Raises StopAsyncIteration at the end, and whatever the caller's iterable raises."""
        try:
            item = next(self._next) if self._next is not None else await self._awaited()
        except StopIteration:
            raise StopAsyncIteration from None
        index = self.taken
        self.taken = index + 1
        return index, item

    async def _awaited(self) -> object:
        from anyio import CancelScope

        assert self._anext is not None
        # `stop` ends the wait: a source may have nothing to give for hours.
        with CancelScope() as self._pulling:
            return await self._anext.__anext__()
        raise StopAsyncIteration

    def end(self) -> None:
        """It gave its last item."""
        self.exhausted = True
        if self.total is None:
            self.total = self.taken

    def stop(self) -> None:
        """Nothing more is wanted."""
        self.exhausted = True
        if self._pulling is not None:
            self._pulling.cancel()

    async def close(self) -> None:
        close = getattr(self._anext, "aclose", None)
        if close is not None and not self._lock.locked():
            with suppress(Exception):
                await close()
