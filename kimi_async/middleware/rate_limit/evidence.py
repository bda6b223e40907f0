"""
Whether refusals that name no limit follow load. Those of a limit do; those of one bad replica, or of a firewall, do not.
"""

import math
from collections import deque
from collections.abc import Iterable
from typing import Literal

from .ticket import Ticket

__all__ = ["CONVINCING", "PRIOR_REFUSED", "Evidence", "Finding", "by_chance"]

Finding = Literal["stray", "late", "open", "slots", "minute"]
"""
`stray`: as likely with less under way. `open`: not known yet. `late`: not for slots, and it is not known yet whether for the
minute. `slots`, `minute`: a limit, of which kind.
"""

CONVINCING = 1e-6
"""How unlikely so many refusals must be by chance to count as a limit. At a thousand outcomes a second the question is asked a thousand
times. (At 1e-5 half of all refused by accident leave 43 % of what fits in one run of six, at 1e-4 a tenth in most; five slots are found
with 35 refusals, and would be with 23 and 18.)"""
PRIOR_REFUSED = 0.05
PRIOR = 10.0
"""What a host is given credit for before anything is known of it: one refusal in twenty by accident, weighed as ten outcomes."""


def by_chance(refused: int, sent: int, often: float, of: float) -> float:
    """
    How likely it is that so many of those sent are refused by accident, if `often` of `of` others were. Where those are few, nobody
    knows how often accidents happen, and it takes more: twelve in a row where there are none, eight after five that got through, four
    after a hundred (the beta-binomial distribution; a power of the share took any majority of many for a limit).
    """
    a = often + PRIOR_REFUSED * PRIOR
    b = max(of - often, 0.0) + (1.0 - PRIOR_REFUSED) * PRIOR
    through, log = sent - refused, math.lgamma
    return math.exp(
        log(sent + 1) - log(refused + 1) - log(through + 1)
        + log(a + refused) + log(b + through) - log(a + b + sent)
        - log(a) - log(b) + log(a + b)
    )  # fmt: skip


class Evidence:
    """
    The latest outcomes, each with the load it was sent under: how many were under way, how many had gone in the minute.

    A limit refuses whoever comes above it, and nobody below. So a refusal is a limit's where those sent under as much load
    were refused too, more often than those sent under less; and a stray one where others got through under as much.
    """

    KEPT = 256
    """Outcomes. Enough to tell a share of a third from one of a half, and few enough to look through at each refusal."""
    AGE = 10.0
    """Seconds. What was possible longer ago says little: limits are lowered, and others come to share them."""
    BURST = 1.0
    """Seconds in which the refusals of one limit come together."""
    FEWEST = 3
    """Refusals under as much load, at least: in the first minute each request has more before it than any other had."""
    MEMORY = 0.99
    """What an accident weighs after one more outcome: the share of accidents is that of the last hundred or so."""

    __slots__ = ("accidents", "outcomes", "total")

    def __init__(self) -> None:
        self.accidents: float = 0.0
        """Refusals that have led to no limit, …"""
        self.total: float = 0.0
        """… of so many outcomes, the latest weighing most."""
        self.outcomes: deque[tuple[float, int, int, bool]] = deque(maxlen=self.KEPT)
        """When, slots, minute, admitted."""

    def saw(self, ticket: Ticket, admitted: bool, now: float) -> None:
        """A request was admitted, or refused without a reason."""
        self.total = self.total * self.MEMORY + 1.0
        self.accidents *= self.MEMORY
        self.outcomes.append((now, ticket.inflight, ticket.before, admitted))

    def weigh(
        self,
        ticket: Ticket,
        now: float,
        pending: Iterable[tuple[int, int, bool]] = (),
        *,
        within_slots: bool = False,
    ) -> tuple[Finding, int]:
        """
        What the refusal of this request means, which has been seen; and where a limit begins, if it is one.

        `pending` are under way: slots, minute, and whether they have been silent for longer than a refusal takes. With
        `within_slots` it was sent under a number of slots that is believed, so that they do not explain it.
        """
        self.accidents += 1.0
        edge = now - self.AGE
        recent: list[tuple[int, int, bool | None]] = [one[1:] for one in self.outcomes if one[0] > edge]
        recent += [(slots, minute, True if silent else None) for slots, minute, silent in pending]
        together = [one for one in self.outcomes if one[0] > now - self.BURST and not one[3]] or [
            (now, ticket.inflight, ticket.before, False)
        ]
        stray = within_slots
        if not within_slots:
            slots, stray = self._begins(
                [(one[0], one[2]) for one in recent], ticket.inflight, min(one[1] for one in together)
            )
            if slots is not None:
                return "slots", slots
        minute, late = self._begins(
            [(one[1], one[2]) for one in recent], ticket.before, min(one[2] for one in together)
        )
        if stray and minute is not None:
            return "minute", minute
        if not stray:
            return "open", 0
        return ("stray" if late else "late"), 0

    def _begins(
        self, outcomes: list[tuple[int, bool | None]], load: int, lowest: int
    ) -> tuple[int | None, bool]:
        """
        The load from which on requests are refused, or None while that is not clear; and whether as many got through above `load`.

        Asked of this load, and of the least of those refused together with it, since they overtake each other on the way. To ask of
        every load would find a limit in any row of accidents.
        """
        if self._follows(outcomes, lowest):
            return lowest, False
        found = self._follows(outcomes, load)
        return (load if found else None), found is False

    def _follows(self, outcomes: list[tuple[int, bool | None]], load: int) -> bool | None:
        """Whether refusals begin at this load; None while too little is known."""
        above = [admitted for other, admitted in outcomes if other >= load]
        refused, unknown = above.count(False), above.count(None)
        through = len(above) - refused - unknown
        if through >= refused:
            return False
        below = [admitted for other, admitted in outcomes if other < load]
        # Refusals overtake answers: what is under way has not been let in by that alone. (To conclude nothing while most below are
        # unknown costs more where there is a limit: 300 calls before five slots took 94 s instead of 77.)
        known = len(below) - below.count(None)
        # An answer may have ended over there that has not ended here, so a few get through above a limit too. Who is under way
        # counts as through: more of the refused have been heard of (counted as nothing, a row of accidents in the first
        # millisecond was a limit, which cost 93 % of 30 s; a limit is found with a few refusals more).
        more = refused - through - unknown
        if more < self.FEWEST:
            return None
        sent = len(above)
        chance = max(
            by_chance(refused, sent, below.count(False), known),
            by_chance(refused, sent, max(0.0, self.accidents - refused), self.total - refused),
        )
        return True if chance < CONVINCING else None

    def forget(self) -> None:
        """A limit was learnt from its refusals: those that come now are judged by themselves. What got through remains known."""
        admitted = [one for one in self.outcomes if one[3]]
        self.accidents = max(0.0, self.accidents - (len(self.outcomes) - len(admitted)))
        self.outcomes = deque(admitted, maxlen=self.KEPT)

    def mistaken(self) -> None:
        """What was learnt last was no limit. The refusals that spoke for it are not known any more, so neither is what got through."""
        self.outcomes.clear()
