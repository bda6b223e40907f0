"""
Requests under way at once: what fits, and what refusals teach about it.
"""

from .limits import Source
from .rate import Budget
from .ticket import Ticket
from .window import INF

__all__ = ["Concurrency"]


class Concurrency:
    """Requests under way at once."""

    # A round's worth sent at once would overshoot by as many as the limit is away. In pieces of an eighth, a refusal
    # (30 ms from nearby, 100–300 from afar) stops the rest; where admissions come quicker than this, they set the pace.
    SPREAD = 0.06

    SOON = 30.0
    """Seconds after which a limit is tested that the server has named, …"""
    GUESSED = 1.0
    """… and one that was only seen: a wrong guess must not last. The interval grows as long as the guess holds."""
    LATE = 120.0
    """The longest interval."""
    GROWTH = 1.5

    __slots__ = (
        "batch",
        "batch_at",
        "blocked_at",
        "budget",
        "canaries",
        "canary_at",
        "cap",
        "ceiling",
        "cut_at",
        "extra",
        "interval",
        "limit",
        "refusals",
        "slow",
        "source",
        "spacing",
        "spread",
        "start",
        "tested",
    )

    def __init__(
        self, cap: int | None, budget: Budget, *, fixed: bool = True, hold: bool = True, start: int = 4
    ) -> None:
        self.budget: Budget = budget
        self.cap: float = INF if cap is None else float(cap)
        self.source: Source = "none" if cap is None else "config"
        self.ceiling: float = self.cap if fixed else INF
        self.slow: bool = cap is None and hold
        """Whether slow start is on."""
        self.limit: float = self.cap if cap is not None else (start if hold else INF)
        """How many may be under way now."""
        self.start: int = start
        """Slots that slow start begins with."""
        self.extra: int = 0
        """How many more than believed possible are being tried."""
        self.canaries: list[Ticket] = []
        """… and those of them of which it is not known yet how they fared."""
        self.spacing: float = 0.0
        """Seconds between two tries, at the least: each may cost a request of the minute."""
        self.tested: bool = False
        self.batch: int = 0
        """Sent in the present piece of a round, and not settled."""
        self.batch_at: float = -INF
        self.spread: bool = False
        """Whether it is only the piece that is full."""
        self.blocked_at: float = -INF
        self.cut_at: float = -INF
        self.canary_at: float = INF
        self.interval: float = self.SOON
        self.refusals: int = 0

    @property
    def known(self) -> bool:
        return self.cap < INF

    def learn(self, cap: float, source: Source) -> None:
        self.cap = min(cap, self.ceiling)
        self.limit = self.cap
        self.source = source
        self.slow = False
        self.extra = 0

    def resume(self) -> None:
        """The limit was a wrong guess: nothing is known, and slow start goes on from there."""
        self.limit = max(self.start, 2.0 * min(self.limit, self.cap))
        self.cap, self.source, self.slow, self.extra = self.ceiling, "none", True, 0

    def fits(self, inflight: int, now: float) -> bool:
        self.tested = self.spread = False
        if inflight < self.limit:
            if self.slow and inflight >= 2 * self.start:
                if now > self.batch_at + self.SPREAD:
                    self.batch_at = now
                    self.batch = 0
                elif self.batch >= max(self.start, inflight / 8):
                    self.spread = True
                    return False
            return True
        self.blocked_at = now
        if self.slow or self.cap >= self.ceiling or self.limit < self.cap:
            return False
        if self.extra:
            self.tested = inflight < self.limit + self.extra
        elif now >= self.canary_at and not self.canaries and self._may_test():
            self.tested = True
        elif self.canary_at == INF:
            self.canary_at = now + max(self.interval, self.spacing)
        return self.tested

    def next(self, now: float) -> float:
        """When a slot may open by itself."""
        if self.spread:
            return self.batch_at + self.SPREAD * 1.001
        if self.slow or self.limit < self.cap or self.canaries or self.extra or not self._may_test():
            return INF
        return self.canary_at

    def _may_test(self) -> bool:
        """Whether a test may be paid for. The first ones of what was only seen are free: a wrong guess earns nothing to pay with."""
        return self.budget.left >= 1.0 or (self.source == "seen" and self.interval < self.SOON)

    def send(self, ticket: Ticket, inflight: int) -> None:
        ticket.inflight = inflight
        self.batch += 1
        if self.tested:
            self.tested = False
            ticket.canary = self
            self.canaries.append(ticket)

    def admitted(self, ticket: Ticket, proven: int, now: float) -> None:
        """`proven`: how many are under way that are known to be admitted, this one included."""
        if self.canaries and ticket in self.canaries:
            self.over(ticket)
            # One admitted proves little: an answer may have ended over there that had not ended here. So the
            # number tried doubles, and the first refusal takes all of it back.
            self.extra = max(self.extra + 1, 1)
            if self.extra > max(4.0, 0.25 * self.cap):
                self.cap = self.limit = min(self.ceiling, self.cap + self.extra)
                self.extra = 0
                self.canary_at = now + 1.0
                self.source = "seen"
        elif self.blocked_at >= ticket.sent:
            if self.slow:
                # Short answers make room as they end; streams that stay open are counted instead.
                self.limit = min(self.cap, max(self.limit + 1, 2.0 * proven))
                if self.limit >= self.cap:
                    self.slow = False
            elif self.limit < self.cap:
                self.limit = min(self.cap, self.limit + 1.0 / max(1.0, self.limit))

    def refused(self, ticket: Ticket, told: int | None, holding: int, now: float, *, proven: int = 0) -> None:
        """
        `holding`: how many sent before this one are still under way, that is, what the server had of ours; `proven`: how many are
        under way that are known to be admitted.
        """
        self.refusals += 1
        tested = bool(self.canaries) or self.extra > 0
        if tested:
            # Whichever of those sent together was refused, one was too many.
            while self.canaries:
                self.over(self.canaries[-1])
            self.budget.left -= 1.0
        fresh = ticket.sent >= self.cut_at
        if told is not None:
            mine = ticket.inflight >= 0.97 * told - 1
            changed = self.source != "none" and told != self.cap
            self.cap = min(float(told), self.ceiling)
            if self.source != "config" or self.cap < self.ceiling:
                self.source = "told"
            if mine or changed:
                self.limit = min(self.limit, self.cap) if not self.slow else self.cap
            elif fresh and not tested:
                # Somebody else has slots of this organisation too.
                self.limit = max(1.0, min(self.limit, 0.9 * max(1, min(holding, ticket.inflight))))
            self.limit = min(self.limit, self.cap)
        elif tested:
            # It was one too many; those that were tried before it and are under way were not.
            self.cap = self.limit = max(self.cap, min(float(proven), self.cap + self.extra, self.ceiling))
        else:
            held = max(1, min(holding, ticket.inflight))
            if self.slow or held < self.cap or fresh:
                self.cap = self.limit = float(max(1, min(held, self.cap)))
                self.source = "seen"
                self.interval = self.GUESSED
                self.budget.left = max(self.budget.left, 1.0)
        self.slow = False
        self.extra = 0
        if fresh:
            self.cut_at = now
        if tested:
            self.interval = min(self.LATE, self.interval * self.GROWTH)
        elif self.source != "seen":
            self.interval = self.SOON
        self.canary_at = now + max(self.interval, self.spacing)

    def over(self, ticket: Ticket) -> None:
        # One request may test a rate as well: it is in the list that says whose canary it is.
        if ticket in self.canaries:
            self.canaries.remove(ticket)
        if ticket.canary is self:
            ticket.canary = None
