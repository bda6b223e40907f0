"""
Requests, or tokens, a minute: what fits, and what refusals teach about it.
"""

import math
from collections import deque

from .limits import Source
from .ticket import Ticket
from .window import INF, Window

__all__ = ["Budget", "Rate"]


class Budget:
    """
    What canaries may cost, in refused requests: 1 % of what is admitted.

    A limit that has just been lowered is the most likely to be raised again, so a fall grants enough to look every
    `Rate.AFTER_DROP` seconds for four minutes.
    """

    SHARE = 0.01
    MOST = 30.0
    AFTER_DROP = 32.0

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left: float = 1.0


class Rate:
    """Requests, or tokens, per `span` seconds."""

    # A server counts when a request arrives, we when it leaves: two requests a minute apart are less than a minute
    # apart over there if the first travelled longer. This is how much longer, to begin with; refusals near the limit
    # stretch it, up to the time that a refusal takes.
    MARGIN = 0.05
    # Who gives the number expects no refusal at all, and a quarter of a percent is little for that.
    MARGIN_CONFIGURED = 0.15

    # Once the server has refused, what waits is let go one by one, this much quicker than the limit, so that what was
    # missed is made up for; the window is the real bound.
    PACE = 1.04
    BURST = 1.0
    """Seconds of sending that may be made up for at once while paced."""
    PACED_FOR = 180.0
    """Seconds after a refusal during which sending is paced."""

    GUESSED = 1.0
    """Seconds to the first canary of a limit that was only guessed from refusals without a reason; more as long as it holds."""
    STANDS = 3
    """Tests, after which a guess is given up no more when it fails one: it was right, and more may be possible now."""
    SOON = 20.0
    """Seconds to the first canary of a limit."""
    LATE = 60.0
    """… and at most between two of them, if the budget allows."""
    AFTER_DROP = 7.8
    """… and after the limit was seen to fall."""
    DROP_LASTS = 300.0

    # Of a limit that others use too (`benchmarks.limits`, `test_law`: both come to have alike), who has more than half gives a
    # quarter of the excess, a little for a refusal that may be an accident, and never so little that it would take minutes.
    GIVES = 0.25
    GIVES_ONCE = 0.08
    GIVES_LEAST = 0.0075
    """… as a share of the limit."""
    KEEPS = 0.99
    """What who has less than half keeps at a refusal, …"""
    KEEPS_CROWDED = 0.95
    """… and where the last one is less than `CROWDED` seconds ago."""
    CROWDED = 3.0

    # Growing is far slower than giving, so that those who share it come to have alike: a share of the limit, each second.
    GROWS = 0.00015
    GROWS_BELOW = 0.0003
    """… below half of it, and beside that …"""
    CLOSES = 0.01
    """… this share of what is missing to half."""
    GROWS_MOST = 0.1
    ALONE_AFTER = 12.0
    """Seconds without a refusal after which the others may have left, so that growth doubles every `DOUBLES` seconds, …"""
    ALONE_AFTER_CONTEST = 45.0
    """… and once `CONTEST` refusals have shown that they are there: most of a minute, in which they would have met us."""
    CONTEST = 3
    DOUBLES = 8.0

    __slots__ = (
        "budget",
        "canary",
        "canary_at",
        "cap",
        "ceiling",
        "contended",
        "cut_at",
        "dropped_at",
        "early",
        "evidence",
        "grown_at",
        "guessed",
        "held",
        "interval",
        "margin",
        "name",
        "opened_at",
        "opening",
        "paced_until",
        "passed",
        "peak",
        "proven",
        "refusals",
        "rejected",
        "rejects_free",
        "share",
        "source",
        "span",
        "tat",
        "trusted",
        "window",
    )

    def __init__(
        self, name: str, cap: int | None, budget: Budget, *, span: float = 60.0, fixed: bool = True
    ) -> None:
        self.name: str = name
        self.span: float = span
        self.budget: Budget = budget
        self.margin: float = self.MARGIN if cap is None or not fixed else self.MARGIN_CONFIGURED
        self.window: Window = Window(span + self.margin)
        self.cap: float = INF if cap is None else float(cap)
        """What we believe the limit to be."""
        self.source: Source = "none" if cap is None else "config"
        self.ceiling: float = self.cap if fixed else INF
        """What the caller does not want exceeded."""
        self.share: float = INF
        """How much of it is ours, where others use it too."""
        self.contended: int = 0
        """How often others were in the way, since it was all ours."""
        self.paced_until: float = -INF
        self.tat: float = -INF
        """When what was sent would have been sent at the limit's pace (GCRA's theoretical arrival time)."""
        self.cut_at: float = -INF
        self.canary: Ticket | None = None
        self.canary_at: float = INF
        self.interval: float = self.SOON
        self.dropped_at: float = -INF
        self.grown_at: float = -INF
        self.early: bool = False
        """Whether the request that goes next is one more than believed possible."""
        self.opening: bool = False
        """Whether a canary was admitted and the new limit is not known yet."""
        self.opened_at: float = -INF
        self.proven: int = 0
        self.rejected: deque[tuple[float, list[float]]] = deque()
        """What was refused in the minute, and where the window has it."""
        self.rejects_free: bool = False
        """Whether the server seems not to count what it refuses."""
        self.evidence: int = 0
        self.peak: int = 0
        """The most in a minute that something was admitted after, since canaries began to pass."""
        self.trusted: float = INF
        """The limit as it was believed before."""
        self.passed: int = 0
        """Canaries admitted in a row."""
        self.refusals: int = 0
        self.guessed: bool = False
        """Whether no text has named it: the evidence spoke for it, and may yet speak against it."""
        self.held: int = 0
        """How many tests the guess has stood."""

    @property
    def known(self) -> bool:
        return self.cap < INF

    def learn(self, cap: float, source: Source) -> None:
        """Believes a number told from outside a refusal, such as a tier's."""
        self.cap = min(cap, self.ceiling)
        self.source = source
        self.canary_at = INF

    def allowed(self, now: float) -> float:
        """How many of the span are ours."""
        if self.share < INF:
            if now > self.grown_at:
                self._regrow(now)
            return min(self.cap, self.share)
        return self.cap

    def delay(self, amount: int, now: float) -> float:
        """Seconds until `amount` more fits. Notes in `early` if it fits only as a canary."""
        self.early = False
        if self.cap == INF:
            return 0.0
        total = self.window.expire(now)
        allowed = self.allowed(now)
        wait = 0.0
        if total + amount > allowed and total:
            wait = self.window.when(math.ceil(total + amount - allowed)) - now
            due = self._canary_due(now)
            if total > allowed * 1.02 + amount and not self.guessed:
                due = INF  # after a fall: even the old limit would have no room
            if due <= now:
                # What is about to leave our window may have left the server's: a request would then be merely
                # early, and its admission prove nothing. So a moment is awaited when nothing is about to leave.
                if not self.window.leaving(now + self.margin + 0.03) or now > due + 2.0:
                    self.early = True
                    return 0.0
            else:
                wait = min(wait, due - now)
        if now < self.paced_until:
            pace = allowed * self.PACE / self.span
            late = self.tat - max(self.BURST, 2 * amount / pace) - now
            # To test the limit the window must be full: what little is missing may go ahead of the pace.
            if late > 0 and not (total >= 0.95 * allowed and self._canary_due(now) <= now):
                wait = max(wait, late)
        return wait if wait > 0 else 0.0

    def _canary_due(self, now: float) -> float:
        """When the limit may be tested."""
        if self.canary is not None or self.share < INF or self.cap >= self.ceiling:
            return INF
        testing = self.passed or (self.guessed and self.interval < self.SOON)
        if self.budget.left < 1.0 and not testing:
            return INF
        if self.canary_at == INF:
            self.canary_at = now + self._pause()
        return self.canary_at

    def _pause(self) -> float:
        """Seconds until the limit is tested again."""
        if self.guessed and self.interval < self.SOON:
            return self.interval
        return max(self.interval, self.sparing())

    def guess(self) -> None:
        """What is learnt now is a guess: it is tested soon, and given up where it does not hold."""
        self.guessed = True
        self.held = 0
        self.interval = self.GUESSED
        self.budget.left = max(self.budget.left, 4.0)

    def give_up(self) -> None:
        """The guess was wrong: nothing is known."""
        self.cap, self.source, self.guessed = self.ceiling, "none", False
        self.canary_at, self.paced_until, self.passed = INF, -INF, 0

    def sparing(self) -> float:
        """
        Seconds in which a hundred requests are admitted at the limit: with three a minute, a refused canary is a third of one.
        """
        return 100.0 * self.span / self.cap if self.name == "rpm" else 0.0

    def send(self, ticket: Ticket, amount: int, now: float) -> list[float]:
        before = self.window.expire(now)
        if self.name == "rpm":
            ticket.before = before
        else:
            ticket.tokens_before = before
        if self.early:
            self.early = False
            self.canary = ticket
            ticket.canary = self
        if now < self.paced_until:
            pace = min(self.cap, self.share) * self.PACE / self.span
            self.tat = max(self.tat, now) + amount / pace
        return self.window.add(amount, now)

    def admitted(self, ticket: Ticket, now: float) -> None:
        if not self.passed and not self.opening and self.canary is not ticket:
            return
        before = self._before(ticket)
        if before > self.peak and (self.passed or self.opening):
            self.peak = before
        if self.canary is ticket:
            # More is possible than we believed, if a second says so too. How much more, further admissions tell,
            # each worth a factor of four.
            self.canary = ticket.canary = None
            self.passed += 1
            self.canary_at = now
            if self.passed >= 2 and self.guessed and self.held < self.STANDS:
                self.give_up()
            elif self.passed >= 2:
                self.trusted = self.cap
                self.opening = True
                self.proven = self._before(ticket)
                self._open(now)
        elif (
            self.opening
            and ticket.sent >= self.opened_at
            and before >= self.proven
            and self.cap < 16 * max(before, 1)
        ):
            self._open(now)

    def _open(self, now: float) -> None:
        self.cap = min(self.ceiling, self.cap * 4)
        self.opened_at = now
        self.source = "seen"
        self.canary_at = now
        self.tat = max(self.tat, now + self.BURST)

    def _before(self, ticket: Ticket) -> int:
        return ticket.before if self.name == "rpm" else ticket.tokens_before

    def refused(
        self, ticket: Ticket, amount: int, told: int | None, now: float, *, takes: float = 0.0
    ) -> None:
        """
        A request was refused for this limit; `told` is the limit's number, if the text has it, `takes` how long refusals take.
        """
        self.refusals += 1
        before = self._before(ticket)
        explained = (
            told is not None and told == min(self.cap, self.trusted) and self._weigh(before, told, now)
        )
        if self.name == "rpm" and ticket.counted is not None:
            self.rejected.append((now, ticket.counted))
            if self.rejects_free:
                self.window.take(ticket.counted, 1)
        tested = (
            explained
            or self.canary is not None
            or self.opening
            or self.passed > 0
            or self.canary_at <= ticket.sent
        )
        if self.canary is not None:
            # Perhaps the two overtook each other on the way, and the canary took the place of this one: one of
            # them was too many.
            self.over(self.canary)
            self.budget.left -= 1.0
        self.passed = self.peak = 0
        fresh = ticket.sent >= self.cut_at
        paced = ticket.sent > self.cut_at and now < self.paced_until
        recent = now - self.cut_at < 15.0
        self.paced_until = now + self.PACED_FOR
        self.tat = max(self.tat, now + self.BURST)
        if told is not None:
            self.guessed = False
            again = self.source != "none" and told == min(self.cap, self.trusted)
            if self.source != "none" and told < self.cap and not self.opening:
                self.dropped_at = now
                self.budget.left = max(self.budget.left, Budget.AFTER_DROP)
            self.cap = min(float(told), self.ceiling)
            self.source = "told" if self.cap < self.ceiling or self.source != "config" else self.source
            # The first refusal of all only turns on the pace: a bucket smaller than a minute's worth, or what a
            # process before us has left in the window, look just like company.
            if again and not tested and fresh and before + amount <= told:
                if before >= told - max(3, 0.02 * told) and self.margin < takes:
                    # As near as that, one of us may only have travelled longer than the other.
                    self.margin = min(takes, self.margin * 1.5)
                    self.window.span = self.span + self.margin
                elif paced:
                    self._contend(before, now - self.cut_at)
                    self.grown_at = now
        elif self.opening:
            self.cap = min(self.ceiling, max(self.trusted, float(before)))
        elif not tested:
            self._guess(before, recent, fresh)
        self.opening = False
        if fresh:
            self.cut_at = now
        if now - self.dropped_at < self.DROP_LASTS:
            self.canary_at = now + self.AFTER_DROP
        else:
            if tested:
                self.held += 1
                self.interval = min(self.LATE, self.interval * 1.5)
            due = now + self._pause()
            # A guess is tested however often refusals come: it is they that may be the accidents.
            self.canary_at = min(self.canary_at, due) if self.guessed and not tested else due

    def _weigh(self, before: int, told: int, now: float) -> bool:
        """
        Whether the server counts what it refuses. Kimi's help centre says so. One that does not admits more than we believe
        possible, and still refuses with the same number; one that does refuses what would otherwise fit. True if a wrong belief that
        it does not count them has just been given up, which explains the refusal.
        """
        rejected = self.rejected
        while rejected and rejected[0][0] <= now - self.window.span:
            rejected.popleft()
        refused = len(rejected)
        if refused < 3 or told < 20:
            return False  # too few to tell from counting errors, and to matter
        free = before if self.rejects_free else before - refused
        if free < told - 3:
            self.evidence = max(-3, self.evidence - 1)
        elif self.peak >= told + 2 and not self.rejects_free:
            self.evidence = min(3, self.evidence + 1)
        free_now = self.evidence >= 1
        if free_now != self.rejects_free:
            self.rejects_free = free_now
            for _, entry in rejected:
                if free_now:
                    self.window.take(entry, 1)
                else:
                    self.window.put(entry, 1)
            return not free_now
        return False

    def _guess(self, before: int, recent: bool, fresh: bool) -> None:
        """The number was not told: what went through before is the number."""
        if self.source == "none":
            self.cap = min(self.ceiling, max(1.0, float(before)))
            self.source = "seen"
        elif before >= 0.9 * self.cap:
            # Near enough to be counting errors; of refusals that overtook each other, the earliest knows best.
            if fresh or before < self.cap:
                self.cap = max(1.0, min(self.cap - 1, float(before)))
        elif fresh:
            self.cap = max(1.0, self.cap * (0.9 if recent else 0.97))

    def _contend(self, before: int, since: float) -> None:
        """
        Refused although the window has room as far as we know: others use the rest, and the server has told how much there is.

        We are at least two, so half is the most that can be fair. Whoever has more gives a part of the excess, a small one
        for a lone refusal, which may be an accident; whoever has less hardly gives. So all come to have alike, and
        a newcomer is let in by those who fill the window exactly (`since`: seconds since the last cut).
        """
        fair = self.cap / 2
        share = max(float(before), fair) if self.share == INF else self.share
        self.contended += 1
        if share > fair:
            part = self.GIVES if self.contended > 1 else self.GIVES_ONCE
            share -= max((share - fair) * part, self.GIVES_LEAST * self.cap)
        else:
            share *= self.KEEPS_CROWDED if since < self.CROWDED else self.KEEPS
        self.share = max(1.0, share)

    def _regrow(self, now: float) -> None:
        """
        Our share grows a little, more if it is below half, and ever faster once nobody objects for long: the others have left.
        """
        gap = max(0.0, self.cap / 2 - self.share)
        speed = (self.GROWS_BELOW if gap else self.GROWS) * self.cap + self.CLOSES * gap
        quiet = self.ALONE_AFTER_CONTEST if self.contended >= self.CONTEST else self.ALONE_AFTER
        clean = now - self.cut_at - quiet
        if clean > 0:
            # 30 doublings are beyond any limit; a larger exponent would only overflow.
            speed = min(self.GROWS_MOST * self.cap, speed * 2.0 ** min(clean / self.DOUBLES, 30.0))
        self.share += speed * (now - self.grown_at)
        self.grown_at = now
        if self.share >= self.cap:
            self.share = INF
            self.contended = 0

    def over(self, ticket: Ticket) -> None:
        """The ticket's reply has ended. A canary that died of another cause is no canary any more."""
        if self.canary is ticket:
            self.canary = ticket.canary = None
