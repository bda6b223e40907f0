"""
The seam for a quota that several processes use: leases in bundles, and what came of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Bundle", "SharedLimits"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Leases for so many requests, of a quota shared with others."""

    leases: tuple[int, ...]
    ttl: float = 0.2
    """Seconds for which they may be kept unused. Then they are to be given back."""


class SharedLimits(Protocol):
    """
    One quota for several processes. The limits, and what is learnt about them, live behind it; who uses it keeps only a queue.

    `report` and `release` must return at once; what they have to send may go later, and together.
    """

    async def lease(self, count: int, tokens: int) -> Bundle:
        """
        Waits until a request of `tokens` may go, and gives leases for it and, if there is room, for up to `count` like it.
        """
        ...

    def report(
        self,
        lease: int,
        outcome: Literal["admitted", "refused", "overloaded"],
        *,
        dimension: str | None = None,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """What the server said to the request."""
        ...

    def release(self, leases: Sequence[int], *, sent: bool) -> None:
        """The replies have ended; or, if not `sent`, the leases were never used."""
        ...
