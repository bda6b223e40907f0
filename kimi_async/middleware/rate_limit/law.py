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
from collections.abc import Callable

from .evidence import Evidence
from .guesses import Guesses
from .limits import RateLimits
from .outage import Outage
from .rate import Budget, Rate
from .slots import Concurrency
from .ticket import Ticket
from .window import INF

__all__ = ["Law"]


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

    SPREAD = 0.25
    """How much longer than asked some wait, so that a gate does not let all go in one moment."""

    def __init__(self, limits: RateLimits, dice: Callable[[], float]) -> None:
        self.limits = limits
        self.dice = dice
        fixed = not limits.adaptive
        self.budget: Budget = Budget()
        self.concurrency: Concurrency = Concurrency(
            limits.concurrency, self.budget, fixed=fixed, hold=limits.hold, start=limits.start
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
        self.guesses: Guesses = Guesses(self.concurrency, self.requests)
        self.pending: int = 0
        """Sent, and neither admitted nor refused so far."""
        self.careful: float = INF
        """How many may be pending, after a refusal that left open what there is room for: one, then two, then four."""
        self.hushed: float = -INF
        """When the last silence ended that was asked for without a reason."""
        self._offset: float = 0.0
        self._last: float = -INF

    # --- asked ------------------------------------------------------------------------------------------------------

    @property
    def counts_tokens(self) -> bool:
        """Whether it needs to know what a request costs."""
        return self.tokens is not None or self.day is not None

    def delay(self, tokens: int, now: float) -> float:
        """Seconds until a request of `tokens` may go: 0 now, `inf` if that depends on others. `reason` says why."""
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
                self.reason = "gate" if now < outage.asked else "overloaded"
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
        """Seconds until a request with `ahead` others before it would go, as far as can be told now. `inf` is never given."""
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
        """Whether somebody was admitted within so many seconds, or is under way for longer than a refusal takes."""
        now = self._clock(now)
        if now - self.last_admitted <= within:
            return True
        for ticket in self.inflight.values():
            return now - ticket.sent > max(2.0, 4.0 * self.refusal_takes)
        return False

    # --- told -------------------------------------------------------------------------------------------------------

    def send(self, tokens: int, now: float) -> Ticket:
        """A request goes. To be called when `delay` has just said 0."""
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
        """A status below 400. Says whether more may be possible now than before."""
        now = self._clock(now)
        self.last_admitted = now
        self.admissions += 1
        budget = self.budget
        if budget.left < budget.MOST:
            budget.left += budget.SHARE
        outage, concurrency = self.outage, self.concurrency
        outage.well += 1
        if outage.row:
            outage.passed(ticket)
        self.guesses.passed(ticket)
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
        if self.concurrency.blocked_at >= ticket.sent or self.concurrency.canaries:
            self.concurrency.admitted(ticket, len(self.inflight) - self.pending, now)
        self.guesses.admitted(ticket, now)
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
    ) -> float:
        """
        429 for a limit. `dimension`, `limit` and `current` as the text has them, `hint` the seconds it asks to wait.

        Gives the seconds that this request alone should wait, where its refusal says nothing about the others.
        """
        now = self._clock(now)
        self.rejections += 1
        took = now - ticket.sent
        self.refusals_timed += 1
        self.refusal_takes = (
            took if self.refusals_timed == 1 else max(took, self.refusal_takes * 0.9 + took * 0.1)
        )
        self._settled(ticket)
        holding = _held_before(self.inflight, ticket)
        self._give_back(ticket)
        wait = hint or 0.0
        if dimension is None:
            # A refusal is quicker than an answer: who has been silent for longer than refusals take was let in.
            silent, guessed = now - 2.0 * self.refusal_takes, self.guesses.guessed
            pending: list[tuple[int, int, bool]] = []
            for one in self.unsettled:
                if not one.settled:
                    if one.seq > ticket.seq and one.inflight:
                        one.inflight -= 1  # what was refused has held no slot
                    pending.append((one.inflight, one.before, one.sent < silent))
            found = self.guesses.explain(ticket, now, pending)
            if guessed and not self.guesses.guessed:
                self.careful = INF
            if found is None:
                self._over(ticket)
                return self._alone(ticket, wait, now)
            dimension, holding = found, ticket.inflight
            if found == "concurrency" and wait <= self.SHORT_HINT:
                wait = min(wait, 0.1)
        elif dimension == "concurrency" and wait <= self.SHORT_HINT:
            wait = 0.1
        if limit is None:
            self.careful = 1.0
        if dimension == "concurrency":
            if self.requests.known:
                self.concurrency.spacing = self.requests.sparing()
            proven = len(self.inflight) - self.pending - 1
            self.concurrency.refused(ticket, limit, holding, now, proven=proven)
        elif dimension in ("tpm", "tpd"):
            if dimension == "tpm":
                self._tokens_refused(ticket, limit, current, now)
        else:
            self.requests.refused(ticket, 1, limit, now, takes=self.refusal_takes)
            self.concurrency.spacing = self.requests.sparing()
        self._over(ticket)
        if wait > 0:
            self.gate = max(self.gate, now + wait * (1.0 + self.SPREAD * self.dice()))
            if wait > self.SHORT_HINT:
                self.careful = 1.0
            for rate in (self.requests, self.tokens):
                # Silence earns no credit: what waited goes one by one.
                if rate is not None and rate.paced_until > now:
                    rate.tat = max(rate.tat, self.gate + rate.BURST)
        return 0.0

    def overloaded(self, ticket: Ticket, hint: float | None, now: float) -> float:
        """No capacity, whatever our limits. Gives the seconds that this request alone should wait, where others go on."""
        now = self._clock(now)
        self.rejections += 1
        self._settled(ticket)
        self._give_back(ticket)
        self._over(ticket)
        self.outage.refused(
            ticket,
            hint,
            self.dice(),
            now,
            _held_before(self.inflight, ticket, self.outage.starts(ticket, now)),
        )
        return 0.0 if self.outage.active else hint or 0.0

    def done(self, ticket: Ticket, now: float) -> None:
        """The reply has ended, or the request failed, or was cancelled. May be called again."""
        if ticket.done:
            return
        now = self._clock(now)
        ticket.done = True
        if not ticket.settled:
            self._settled(ticket)
        self.inflight.pop(ticket.seq, None)
        if ticket.canary is not None or self.concurrency.canaries:
            self._over(ticket)
        taken = now - ticket.sent
        self.hold_takes = taken if not self.hold_takes else self.hold_takes + 0.1 * (taken - self.hold_takes)

    def unsent(self, ticket: Ticket, now: float) -> None:
        """It was let go and then did not go: nothing has reached the server."""
        if not ticket.done:
            self.done(ticket, now)
            self._give_back(ticket)
            if ticket.counted is not None:
                self.requests.window.take(ticket.counted, 1)

    def tier(self, limits: RateLimits) -> None:
        """The reply names the organisation's tier: believed where nobody knows better."""
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

    def _alone(self, ticket: Ticket, wait: float, now: float) -> float:
        """
        A refusal that says nothing about a limit. Its wish for silence holds for everybody once, so that a server that means it
        is heard; while others get through, it is the wish of one replica, and holds for this request.
        """
        if wait > 0 and ticket.sent > self.hushed and now - self.last_admitted > Evidence.AGE:
            self.gate = self.hushed = max(self.gate, now + wait * (1.0 + self.SPREAD * self.dice()))
            return 0.0
        return wait

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


def _held_before(inflight: dict[int, Ticket], ticket: Ticket, since: float = -INF) -> int:
    """How many are under way that were sent before this one, but not before `since`."""
    held = 0
    for seq, one in inflight.items():
        if seq >= ticket.seq:
            break
        if one.sent >= since:
            held += 1
    return held
