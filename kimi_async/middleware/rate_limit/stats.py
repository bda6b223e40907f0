"""
What a limiter is doing, at one moment.
"""

from dataclasses import dataclass

from .rate import Rate
from .window import INF

__all__ = ["LimitStats", "LimiterStats", "rate_stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStats:
    """One limit as it is believed to be."""

    limit: float | None
    """None while unknown."""
    source: str
    """`config`, `told` (by a 429's text), `tier` (by a header), `seen` (counted), `none`."""
    used: int
    """Of the current minute (or day, or slots)."""
    allowed: float | None
    """How much of it is ours now: less than `limit` where others share it or after a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterStats:
    """What a limiter is doing, at one moment."""

    waiting: int
    """Requests in the queue."""
    waiting_for: str | None
    """What the first of them waits for: `gate` (the server said so), `overloaded`, `concurrency`, `rpm`, `tpm`, `tpd`; None if
    nobody waits."""
    eta: float
    """Seconds until a request that came now would be sent, as far as can be told."""
    in_flight: int
    concurrency: LimitStats
    rpm: LimitStats
    tpm: LimitStats
    tpd: LimitStats
    gate: float
    """Seconds for which the server still wants silence; 0 if it does not."""
    overloaded: bool
    """Whether only probes are sent, because the service has no capacity."""
    admitted: int
    """Requests admitted so far."""
    refused: int
    """Requests refused so far, for a limit or for lack of capacity."""


def finite(value: float) -> float | None:
    return value if value < INF else None


def rate_stats(rate: Rate | None, now: float) -> LimitStats:
    if rate is None:
        return LimitStats(limit=None, source="none", used=0, allowed=None)
    return LimitStats(
        limit=finite(rate.cap),
        source=rate.source,
        used=rate.window.total,
        allowed=finite(rate.allowed(now)),
    )
