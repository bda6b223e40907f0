"""
The server's side of rate limits: who is admitted, who gets which 429, and what it costs.

Arithmetic only. `now` is passed in (any clock in seconds), so that the same ledger stands behind the socket simulator and
behind a `MemoryTransport` under a virtual clock.

    ledger = ServerLedger("tier5")
    permit = ledger.admit(now, tokens=1_200)
    if permit.refusal is None:
        ...                                # 200; `permit.release()` when the response has ended

What is known of Kimi's own limiter (platform.kimi.ai/docs/pricing/limits and captures, 2026-09): limits belong to
the organisation and are shared by all models; TPM is charged when the request arrives, prompt plus
`max_completion_tokens`, and is not reconciled; every request counts against RPM, refused ones too; each rate-limit 429 says
`Retry-After: 1`. How its windows are cut is not known, so all three usual ways are here.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from .replies import ACCOUNT, Account, Refusal, error_reply

__all__ = ["TIERS", "Permit", "ServerLedger", "ServerLimits", "Storm", "WindowKind"]

WindowKind = Literal["sliding", "fixed", "bucket"]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What an organisation may use; None is no limit. RPM and TPM count per minute, TPD per day."""

    concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    tpd: int | None = None


# As published on platform.kimi.ai/docs/pricing/limits, read 2026-09-23; the same on both hosts.
TIERS: dict[str, ServerLimits] = {
    "tier0": ServerLimits(1, 3, 500_000, 1_500_000),
    "tier1": ServerLimits(15, 100, 2_000_000),
    "tier2": ServerLimits(40, 100, 3_000_000),
    "tier3": ServerLimits(50, 200, 3_000_000),
    "tier4": ServerLimits(60, 200, 4_000_000),
    "tier5": ServerLimits(100, 300, 5_000_000),
}


@dataclass(frozen=True, slots=True)
class Storm:
    """
    A time of `engine_overloaded_error`: from `begin` to `end`, a `share` of admitted requests fails after `delay`.

    The failure takes as long as it did live, 7 to 11 seconds, and holds its slot meanwhile; it carries no
    Retry-After. `kind` may be any error of `replies.ERRORS`, "unavailable" for example.
    """

    begin: float
    end: float
    share: float = 1.0
    delay: float = 8.0
    kind: str = "overloaded"


@dataclass(slots=True)
class Permit:
    """
    The decision on one request. `refusal` is None if it is admitted; `delay` is the wait before a refusal is sent.

    `release` gives the concurrency slot back; it must be called once the response has ended, and may be called again.
    """

    refusal: Refusal | None = None
    delay: float = 0.0
    _free: Callable[[], None] | None = None

    def release(self) -> None:
        free, self._free = self._free, None
        if free is not None:
            free()


class ServerLedger:
    """
    The ledger of one organisation.

    The simulator asks it for chat requests that are well-formed; a 400 costs nothing here.

    `limits` is a `ServerLimits` or the name of a tier. `window` is how a minute is counted: "sliding" (the last
    60 s, exactly), "fixed" (minutes of the clock) or "bucket" (refilled continuously, full at first).
    `rejects_count` says whether refused requests are charged to RPM (with "bucket" a refused request cannot take what
    is not there). `retry_after` None leaves the hint out. `hide_numbers` uses the short text without limits.
    `schedule` changes the limits at given times; `storms` are times of overload.

    Counters: `admitted`, `rejected` by kind, `in_flight`, `peak_in_flight`, `tokens_admitted`, and `log`, the last
    100,000 decisions as (time, kind), kind "" for admitted.
    """

    def __init__(
        self,
        limits: ServerLimits | str,
        *,
        window: WindowKind = "sliding",
        period: float = 60.0,
        day: float = 86_400.0,
        rejects_count: bool = True,
        retry_after: float | None = 1,
        hide_numbers: bool = False,
        schedule: Iterable[tuple[float, ServerLimits | str]] = (),
        storms: Iterable[Storm] = (),
        account: Account = ACCOUNT,
        seed: int = 0,
    ) -> None:
        self.tier: str | None = limits if isinstance(limits, str) else None
        self.limits: ServerLimits = _limits(limits)
        self.rejects_count = rejects_count
        self.retry_after = retry_after
        self.hide_numbers = hide_numbers
        self.account = account
        self.schedule: deque[tuple[float, ServerLimits]] = deque(
            sorted(((at, _limits(new)) for at, new in schedule), key=lambda pair: pair[0])
        )
        self.storms: list[Storm] = list(storms)
        self.admitted: int = 0
        self.rejected: Counter[str] = Counter()
        self.in_flight: int = 0
        self.peak_in_flight: int = 0
        self.tokens_admitted: int = 0
        self.log: deque[tuple[float, str]] = deque(maxlen=100_000)
        self._requests = _window(window, period)
        self._tokens = _window(window, period)
        self._day = _window("fixed", day)
        self._dice = random.Random(seed)

    def change(self, limits: ServerLimits | str) -> None:
        """From now on these limits; what was used stays used."""
        self.limits = _limits(limits)

    def admit(self, now: float, tokens: int = 0) -> Permit:
        """
        Decide one arrival that asks for `tokens` (prompt + budget).

        Checked in this order: concurrency, RPM, TPM, TPD, overload. A refused request is charged no tokens.
        """
        while self.schedule and self.schedule[0][0] <= now:
            self.limits = self.schedule.popleft()[1]
        limits = self.limits
        kind, limit, current = "", 0, 0
        if limits.concurrency is not None and self.in_flight >= limits.concurrency:
            kind, limit = "concurrency", limits.concurrency
        elif limits.rpm is not None and not self._requests.fits(now, 1, limits.rpm):
            kind, limit = "rpm", limits.rpm
        elif limits.tpm is not None and not self._tokens.fits(now, tokens, limits.tpm):
            kind, limit, current = "tpm", limits.tpm, self._tokens.used(now, limits.tpm) + tokens
        elif limits.tpd is not None and not self._day.fits(now, tokens, limits.tpd):
            kind, limit, current = "tpd", limits.tpd, self._day.used(now, limits.tpd) + tokens
        if limits.rpm is not None and (not kind or self.rejects_count):
            self._requests.add(now, 1, limits.rpm)
        if kind:
            return self._refused(now, kind, limit, current)
        if limits.tpm is not None:
            self._tokens.add(now, tokens, limits.tpm)
        if limits.tpd is not None:
            self._day.add(now, tokens, limits.tpd)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        for storm in self.storms:
            if storm.begin <= now < storm.end and self._dice.random() < storm.share:
                self.rejected[storm.kind] += 1
                self.log.append((now, storm.kind))
                return Permit(error_reply(storm.kind, account=self.account), storm.delay, self._free)
        self.admitted += 1
        self.tokens_admitted += tokens
        self.log.append((now, ""))
        return Permit(None, 0.0, self._free)

    def admitted_between(self, begin: float, end: float) -> int:
        """How many of the logged requests were admitted in [begin, end): the numerator of goodput."""
        return sum(1 for at, kind in self.log if begin <= at < end and not kind)

    def rejected_between(self, begin: float, end: float) -> int:
        """How many of the logged requests were refused in [begin, end)."""
        return sum(1 for at, kind in self.log if begin <= at < end and kind)

    def _free(self) -> None:
        self.in_flight -= 1

    def _refused(self, now: float, kind: str, limit: int, current: int) -> Permit:
        self.rejected[kind] += 1
        self.log.append((now, kind))
        name = "rpm_hidden" if self.hide_numbers else kind
        refusal = error_reply(name, account=self.account, limit=limit, current=current)
        if self.retry_after is None:
            refusal = replace(refusal, headers=())
        else:
            hint = f"{self.retry_after:g}"
            refusal = replace(
                refusal,
                headers=tuple((header, hint) for header, _ in refusal.headers),
                message=refusal.message.replace("after 1 seconds", f"after {hint} seconds"),
            )
        return Permit(replace(refusal, kind=kind))


def _limits(limits: ServerLimits | str) -> ServerLimits:
    if isinstance(limits, ServerLimits):
        return limits
    try:
        return TIERS[limits]
    except KeyError:
        raise ValueError(f"no tier is called {limits!r}; there are: {', '.join(TIERS)}") from None


# --- windows --------------------------------------------------------------------------------------------


class _Window(Protocol):
    """Counts an amount over time against a limit that may change between calls."""

    def fits(self, now: float, amount: int, limit: int) -> bool: ...
    def add(self, now: float, amount: int, limit: int) -> None: ...
    def used(self, now: float, limit: int) -> int: ...


def _window(kind: WindowKind, period: float) -> _Window:
    if kind == "sliding":
        return _Sliding(period)
    return _Fixed(period) if kind == "fixed" else _Bucket(period)


class _Sliding:
    """The amount of the last `period` seconds, to the event."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._events: deque[tuple[float, int]] = deque()
        self._sum = 0

    def used(self, now: float, limit: int) -> int:
        events, horizon = self._events, now - self.period
        while events and events[0][0] <= horizon:
            self._sum -= events.popleft()[1]
        return self._sum

    def fits(self, now: float, amount: int, limit: int) -> bool:
        return self.used(now, limit) + amount <= limit

    def add(self, now: float, amount: int, limit: int) -> None:
        self._events.append((now, amount))
        self._sum += amount


class _Fixed:
    """The amount since the period began; periods begin at multiples of `period` on the clock."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._index = -1.0
        self._sum = 0

    def used(self, now: float, limit: int) -> int:
        index = now // self.period
        if index != self._index:
            self._index, self._sum = index, 0
        return self._sum

    def fits(self, now: float, amount: int, limit: int) -> bool:
        return self.used(now, limit) + amount <= limit

    def add(self, now: float, amount: int, limit: int) -> None:
        self.used(now, limit)
        self._sum += amount


class _Bucket:
    """A bucket of `limit`, full at first, refilled at limit/period per second."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._taken = 0.0  # what is missing from a full bucket
        self._at: float | None = None

    def _refill(self, now: float, limit: int) -> float:
        if self._at is not None:
            self._taken = max(0.0, self._taken - (now - self._at) * limit / self.period)
        self._at = now
        return self._taken

    def used(self, now: float, limit: int) -> int:
        return int(self._refill(now, limit))

    def fits(self, now: float, amount: int, limit: int) -> bool:
        # A whole period of refilling in float steps must give the whole limit back.
        return self._refill(now, limit) + amount <= limit + 1e-6

    def add(self, now: float, amount: int, limit: int) -> None:
        self._taken = min(self._refill(now, limit) + amount, float(limit))
