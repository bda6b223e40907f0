"""
What an organisation may do, as the caller says it or a tier has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

__all__ = ["TIERS", "TIERS_DATE", "RateLimits", "Source", "tier_of", "unknown_limits"]

Source = Literal["config", "told", "tier", "seen", "none"]
"""Who says so: the caller, a 429's text, the `Msh-Gid` header, our own counting, or nobody."""


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
    start: int = 4
    """
    Slots to begin with where the limit is unknown. They double with every round of admissions, at the latest every half
    second, so 9,000 streams are under way after eleven rounds. Kimi's smallest tier has one slot, the next fifteen; beginning with
    16 costs a new account most of its first minute (3 requests, refused ones included), beginning with 1 costs all others time.
    """

    def __post_init__(self) -> None:
        for name in ("concurrency", "rpm", "tpm", "tpd", "start"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(
                    f"RateLimits.{name} must be a whole number of 1 or more, or None; got {value!r}"
                )

        for name in ("adaptive", "hold"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(
                    f"RateLimits.{name} must be True or False, not {type(value).__name__} ({value!r:.40})"
                )

    @classmethod
    def of(cls, value: "RateLimits | str | Mapping[str, Any] | None") -> "RateLimits":
        """Understands a `RateLimits`, a mapping of its fields, `"tier0"` … `"tier5"`, and None: learn everything."""
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


ELSEWHERE = 256
"""`start` at hosts that are not Kimi's own, whose tiers end at a hundred slots: of resellers nobody knows a limit so low."""


def unknown_limits(base_url: str, *, official: bool, own: bool = False) -> RateLimits:
    """
    Where to begin with a host of which nobody has told the limits: carefully at Kimi's, with more elsewhere, and at once with a
    server of one's own (on loopback, in a private network, a bare name), which refuses if it must.

    :param own: it is known to be one's own, wherever it is.
    """
    host = (urlsplit(base_url).hostname or "").lower()
    try:
        own = (
            own or not ip_address(host).is_global
        )  # also 100.64.0.0/10, of overlay networks, which is not "private"
    except ValueError:
        own = (
            own
            or host == "localhost"
            or host.endswith((".localhost", ".local", ".internal"))
            or "." not in host
        )
    return RateLimits(hold=not own, start=4 if official or own else ELSEWHERE)


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
    """The limits that a `Msh-Gid` header names (`enterprise-tier-5`, captured 2026-09), or None."""
    if not group or len(group) > 40:
        return None
    name, _, number = group.strip().lower().rpartition("-tier-")
    return TIERS.get(f"tier{number}") if name else None
