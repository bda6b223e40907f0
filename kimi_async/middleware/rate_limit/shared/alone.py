"""
What one member may do while the ledger does not answer: arithmetic over the loop's clock.

What it had stays its own. It may have as many requests in a minute as it had in the minute before the loss, and its part of what
nobody used: its own requests that leave the window make room for its own, so the sum over all members cannot grow, and nobody need
ask anybody. An equal part of the limit would give a refusal a process, since others had used more than their part.
"""

import math
from collections import deque

from .message import SharedView

__all__ = ["Alone", "History"]

MINUTE = 60.0
# The windows of a server and of a member do not end in the same millisecond.
MARGIN = 0.5
GRAIN = 0.1
FREE = 0.9
AFTER_REFUSAL = 0.7


class History:
    """What this member sent in the last minute: [time, requests, tokens]."""

    __slots__ = ("count", "entries", "tokens")

    def __init__(self) -> None:
        self.entries: deque[list[float]] = deque()
        self.count: int = 0
        self.tokens: int = 0

    def add(self, at: float, count: int, tokens: int) -> None:
        self.count += count
        self.tokens += tokens
        if self.entries and at - self.entries[-1][0] < GRAIN:
            self.entries[-1][1] += count
            self.entries[-1][2] += tokens
        else:
            self.entries.append([at, count, tokens])

    def expire(self, now: float) -> None:
        entries = self.entries
        while entries and entries[0][0] + GRAIN + MINUTE + MARGIN <= now:
            _, count, tokens = entries.popleft()
            self.count -= int(count)
            self.tokens -= int(tokens)

    def room_at(self, which: int, excess: float, now: float) -> float:
        """When `excess` more (requests: 1, tokens: 2) than now will have left the minute; `inf` if there is not so much in it."""
        if excess <= 0:
            return now
        for entry in self.entries:
            excess -= entry[which]
            if excess <= 0:
                return entry[0] + GRAIN + MINUTE + MARGIN
        return math.inf


class Alone:
    """A member without a ledger."""

    def __init__(self, view: SharedView, history: History, now: float) -> None:
        history.expire(now)
        members = max(1, view.members)
        slots, rpm, tpm, _ = view.limits
        self.slots: float = math.inf
        if slots:
            rest = 1 if view.rank < slots % members else 0
            self.slots = slots // members + rest
        self.rpm: float = math.inf
        if rpm:
            self.rpm = history.count + FREE * max(0, rpm - view.used[1]) / members
        self.tpm: float = math.inf
        if tpm:
            self.tpm = history.tokens + FREE * max(0, tpm - view.used[2]) / members
        self.gate: float = now + view.gate
        self._tat = now

    def delay(self, tokens: int, held: int, history: History, now: float) -> tuple[float, str]:
        """Seconds until a request may go, and what it waits for; `inf` if only the end of a reply can tell, or the ledger."""
        history.expire(now)
        if now < self.gate:
            return self.gate - now, "gate"
        if held >= self.slots:
            return math.inf, "concurrency"
        at, reason = now, ""
        if self.rpm < math.inf:
            at = max(history.room_at(1, history.count + 1 - math.floor(self.rpm), now), self._tat)
            reason = "rpm"
        if self.tpm < math.inf and tokens:
            soonest = history.room_at(2, history.tokens + tokens - math.floor(self.tpm), now)
            if soonest > at:
                at, reason = soonest, "tpm"
        return max(0.0, at - now), reason if at > now else ""

    def sent(self, now: float) -> None:
        """One goes."""
        if self.rpm < math.inf:
            self._tat = max(self._tat, now) + MINUTE / max(1.0, self.rpm) / 1.04

    def refused(self, hint: float, now: float) -> None:
        """The server refused one: silence, and less from then on."""
        self.gate = max(self.gate, now + max(hint, 1.0))
        self.rpm *= AFTER_REFUSAL
        self.tpm *= AFTER_REFUSAL
        if self.slots < math.inf:
            self.slots = max(1.0, math.floor(self.slots * AFTER_REFUSAL))
