"""
The seam between a limiter, which keeps a queue, and whoever knows what a quota that several processes share allows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .message import SharedView

__all__ = ["Ask", "Grant", "Line", "OnLost", "Outcome", "SharedLimits"]

OnLost = Literal["share", "block", "raise"]
Outcome = Literal["admitted", "refused", "overloaded"]


class Ask:
    """One request that waits."""

    __slots__ = ("deadline", "gone", "granted", "priority", "tokens")

    def __init__(self, tokens: int = 0, priority: int = 0, deadline: float | None = None) -> None:
        self.tokens: int = tokens
        self.priority: int = priority
        self.deadline: float | None = deadline
        """On the loop's clock. It is not asked for any more when that has come."""
        self.gone: bool = False
        """Set by who asked: it does not want to go any more."""
        self.granted: bool = False
        """Set by the engine: it goes in a moment, and is not asked for any more."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission to have one request under way."""

    lease: int
    ask: Ask


class Line(Protocol):
    """Those who wait, in order. The engine looks at it when it speaks with the ledger, not when it was asked to."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        ...

    def head(self, most: int) -> Sequence[Ask]:
        """The first of them."""
        ...

    def granted(self, ask: Ask, lease: int) -> bool:
        """It may go. False: it is not wanted any more."""
        ...

    def told(self, reason: str, wait: float) -> None:
        """What the next one waits for, and for how many seconds at least."""
        ...

    def failed(self, error: Callable[[], Exception]) -> None:
        """Nobody can be let go; `error` makes what each is to be raised."""
        ...


class SharedLimits(Protocol):
    """One quota for several processes, as a limiter sees it. `SharedEngine` is one, over any `Ledger`."""

    def attach(self, line: Line) -> None:
        """From now on who waits in this line is asked for."""
        ...

    def poke(self, priority: int = 0) -> None:
        """Somebody came to wait."""
        ...

    async def lease(self, asks: Sequence[Ask], *, wait: bool = True) -> list[Grant]:
        """Waits until the first of them may go, and grants to as many as may. Without `wait`, asks once: maybe none may."""
        ...

    def report(
        self,
        lease: int,
        outcome: Outcome,
        *,
        dimension: str | None = None,
        limit: int | None = None,
        current: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """What the server said to the request. Returns at once."""
        ...

    def release(self, leases: Sequence[int], *, sent: bool, tokens: int | None = None) -> None:
        """The replies have ended; or, if not `sent`, the leases were never used. `tokens` is what each really was charged. Returns at
        once."""
        ...

    def view(self) -> SharedView:
        """What is known of the quota."""
        ...

    async def aclose(self) -> None:
        """Leaves."""
        ...
