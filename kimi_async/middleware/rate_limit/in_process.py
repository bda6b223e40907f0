"""
The same seam without a wire: one controller, for the calls of one process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .controller import AdmissionController, Lease
from .limits import RateLimits
from .shared import Bundle

__all__ = ["InProcessLimits"]


class InProcessLimits:
    """
    A `SharedLimits` for several controllers of one process: the arithmetic of one of them, without a wire.

    Also what a broker between processes would keep: it sees leases, not requests.
    """

    def __init__(self, limits: RateLimits | str | Mapping[str, Any] | None = None) -> None:
        self.controller: AdmissionController = AdmissionController(limits)
        """The one that knows; its `stats()` are those of all."""
        self._leases: dict[int, Lease] = {}

    async def lease(self, count: int, tokens: int) -> Bundle:
        lease: Lease | None = await self.controller.acquire(tokens)
        numbers: list[int] = []
        while lease is not None:
            number = lease.ticket.seq
            self._leases[number] = lease
            numbers.append(number)
            lease = self.controller.try_acquire(tokens) if len(numbers) < count else None
        return Bundle(tuple(numbers))

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
        known = self._leases.get(lease)
        if known is None:
            return
        if outcome == "admitted":
            known.admitted()
        elif outcome == "refused":
            known.refused(dimension, limit=limit, current=current, retry_after=retry_after)
        else:
            known.overloaded(retry_after)

    def release(self, leases: Sequence[int], *, sent: bool) -> None:
        for number in leases:
            lease = self._leases.pop(number, None)
            if lease is None:
                continue
            if sent:
                lease.release()
            else:
                self.controller.give_back(lease)
