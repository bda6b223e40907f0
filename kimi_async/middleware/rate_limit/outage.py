"""
No capacity at the server, whatever our limits: probes, and the way back.
"""

from .evidence import CONVINCING, by_chance
from .ticket import Ticket
from .window import INF

__all__ = ["Outage"]


class Outage:
    """
    The service has no capacity: one request every few seconds asks whether it has again.

    A replica of many that is full fails a share that does not depend on us: those calls are repeated, one by one. So the service counts
    as down only where nobody sent since is admitted, for more calls in a row than accidents explain; or where most calls fail.
    """

    FEW = 4
    """Overloads in a row, at least."""
    AGE = 10.0
    """Seconds without one after which a row has ended."""
    MOST = 0.75
    """The share of overloads among all outcomes that counts as most, …"""
    MANY = 48
    """… of so many at least: with half of all refused by accident it is reached once in 30,000 times."""
    MEMORY = 0.99
    """What an outcome weighs after one more: the share is that of the last hundred or so."""

    EVERY = 3.0
    """Seconds between two probes. At 8 s for a refusal, waiting for one before sending the next would add 8 s to a recovery."""
    SOON = 1.0
    RESTART = 30.0
    """The same for so many seconds where refusals come sooner than that, as those of a proxy do whose back end restarts."""

    __slots__ = (
        "active",
        "asked",
        "at",
        "began",
        "failed",
        "last",
        "limit",
        "probe_at",
        "probes",
        "recovering",
        "refusals",
        "row",
        "row_sent",
        "seen",
        "slowest",
        "took",
        "total",
        "well",
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
        self.row: int = 0
        """Overloads since somebody was admitted who was sent when the first of them was, or later."""
        self.row_sent: float = -INF
        """When that first one was sent, …"""
        self.at: float = -INF
        """… and when the latest arrived."""
        self.failed: float = 0.0
        """Overloads of earlier rows, …"""
        self.total: float = 0.0
        """… and all outcomes but those of this row, the latest weighing most."""
        self.well: int = 0
        """Admissions that are not counted there yet."""

    def _count(self, overloads: int) -> None:
        weight = self.MEMORY ** (self.well + overloads)
        self.failed = self.failed * weight + overloads
        self.total = self.total * weight + self.well + overloads
        self.well = 0

    def down(self, overtaken: int) -> bool:
        """
        Whether the service is: more calls fail in a row than by accident. Refusals overtake answers: whoever was `overtaken`, sent before
        the refused and not refused, counts as let in.
        """
        failed = self.failed + self.row
        total = self.total + self.row + overtaken
        if total >= self.MANY and failed >= self.MOST * total:
            return True
        return (
            self.row - overtaken >= self.FEW
            and by_chance(self.row, self.row + overtaken, self.failed, self.total) < CONVINCING
        )

    def passed(self, ticket: Ticket) -> None:
        """A request was admitted, which `well` has counted, while there is a row."""
        if ticket.sent >= self.row_sent:
            self._count(self.row)
            self.row = 0

    def starts(self, ticket: Ticket, now: float) -> float:
        """When the first of the row was sent to which an overload now belongs."""
        return self.row_sent if self.row and now - self.at <= self.AGE else ticket.sent

    def refused(
        self, ticket: Ticket, hint: float | None, dice: float, now: float, overtaken: int = 0
    ) -> None:
        self.refusals += 1
        self.took = now - ticket.sent
        self.slowest = max(self.slowest, self.took)
        if self.seen > ticket.sent or (self.recovering and ticket.sent < self.last):
            # Sent before somebody who was admitted: a stray one, or news from before the recovery.
            self._count(1)
            return
        if not self.active:
            if self.well:
                self._count(0)
            if now - self.at > self.AGE:
                self.row = 0
            if not self.row:
                self.row_sent = ticket.sent
            self.row += 1
            self.at = now
            if not self.down(overtaken):
                return
            self.asked = now + (hint or 0.0)
            self.row = 0
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
