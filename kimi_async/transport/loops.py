"""
What belongs to one event loop, held by the loop itself.

A loop that is dropped without being closed tells nobody. Whoever holds something that is bound to it (a session, a future, a timer)
keeps it alive, and with it its connections, its slots and all that waits there. So owners put what they have on a loop here, hold it
weakly otherwise, and find it gone when the loop is.
"""

import asyncio
import weakref
from typing import Any, Generic, TypeVar

__all__ = ["PerLoop", "nobody"]

T = TypeVar("T")

_SHELF = "_kimi_async"
"""The attribute of a loop, asyncio's and uvloop's alike, in which it holds what is its own."""


def nobody() -> None:
    """Stands for a weak reference to what there is not yet."""


class PerLoop(Generic[T]):
    """
    One value for each event loop, which goes with the loop, or with this.

    A value may hold its loop. One that holds this, or its owner, keeps it for as long as there is the loop.
    """

    __slots__ = ("__weakref__", "_loops")

    def __init__(self) -> None:
        # A dict since, unlike a WeakSet, it can be listed while another thread adds to it.
        self._loops: dict[weakref.ref[asyncio.AbstractEventLoop], None] = {}

    def __len__(self) -> int:
        """How many loops have a value; those gone are counted until `clean`."""
        return len(self._loops)

    def get(self, loop: asyncio.AbstractEventLoop) -> T | None:
        shelf = getattr(loop, _SHELF, None)
        return None if shelf is None else shelf.get(self)

    def put(self, loop: asyncio.AbstractEventLoop, value: T) -> None:
        shelf = getattr(loop, _SHELF, None)
        if shelf is None:
            shelf = weakref.WeakKeyDictionary[PerLoop[Any], Any]()
            setattr(loop, _SHELF, shelf)
        shelf[self] = value
        self._loops[weakref.ref(loop)] = None

    def pop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loops.pop(weakref.ref(loop), None)
        shelf = getattr(loop, _SHELF, None)
        if shelf is not None:
            shelf.pop(self, None)

    def all(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """The loops that there still are, closed ones among them, each with its value."""
        found: list[tuple[asyncio.AbstractEventLoop, T]] = []
        for ref in list(self._loops):
            loop = ref()
            if loop is not None and (value := self.get(loop)) is not None:
                found.append((loop, value))
        return found

    def clean(self) -> bool:
        """Forgets loops that are gone, closed or dropped. Whether there were any."""
        gone = [ref for ref in list(self._loops) if (loop := ref()) is None or loop.is_closed()]
        for ref in gone:
            self._loops.pop(ref, None)
            if (loop := ref()) is not None:
                self.pop(loop)
        return bool(gone)
