"""
When the next request may be sent: the arithmetic, over a clock that is passed in. No waiting, no loop, no dice of its own.

`Law` is asked and told:

    delay(tokens, now)      seconds until a request may go; 0 now, `inf` when only an event can tell
    send(tokens, now)       it goes: a `Ticket`
    admitted(ticket, now)   a good status came back
    refused(ticket, …)      429: which limit, which number, what hint
    overloaded(ticket, …)   429 engine_overloaded_error, 503
    done(ticket, now)       the reply has ended, however it ended

Four things can hold a request back, each with a law of its own:

    Gate          the server said wait (`Retry-After`): nobody sends before. It never decides how deep we cut: with hints
                  longer than the gap between refusals, one clock for both froze a limit for a whole run
                  (github.com/UKGovernmentBEIS/inspect_ai/issues/5137)
    Concurrency   slots. Unknown: slow start, doubling per round of admissions. A refusal tells the number, or what we held
                  when it came back is the number
    Rate          requests (or tokens) of the last 60 s, refused ones included: Kimi's help centre says each counts. A refusal
                  tells the number, or what we had sent is the number; if others share it, we share
    Outage        overload: nothing but a probe every few seconds until one is admitted, then slow start back

An *admission* is the reply's good status, or silence for longer than a refusal takes: refusals come back in
milliseconds, answers in seconds, so growth need not wait for answers.

What is learnt is tested again by a *canary*, one request more than believed possible, paid from a budget of 1 % of what
is admitted. However it ends, it ends: admitted, refused, failed or cancelled.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "TIERS",
    "TIERS_DATE",
    "Concurrency",
    "Law",
    "Outage",
    "Rate",
    "RateLimits",
    "Source",
    "Ticket",
    "Window",
    "tier_of",
]

Source = Literal["config", "told", "tier", "seen", "none"]
"""Who says so: the caller, a 429's text, the `Msh-Gid` header, our own counting, or nobody."""

INF = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """
    What the organisation may do. None means unknown: it is learnt.

    Kimi's limits are per organisation, not per key, and shared by all models.
    """

    concurrency: int | None = None
    """Requests under way at once, streams until their end."""
    rpm: int | None = None
    """Requests a minute, refused ones included."""
    tpm: int | None = None
    """Tokens a minute, counted when a request arrives: prompt + `max_completion_tokens`, whatever is generated."""
    tpd: int | None = None
    """Tokens a day, counted alike. At its end requests fail with `RateLimitWaitError`; nobody waits until tomorrow."""
    adaptive: bool = False
    """Whether to look for more than what is given here. Less is always believed, when the server says so."""
    hold: bool = True
    """Whether an unknown concurrency limit is found by slow start; False sends whatever is asked until the server objects."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "rpm", "tpm", "tpd"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(
                    f"RateLimits.{name} must be a whole number of 1 or more, or None; got {value!r}"
                )

    @classmethod
    def of(cls, value: "RateLimits | str | Mapping[str, Any] | None") -> "RateLimits":
        """
        Understands a `RateLimits`, a mapping of its fields, `"tier0"` … `"tier5"`, and None: learn everything.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            tier = TIERS.get(value.strip().lower().replace("-", "").replace("_", "").replace(" ", ""))
            if tier is None:
                raise ValueError(
                    f"limits must be one of {', '.join(TIERS)}, a RateLimits or None; got {value!r}"
                )
            return tier
        if isinstance(value, Mapping):
            return cls(**value)
        raise TypeError(
            f"limits must be a RateLimits, a tier such as 'tier1', a mapping or None; got {type(value).__name__}"
        )


TIERS_DATE = "2026-09-23"
"""When platform.kimi.ai/docs/pricing/limits was read. The numbers are the same on platform.kimi.com."""

TIERS: Mapping[str, RateLimits] = {
    "tier0": RateLimits(concurrency=1, rpm=3, tpm=500_000, tpd=1_500_000),
    "tier1": RateLimits(concurrency=15, rpm=100, tpm=2_000_000),
    "tier2": RateLimits(concurrency=40, rpm=100, tpm=3_000_000),
    "tier3": RateLimits(concurrency=50, rpm=200, tpm=3_000_000),
    "tier4": RateLimits(concurrency=60, rpm=200, tpm=4_000_000),
    "tier5": RateLimits(concurrency=100, rpm=300, tpm=5_000_000),
}


def tier_of(group: str | None) -> RateLimits | None:
    """
    The limits that a `Msh-Gid` header names (`enterprise-tier-5`, captured 2026-09), or None.
    """
    if not group or len(group) > 40:
        return None
    name, _, number = group.strip().lower().rpartition("-tier-")
    return TIERS.get(f"tier{number}") if name else None


class Ticket:
    """
    One request on its way, from its sending to the end of its reply.
    """

    __slots__ = (
        "before",
        "canary",
        "counted",
        "done",
        "entry",
        "held",
        "inflight",
        "lease",
        "sent",
        "seq",
        "settled",
        "tokens",
        "tokens_before",
        "wanted",
    )

    def __init__(self, seq: int, sent: float, tokens: int) -> None:
        self.seq: int = seq
        self.sent: float = sent
        self.tokens: int = tokens
        self.lease: int | None = None
        """Its number in a quota shared with others."""
        self.inflight: int = 0
        """Others under way when it was sent."""
        self.before: int = 0
        """Requests in the minute before it."""
        self.tokens_before: int = 0
        """Tokens in the minute before it."""
        self.counted: list[float] | None = None
        """Where it is counted."""
        self.entry: list[float] | None = None
        """Where its tokens are written down."""
        self.canary: Rate | Concurrency | None = None
        """Which limit it tests, if any."""
        self.held: bool = True
        """Whether it has a slot."""
        self.settled: bool = False
        """Whether it is known to be admitted or refused."""
        self.wanted: bool = False
        """Whether more than it was waiting for a slot when it was sent."""
        self.done: bool = False


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
    """
    Requests, or tokens, per `span` seconds.
    """

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

    SOON = 20.0
    """Seconds to the first canary of a limit."""
    LATE = 60.0
    """… and at most between two of them, if the budget allows."""
    AFTER_DROP = 7.8
    """… and after the limit was seen to fall."""
    DROP_LASTS = 300.0

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
            if total > allowed * 1.02 + amount:
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
        if self.budget.left < 1.0 and not self.passed:
            return INF
        if self.canary_at == INF:
            self.canary_at = now + max(self.interval, self.sparing())
        return self.canary_at

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
            if self.passed >= 2:
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
            self.interval = min(self.LATE, self.interval * 1.5) if tested else self.interval
            self.canary_at = now + max(self.interval, self.sparing())

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
            share -= max((share - fair) * (0.25 if self.contended > 1 else 0.08), 0.0075 * self.cap)
        else:
            share *= 0.95 if since < 3.0 else 0.99
        self.share = max(1.0, share)

    def _regrow(self, now: float) -> None:
        """
        Our share grows a little, more if it is below half, and ever faster once nobody objects for long: the others have left.
        """
        gap = max(0.0, self.cap / 2 - self.share)
        speed = (0.0003 if gap else 0.00015) * self.cap + 0.01 * gap
        clean = now - self.cut_at - (45.0 if self.contended >= 3 else 12.0)
        if clean > 0:
            speed = min(0.1 * self.cap, speed * 2.0 ** min(clean / 8.0, 30.0))
        self.share += speed * (now - self.grown_at)
        self.grown_at = now
        if self.share >= self.cap:
            self.share = INF
            self.contended = 0

    def over(self, ticket: Ticket) -> None:
        """The ticket's reply has ended. A canary that died of another cause is no canary any more."""
        if self.canary is ticket:
            self.canary = ticket.canary = None


class Concurrency:
    """
    Requests under way at once.
    """

    START = 4
    """
    Slots to begin with where the limit is unknown. They double with every round of admissions, at the latest every half
    second, so 9,000 streams are under way after eleven rounds. Kimi's smallest tier has one slot, the next fifteen; beginning with
    16 costs a new account most of its first minute (3 requests, refused ones included), beginning with 1 costs all others time.
    """

    # A round's worth sent at once would overshoot by as many as the limit is away. In pieces of an eighth, a refusal
    # (30 ms from nearby, 100–300 from afar) stops the rest; where admissions come quicker than this, they set the pace.
    SPREAD = 0.06

    SOON = 30.0
    LATE = 120.0

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
        "tested",
    )

    def __init__(self, cap: int | None, budget: Budget, *, fixed: bool = True, hold: bool = True) -> None:
        self.budget: Budget = budget
        self.cap: float = INF if cap is None else float(cap)
        self.source: Source = "none" if cap is None else "config"
        self.ceiling: float = self.cap if fixed else INF
        self.slow: bool = cap is None
        """Whether slow start is on."""
        self.limit: float = self.cap if cap is not None else (self.START if hold else INF)
        """How many may be under way now."""
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

    def fits(self, inflight: int, now: float) -> bool:
        self.tested = self.spread = False
        if inflight < self.limit:
            if self.slow and inflight >= 2 * self.START:
                if now > self.batch_at + self.SPREAD:
                    self.batch_at = now
                    self.batch = 0
                elif self.batch >= max(self.START, inflight / 8):
                    self.spread = True
                    return False
            return True
        self.blocked_at = now
        if self.slow or self.cap >= self.ceiling or self.limit < self.cap:
            return False
        if self.extra:
            self.tested = inflight < self.limit + self.extra
        elif now >= self.canary_at and not self.canaries and self.budget.left >= 1.0:
            self.tested = True
        elif self.canary_at == INF:
            self.canary_at = now + max(self.interval, self.spacing)
        return self.tested

    def next(self, now: float) -> float:
        """When a slot may open by itself."""
        if self.spread:
            return self.batch_at + self.SPREAD * 1.001
        if self.slow or self.limit < self.cap or self.canaries or self.extra or self.budget.left < 1.0:
            return INF
        return self.canary_at

    def send(self, ticket: Ticket, inflight: int) -> None:
        ticket.inflight = inflight
        self.batch += 1
        if self.tested:
            self.tested = False
            ticket.canary = self
            self.canaries.append(ticket)

    def admitted(self, ticket: Ticket, proven: int, now: float) -> None:
        """
        `proven`: how many are under way that are known to be admitted, this one included.
        """
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

    def refused(self, ticket: Ticket, told: int | None, holding: int, now: float) -> None:
        """
        `holding`: how many sent before this one are still under way, that is, what the server had of ours.
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
        elif not tested:
            held = max(1, min(holding, ticket.inflight))
            if self.slow or held < self.cap or fresh:
                self.cap = self.limit = float(max(1, min(held, self.cap)))
                self.source = "seen"
        self.slow = False
        self.extra = 0
        if fresh:
            self.cut_at = now
        self.interval = min(self.LATE, self.interval * 1.5) if tested else self.SOON
        self.canary_at = now + max(self.interval, self.spacing)

    def over(self, ticket: Ticket) -> None:
        # One request may test a rate as well: it is in the list that says whose canary it is.
        if ticket in self.canaries:
            self.canaries.remove(ticket)
        if ticket.canary is self:
            ticket.canary = None


class Outage:
    """
    The service has no capacity: one request every few seconds asks whether it has again.
    """

    FIRST = 2.0
    EVERY = 3.0
    """Seconds between two probes. At 8 s for a refusal, waiting for one before sending the next would add 8 s to a recovery."""

    __slots__ = (
        "active",
        "began",
        "last",
        "limit",
        "probe_at",
        "probes",
        "recovering",
        "refusals",
        "seen",
        "slowest",
    )

    def __init__(self) -> None:
        self.active: bool = False
        self.recovering: bool = False
        self.began: float = -INF
        self.last: float = -INF
        self.limit: float = INF
        """Slots while recovering."""
        self.probe_at: float = -INF
        self.probes: int = 0
        self.refusals: int = 0
        self.seen: float = -INF
        """When the latest request was sent that was admitted since."""
        self.slowest: float = 0.0
        """The longest time a refusal took to arrive."""

    def refused(self, ticket: Ticket, hint: float | None, dice: float, now: float) -> None:
        self.refusals += 1
        self.slowest = max(self.slowest, now - ticket.sent)
        if self.seen > ticket.sent or (self.recovering and ticket.sent < self.last):
            # Sent before somebody who was admitted: a stray one, or news from before the recovery.
            return
        if not self.active:
            self.active = True
            self.recovering = False
            self.began = now
            self.probes = 0
            self.probe_at = now + self._pause(hint, dice)
        elif hint is not None:
            self.probe_at = max(self.probe_at, now + hint)

    def _pause(self, hint: float | None, dice: float) -> float:
        pause = self.FIRST if self.probes == 0 else self.EVERY
        return max(pause * (0.9 + 0.2 * dice), hint or 0.0)

    def probe(self, dice: float, now: float) -> None:
        self.probes += 1
        self.probe_at = now + self._pause(None, dice)

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


class Law:
    """
    All of it together, for one organisation.

    `dice` gives numbers in [0, 1) for the spreading of what was held back together. Times may come from several loops; a clock
    that jumps back is taken as another one, and history keeps its distance.
    """

    SILENCE = 0.5
    """Seconds without a refusal after which a request counts as admitted. Refusals take 30–300 ms, answers seconds."""

    # 429s about concurrency come with Kimi's constant `Retry-After: 1`, and a slot is free as soon as one of our own
    # answers ends, which we see ourselves. A longer hint is meant.
    SHORT_HINT = 2.0

    def __init__(self, limits: RateLimits, dice: Callable[[], float]) -> None:
        self.limits = limits
        self.dice = dice
        fixed = not limits.adaptive
        self.budget: Budget = Budget()
        self.concurrency: Concurrency = Concurrency(
            limits.concurrency, self.budget, fixed=fixed, hold=limits.hold
        )
        self.requests: Rate = Rate("rpm", limits.rpm, self.budget, fixed=fixed)
        self.tokens: Rate | None = (
            Rate("tpm", limits.tpm, self.budget, fixed=fixed) if limits.tpm is not None else None
        )
        self.day: Rate | None = (
            Rate("tpd", limits.tpd, self.budget, span=86_400.0) if limits.tpd is not None else None
        )
        self.outage: Outage = Outage()
        self.gate: float = -INF
        """Nobody is sent before."""
        self.inflight: dict[int, Ticket] = {}
        """Under way, in the order of sending."""
        self.unsettled: deque[Ticket] = deque()
        self.reason: str = ""
        """What the last `delay` above 0 was for: `gate`, `overloaded`, `concurrency`, `rpm`, `tpm`, `tpd`."""
        self.scale: float = 1.0
        """What the server counts for each token that we estimate."""
        self.seq: int = 0
        self.admissions: int = 0
        self.rejections: int = 0
        self.last_admitted: float = -INF
        self.refusal_takes: float = 0.05
        """How long the slower refusals took to arrive."""
        self.refusals_timed: int = 0
        self.hold_takes: float = 0.0
        """How long a request is under way, on average."""
        self.suspected: Ticket | None = None
        """The first of the refusals without a reason that nothing has been admitted since."""
        self.pending: int = 0
        """Sent, and neither admitted nor refused so far."""
        self.careful: float = INF
        """How many may be pending, after a refusal that left open what there is room for: one, then two, then four."""
        self.doubts: int = 0
        self.blamed: tuple[float, float, bool] = (INF, INF, True)
        self._offset: float = 0.0
        self._last: float = -INF

    # --- asked ------------------------------------------------------------------------------------------------------

    @property
    def counts_tokens(self) -> bool:
        """Whether it needs to know what a request costs."""
        return self.tokens is not None or self.day is not None

    def delay(self, tokens: int, now: float) -> float:
        """
        Seconds until a request of `tokens` may go: 0 now, `inf` if that depends on others. `reason` says why.
        """
        now = self._clock(now)
        if self.unsettled:
            self._settle(now)
        if now < self.gate:
            self.reason = "gate"
            return self.gate - now
        if self.pending >= self.careful:
            self.reason = "gate"
            return max(1e-9, self._next_implied() - now)
        outage = self.outage
        if outage.active:
            if now < outage.probe_at:
                self.reason = "overloaded"
                return outage.probe_at - now
        elif not self.concurrency.fits(len(self.inflight), now):
            self.reason = "concurrency"
            return max(1e-9, self._next_slot(now) - now)
        elif outage.recovering and len(self.inflight) >= outage.limit:
            self.reason = "overloaded"
            return max(1e-9, self._next_implied() - now)
        wait = self.requests.delay(1, now)
        if wait > 0:
            self.reason = "rpm"
        if self.tokens is not None:
            also = self.tokens.delay(self._scaled(tokens), now)
            if also > wait:
                wait, self.reason = also, "tpm"
        if self.day is not None:
            also = self.day.delay(self._scaled(tokens), now)
            if also > wait:
                wait, self.reason = also, "tpd"
        return wait

    @property
    def full(self) -> bool:
        """Whether all slots that were configured are taken, so that nothing but the end of a reply can help."""
        slots = self.concurrency
        return len(self.inflight) >= slots.limit >= slots.ceiling

    def too_costly(self, tokens: int) -> tuple[str, float] | None:
        """The limit that a request of `tokens` exceeds all by itself, or None."""
        for rate in (self.tokens, self.day):
            # What the server has not told, it may yet allow.
            if rate is not None and self._scaled(tokens) > rate.cap and rate.source in ("config", "told"):
                return rate.name, rate.cap
        return None

    def eta(self, ahead: int, tokens: int, now: float) -> float:
        """
        Seconds until a request with `ahead` others before it would go, as far as can be told now. `inf` is never given.
        """
        wait = self.delay(tokens, now)
        now = self._clock(now)
        queue = 0.0
        if ahead or wait == INF:
            slots = max(1.0, min(self.concurrency.limit, 1e9))
            queue = (ahead + 1) * self.hold_takes / slots if wait == INF or slots < 1e9 else 0.0
            if self.requests.known:
                queue = max(queue, ahead * self.requests.span / self.requests.allowed(now))
            if self.tokens is not None and self.tokens.known and tokens:
                each = self._scaled(tokens)
                queue = max(queue, ahead * each * self.tokens.span / self.tokens.allowed(now))
        return queue if wait == INF else max(wait, 0.0) + queue

    def alive(self, within: float, now: float) -> bool:
        """
        Whether somebody was admitted within so many seconds, or is under way for longer than a refusal takes.
        """
        now = self._clock(now)
        if now - self.last_admitted <= within:
            return True
        for ticket in self.inflight.values():
            return now - ticket.sent > max(2.0, 4.0 * self.refusal_takes)
        return False

    # --- told -------------------------------------------------------------------------------------------------------

    def send(self, tokens: int, now: float) -> Ticket:
        """
        A request goes. To be called when `delay` has just said 0.
        """
        now = self._clock(now)
        self.seq += 1
        ticket = Ticket(self.seq, now, tokens)
        self.concurrency.send(ticket, len(self.inflight))
        ticket.counted = self.requests.send(ticket, 1, now)
        if self.tokens is not None:
            ticket.tokens = self._scaled(tokens)
            ticket.entry = self.tokens.send(ticket, ticket.tokens, now)
        if self.day is not None:
            self.day.send(ticket, self._scaled(tokens), now)
        if self.outage.active:
            self.outage.probe(self.dice(), now)
        self.inflight[self.seq] = ticket
        self.unsettled.append(ticket)
        self.pending += 1
        return ticket

    def admitted(self, ticket: Ticket, now: float) -> bool:
        """
        A status below 400. Says whether more may be possible now than before.
        """
        now = self._clock(now)
        self.last_admitted = now
        self.admissions += 1
        budget = self.budget
        if budget.left < budget.MOST:
            budget.left += budget.SHARE
        outage, concurrency = self.outage, self.concurrency
        more = (
            concurrency.slow
            or concurrency.limit < concurrency.cap
            or self.careful < INF
            or ticket.canary is not None
        )
        if outage.active or outage.recovering:
            outage.admitted(ticket, min(concurrency.limit, 1e4), now)
            more = True
        elif ticket.sent > outage.seen:
            outage.seen = ticket.sent
        if self.suspected is not None and ticket.sent > self.suspected.sent:
            self.suspected = None
        if not ticket.settled:
            self._admit(ticket, now)
        return more

    def _settled(self, ticket: Ticket) -> None:
        if not ticket.settled:
            ticket.settled = True
            self.pending -= 1
            if self.concurrency.batch:
                self.concurrency.batch -= 1

    def _admit(self, ticket: Ticket, now: float) -> None:
        self._settled(ticket)
        if self.careful < INF:
            self.careful = self.careful * 2 if self.careful < 64 else INF
        self.concurrency.admitted(ticket, len(self.inflight) - self.pending, now)
        self.requests.admitted(ticket, now)
        if self.tokens is not None:
            self.tokens.admitted(ticket, now)

    def refused(
        self,
        ticket: Ticket,
        dimension: str | None,
        limit: int | None,
        current: int | None,
        hint: float | None,
        now: float,
    ) -> None:
        """
        429 for a limit. `dimension`, `limit` and `current` as the text has them, `hint` the seconds it asks to wait.
        """
        now = self._clock(now)
        self.rejections += 1
        took = now - ticket.sent
        self.refusals_timed += 1
        self.refusal_takes = (
            took if self.refusals_timed == 1 else max(took, self.refusal_takes * 0.9 + took * 0.1)
        )
        self._settled(ticket)
        holding = self._held_before(ticket)
        self._give_back(ticket)
        wait = hint or 0.0
        if limit is None:
            self.careful = 1.0
        if dimension is None:
            dimension = self._suspect(ticket)
        elif dimension == "concurrency" and wait <= self.SHORT_HINT:
            wait = 0.1
        if dimension == "concurrency":
            if self.requests.known:
                self.concurrency.spacing = self.requests.sparing()
            self.concurrency.refused(ticket, limit, holding, now)
        elif dimension in ("tpm", "tpd"):
            if dimension == "tpm":
                self._tokens_refused(ticket, limit, current, now)
        else:
            self.requests.refused(ticket, 1, limit, now, takes=self.refusal_takes)
            self.concurrency.spacing = self.requests.sparing()
        self._over(ticket)
        if wait > 0:
            self.gate = max(self.gate, now + wait * (1.0 + 0.25 * self.dice()))
            if wait > self.SHORT_HINT:
                self.careful = 1.0
            for rate in (self.requests, self.tokens):
                # Silence earns no credit: what waited goes one by one.
                if rate is not None and rate.paced_until > now:
                    rate.tat = max(rate.tat, self.gate + rate.BURST)

    def overloaded(self, ticket: Ticket, hint: float | None, now: float) -> None:
        """
        No capacity, whatever our limits.
        """
        now = self._clock(now)
        self.rejections += 1
        self._settled(ticket)
        self._give_back(ticket)
        self._over(ticket)
        self.outage.refused(ticket, hint, self.dice(), now)

    def done(self, ticket: Ticket, now: float) -> None:
        """
        The reply has ended, or the request failed, or was cancelled. May be called again.
        """
        if ticket.done:
            return
        now = self._clock(now)
        ticket.done = True
        self._settled(ticket)
        self.inflight.pop(ticket.seq, None)
        self._over(ticket)
        taken = now - ticket.sent
        self.hold_takes = taken if not self.hold_takes else self.hold_takes + 0.1 * (taken - self.hold_takes)

    def unsent(self, ticket: Ticket, now: float) -> None:
        """
        It was let go and then did not go: nothing has reached the server.
        """
        if not ticket.done:
            self.done(ticket, now)
            self._give_back(ticket)
            if ticket.counted is not None:
                self.requests.window.take(ticket.counted, 1)

    def tier(self, limits: RateLimits) -> None:
        """
        The reply names the organisation's tier: believed where nobody knows better.
        """
        if self.concurrency.source == "none" and limits.concurrency is not None:
            self.concurrency.learn(limits.concurrency, "tier")
        if self.requests.source == "none" and limits.rpm is not None:
            self.requests.learn(limits.rpm, "tier")
        if self.tokens is None and limits.tpm is not None:
            self.tokens = Rate("tpm", None, self.budget, fixed=False)
            self.tokens.learn(limits.tpm, "tier")

    @property
    def time(self) -> float:
        """The latest time it has been told."""
        return self._last

    # --- within -----------------------------------------------------------------------------------------------------

    def _clock(self, now: float) -> float:
        now += self._offset
        if now < self._last:
            if self._last - now > 1.0:
                self._offset += self._last - now
            return self._last
        self._last = now
        return now

    def _scaled(self, tokens: int) -> int:
        return math.ceil(tokens * self.scale)

    def _settle(self, now: float) -> None:
        """Takes silence for an admission."""
        unsettled = self.unsettled
        while unsettled:
            ticket = unsettled[0]
            if not ticket.settled:
                if ticket.sent + 0.15 > now or ticket.sent + self._silence() > now:
                    return
                self._admit(ticket, now)
                if self.outage.recovering or self.outage.active:
                    self.outage.admitted(ticket, min(self.concurrency.limit, 1e4), now)
            unsettled.popleft()

    def _silence(self) -> float:
        if self.outage.active or self.outage.recovering:
            if self.outage.active:
                return max(self.SILENCE, self.outage.slowest + 0.5)
            return 1.0
        if self.refusals_timed < 2:
            return self.SILENCE
        return min(max(0.15, 4.0 * self.refusal_takes), 5.0)

    def _next_implied(self) -> float:
        for ticket in self.unsettled:
            if not ticket.settled:
                return ticket.sent + self._silence()
        return INF

    def _next_slot(self, now: float) -> float:
        at = self.concurrency.next(now)
        if (
            self.concurrency.slow
            or self.concurrency.limit < self.concurrency.cap
            or self.concurrency.canaries
        ):
            at = min(at, self._next_implied())
        return at

    def _held_before(self, ticket: Ticket) -> int:
        held = 0
        for seq in self.inflight:
            if seq >= ticket.seq:
                break
            held += 1
        return held

    def _suspect(self, ticket: Ticket) -> str:
        """
        The text does not say which limit. Where a rate is known and used up, it was that. Else the slots are blamed, which is cheap
        and soon disproved: if requests are refused again that were sent since, with fewer under way, it was the rate, and its
        number is what had been sent when the trouble began.
        """
        requests, first = self.requests, self.suspected
        if requests.opening or requests.passed or requests.canary is ticket:
            return "rpm"
        if requests.known and ticket.before >= 0.9 * requests.cap:
            return "rpm"
        if first is None:
            self.suspected = ticket
            self.doubts = 0
            self.blamed = (self.concurrency.cap, self.concurrency.limit, self.concurrency.slow)
            return "concurrency"
        if ticket.sent >= self.concurrency.cut_at and ticket.inflight < first.inflight:
            self.doubts += 1
        if self.doubts >= 2 or (self.doubts and ticket.inflight <= 0.7 * first.inflight):
            self.concurrency.cap, self.concurrency.limit, self.concurrency.slow = self.blamed
            if self.concurrency.cap == INF:
                self.concurrency.source = "none"
            ticket.before = min(ticket.before, first.before)
            self.suspected = None
            return "rpm"
        return "concurrency"

    def _tokens_refused(self, ticket: Ticket, limit: int | None, current: int | None, now: float) -> None:
        rate = self.tokens
        if rate is None:
            rate = self.tokens = Rate("tpm", None, self.budget, fixed=False)
            # Nothing was counted so far. The server says what the minute holds; it came as the requests came.
            total = self.requests.window.expire(now) or 1
            known = current * (total - 1) / total if current is not None else float(limit or 0)
            rate.window = self.requests.window.scaled(known / total, rate.window.span)
            ticket.tokens_before = rate.window.total
        elif current is not None and ticket.tokens:
            expected = ticket.tokens_before + (ticket.tokens if limit is None or current > limit else 0)
            ratio = current / max(1, expected)
            if 0.7 <= ratio <= 1.3:
                self.scale = min(4.0, max(0.25, self.scale * (1.0 + 0.5 * (ratio - 1.0))))
        rate.refused(ticket, ticket.tokens, limit, now, takes=self.refusal_takes)

    def _give_back(self, ticket: Ticket) -> None:
        """Refused requests cost no tokens."""
        if ticket.entry is not None and self.tokens is not None:
            self.tokens.window.take(ticket.entry, ticket.tokens)
            ticket.entry = None

    def _over(self, ticket: Ticket) -> None:
        if self.concurrency.canaries:
            self.concurrency.over(ticket)
        if ticket.canary is not None:
            ticket.canary.over(ticket)
