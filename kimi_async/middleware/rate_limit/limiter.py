"""
What a limiter is to those who use one, whether it keeps the limits itself or shares them with other processes.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from ...transport.exchange import Request
from .limits import RateLimits
from .stats import LimiterStats

__all__ = ["Limiter", "Permission"]


class _Sent(Protocol):
    @property
    def sent(self) -> float: ...


class Permission(Protocol):
    """The permission to have one request under way."""

    waited: float
    """Seconds in the queue."""
    reason: str
    """What it waited for."""
    pause: float
    """Once refused: seconds that this request alone should wait."""

    @property
    def ticket(self) -> _Sent:
        """When it was let go, on the loop's clock."""
        ...

    def admitted(self, headers: Mapping[str, str] | None = None) -> None:
        """The server took the request: its good status has come."""
        ...

    def refused(
        self,
        dimension: str | None = None,
        *,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """The server refused it for a limit; this releases the permission."""
        ...

    def overloaded(self, retry_after: float | None = None) -> None:
        """The server has no capacity; this releases the permission."""
        ...

    def release(self) -> None:
        """The reply has ended, or will never come. More than once is harmless."""
        ...


class Limiter(Protocol):
    """Lets requests of one organisation go when its limits allow."""

    limits: RateLimits
    longest_gate: float
    """Seconds of silence asked for by the server that are waited out."""

    @property
    def counts_tokens(self) -> bool:
        """Whether a limit on tokens is known, so that it matters what a request costs."""
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and nobody waits."""
        ...

    def try_acquire(self, tokens: int | Callable[[], int] = 0) -> Permission | None:
        """A permission if the request may go now and nobody waits before it."""
        ...

    async def acquire(
        self,
        tokens: int | Callable[[], int] = 0,
        *,
        priority: int = 0,
        deadline: float | None = None,
        mode: Literal["wait", "fail_fast"] = "wait",
        queued: float | None = None,
    ) -> Permission:
        """Waits for the turn of a request that costs `tokens`."""
        ...

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Tells everybody who waits on the running loop that waiting is of no use."""
        ...

    def alive(self, request: Request, within: float) -> bool:
        """Whether the organisation had a request admitted within so many seconds, or has one under way for longer than a refusal
        takes."""
        ...

    def stats(self) -> LimiterStats:
        """What is waiting, for what, and what is known of each limit."""
        ...
