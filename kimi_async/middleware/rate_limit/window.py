"""
What was sent during the last minute, in memory that the minute bounds.
"""

import math
from collections import deque

__all__ = ["INF", "Window"]

INF = math.inf


class Window:
    """
    What was sent during the last `span` seconds, as a server with a sliding window sees it.

    Sending times within a twelve-thousandth of the span (5 ms of a minute) are kept as one, the later: memory is bounded by the
    span, not by the traffic, and the error is on the safe side.
    """

    __slots__ = ("_entries", "grain", "span", "total")

    def __init__(self, span: float) -> None:
        self.span: float = span
        self.grain: float = span / 12_000
        self.total: int = 0
        """The sum of what is inside, as of the last call with a `now`."""
        self._entries: deque[list[float]] = deque()  # [first time, last time, amount]

    def add(self, amount: int, now: float) -> list[float]:
        self.total += amount
        entries = self._entries
        if entries:
            last = entries[-1]
            if now - last[0] < self.grain:
                last[1] = now
                last[2] += amount
                return last
        entry = [now, now, amount]
        entries.append(entry)
        return entry

    def take(self, entry: list[float], amount: int) -> None:
        """Takes back what was added to `entry`, unless that has left the window."""
        if entry[2] >= amount and entry[2] > 0:
            entry[2] -= amount
            if entry[2] >= 0 and self._entries and entry[1] >= self._entries[0][1]:
                self.total -= amount

    def put(self, entry: list[float], amount: int) -> None:
        """Adds to `entry` again, unless that has left the window."""
        if self._entries and entry[1] >= self._entries[0][1]:
            entry[2] += amount
            self.total += amount

    def expire(self, now: float) -> int:
        """Forgets what is older than the span; the new total."""
        entries = self._entries
        edge = now - self.span
        while entries and entries[0][1] <= edge:
            self.total -= int(entries.popleft()[2])
        return self.total

    def leaving(self, until: float) -> int:
        """How much will have left by `until`."""
        edge = until - self.span
        leaving = 0
        for entry in self._entries:
            if entry[1] > edge:
                break
            leaving += int(entry[2])
        return leaving

    def when(self, room: int) -> float:
        """The time at which `room` more than now will have left; `inf` if there is not as much inside."""
        if room <= 0:
            return -INF
        for entry in self._entries:
            room -= int(entry[2])
            if room <= 0:
                return entry[1] + self.span
        return INF

    @property
    def first(self) -> float | None:
        """When the oldest that is inside was sent."""
        return self._entries[0][0] if self._entries else None

    def scaled(self, factor: float, span: float) -> "Window":
        """The same history in another unit: `factor` of that for each of this."""
        other = Window(span)
        for first, last, amount in self._entries:
            scaled = int(amount * factor)
            other._entries.append([first, last, scaled])
            other.total += scaled
        return other
