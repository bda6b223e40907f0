"""
No capacity at the server, whatever our limits: probes, and the way back.
"""

from collections import deque

from .ticket import Ticket
from .window import INF

__all__ = ["Outage"]


class Outage:
    """The service has no capacity: one request every few seconds asks whether it has again."""

    MOST = 0.75
    """The share of the latest outcomes that must be overloads for the service to count as down. A replica of many that is full fails
    a share that does not depend on us: those calls are repeated, one by one."""
    FEW = 4
    """Outcomes that must all be overloads where there are not many, …"""
    MANY = 12
    """… and how many in the last second make a share worth taking."""
    AGE = 10.0
    """Seconds for which an outcome counts."""

    EVERY = 3.0
    """Seconds between two probes. At 8 s for a refusal, waiting for one before sending the next would add 8 s to a recovery."""
    SOON = 1.0
    RESTART = 30.0
    """The same for so many seconds where refusals come sooner than that, as those of a proxy do whose back end restarts."""

    __slots__ = (
        "active",
        "asked",
        "began",
        "last",
        "limit",
        "outcomes",
        "probe_at",
        "probes",
        "recovering",
        "refusals",
        "seen",
        "slowest",
        "took",
    )

    def __init__(self) -> None:
        self.active: bool = False
        self.recovering: bool = False
        self.began: float = -INF
        self.last: float = -INF
        self.limit: float = INF
        """Slots while recovering."""
        self.probe_at: float = -INF
        self.asked: float = -INF
        """Until when the server asked for silence."""
        self.probes: int = 0
        self.refusals: int = 0
        self.seen: float = -INF
        """When the latest request was sent that was admitted since."""
        self.slowest: float = 0.0
        """The longest time a refusal took to arrive …"""
        self.took: float = 0.0
        """… and the latest."""
        self.outcomes: deque[tuple[float, bool]] = deque(maxlen=64)
        """When, and whether it was an overload; from the first overload on."""

    def down(self, now: float, pending: int = 0) -> bool:
        """
        Whether most calls fail, so that more of them only add to it. Refusals overtake answers: few of them prove nothing while
        more are `pending`, neither admitted nor refused so far.
        """
        recent = [failed for at, failed in self.outcomes if at > now - 1.0]
        if len(recent) >= self.MANY:
            return sum(recent) >= self.MOST * len(recent)
        latest = [failed for at, failed in self.outcomes if at > now - self.AGE][-self.FEW :]
        return len(latest) == self.FEW and all(latest) and pending <= len(recent)

    def passed(self, now: float) -> None:
        """A request was admitted."""
        if self.outcomes:
            self.outcomes.append((now, False))

    def refused(self, ticket: Ticket, hint: float | None, dice: float, now: float, pending: int = 0) -> None:
        self.refusals += 1
        self.took = now - ticket.sent
        self.slowest = max(self.slowest, self.took)
        if self.seen > ticket.sent or (self.recovering and ticket.sent < self.last):
            # Sent before somebody who was admitted: a stray one, or news from before the recovery.
            return
        self.outcomes.append((now, True))
        if not self.active:
            if not self.down(now, pending):
                return
            self.asked = now + (hint or 0.0)
            self.outcomes.clear()
            self.active = True
            self.recovering = False
            self.began = now
            self.probes = 0
            self.probe_at = now + self._pause(hint, dice, now)
        elif hint is not None:
            self.asked = max(self.asked, now + hint)
            self.probe_at = max(self.probe_at, self.asked)

    def _pause(self, hint: float | None, dice: float, now: float) -> float:
        soon = self.took < self.SOON and now - self.began < self.RESTART
        pause = self.SOON if soon else self.EVERY
        return max(pause * (0.9 + 0.2 * dice), hint or 0.0)

    def probe(self, dice: float, now: float) -> None:
        self.probes += 1
        self.probe_at = now + self._pause(None, dice, now)

    def admitted(self, ticket: Ticket, target: float, now: float) -> None:
        self.seen = max(self.seen, ticket.sent)
        if self.active:
            if ticket.sent >= self.began:
                self.active = False
                self.recovering = True
                self.last = now
                self.limit = 8.0
        elif self.recovering and ticket.sent >= self.began:
            self.limit += 2.0
            if self.limit >= target:
                self.recovering = False
                self.limit = INF
