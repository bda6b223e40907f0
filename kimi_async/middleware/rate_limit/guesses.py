"""
Limits that no text has named: learnt where the evidence speaks for them, and given up where it speaks against them.
"""

from collections.abc import Iterable

from .evidence import PRIOR_REFUSED, Evidence
from .rate import Rate
from .slots import Concurrency
from .ticket import Ticket
from .window import INF

__all__ = ["Guesses"]


class Guesses:
    """What refusals without a reason have taught about the slots and the minute, and what has happened since."""

    NEAR = 0.9
    """From this share of a limit on, a refusal may be put down to it: counting is not exact."""
    DOUBTS = 3
    """Refusals below a limit that was only guessed, after which it was the minute, if nobody has got through since the first."""
    DOUBTFUL = 0.25
    """The share of those sent below a guess that may be refused while others get through there: with more accidents than that, five
    refusals in a row, which make a guess, come once in a thousand."""

    __slots__ = (
        "below",
        "blamed",
        "doubted",
        "doubts",
        "evidence",
        "got_through",
        "guessed",
        "requests",
        "slots",
        "strays",
    )

    def __init__(self, slots: Concurrency, requests: Rate) -> None:
        self.slots: Concurrency = slots
        self.requests: Rate = requests
        self.evidence: Evidence = Evidence()
        """What became of the latest requests, and under which load."""
        self.blamed: tuple[float, float, bool] | None = None
        """What was believed of the slots before refusals without a reason were put down to them."""
        self.guessed: bool = False
        """Whether a limit is believed that no text has named."""
        self.below: int = 0
        """Outcomes of those sent below it, …"""
        self.strays: int = 0
        """… and the refusals among them, which it does not explain."""
        self.doubts: int = 0
        """Those of them since the last that got through, …"""
        self.doubted: Ticket = Ticket(0, -INF, 0)
        """… and the first of these."""
        self.got_through: float = -INF
        """When the latest was sent that got a good status."""

    def passed(self, ticket: Ticket) -> None:
        """A good status has come."""
        if ticket.sent > self.got_through:
            self.got_through = ticket.sent

    def admitted(self, ticket: Ticket, now: float) -> None:
        """A request was let in, by its status or by silence."""
        self.evidence.saw(ticket, True, now)
        requests = self.requests
        guessed = requests.guessed
        if requests.passed or requests.opening or requests.canary is ticket:
            requests.admitted(ticket, now)
        if guessed and not requests.guessed:
            self._mistaken()
        elif self.guessed and ticket.inflight < self.slots.cap:
            self.below += 1

    def explain(self, ticket: Ticket, now: float, pending: Iterable[tuple[int, int, bool]]) -> str | None:
        """
        Which limit a refusal is for whose text names none, or None while that is not known, or if it is for none.

        Where a rate is known and used up, or being tested, it was that. Else the evidence decides. What it says of the slots is
        taken back if it turns out to be the minute: the first seconds know no difference between the two. `pending` as for `Evidence.weigh`.
        """
        self.evidence.saw(ticket, False, now)
        requests, slots = self.requests, self.slots
        if self._used_up(ticket):
            return "rpm"
        if requests.opening or requests.passed or requests.canary is ticket:
            return "rpm"
        if requests.known and ticket.before >= self.NEAR * requests.cap:
            return "rpm"
        if ticket.canary is slots:
            return "concurrency"
        if self.guessed and ticket.inflight >= slots.cap:
            return None  # sent before it was known
        found, begins = self.evidence.weigh(
            ticket,
            now,
            pending,
            # A guess may be one too high: the evidence is asked again.
            within_slots=slots.source != "seen" and ticket.inflight < slots.cap < INF,
        )
        if found in ("stray", "late", "open"):
            if self.guessed and (found != "open" or self._far_below(ticket)):
                self.below += 1
                self.strays += 1
                self._give_up()
            return None
        self.evidence.forget()
        self.guessed = True
        self.below = self.strays = self.doubts = 0
        if found == "slots":
            if slots.source == "config":
                return None  # who was told a number knows better than a guess
            self.blamed = (slots.cap, slots.limit, slots.slow)
            ticket.inflight = begins
            return "concurrency"
        if requests.source == "config":
            return None
        if self.blamed is not None:
            slots.cap, slots.limit, slots.slow = self.blamed
            self.blamed = None
            if slots.cap == INF:
                slots.source = "none"
        ticket.before = begins
        requests.guess()
        return "rpm"

    def _far_below(self, ticket: Ticket) -> bool:
        """Whether no error of counting puts this request above a limit."""
        slots, requests = self.slots, self.requests
        return (
            ticket.inflight == 0 or ticket.inflight < self.NEAR * slots.cap - 1
        ) and ticket.before < self.NEAR * requests.cap - 1

    def _used_up(self, ticket: Ticket) -> bool:
        """
        A limit that was only guessed, and a refusal below it. Where that comes again, and nobody who was sent since got through,
        it is the minute that is used up. Whether it is.
        """
        slots, requests = self.slots, self.requests
        if not (self.guessed and self._far_below(ticket)):
            return False
        if not self.doubts or self.got_through > self.doubted.sent:
            self.doubts, self.doubted = 0, ticket
        self.doubts += 1
        self.doubted.before = min(self.doubted.before, ticket.before)
        if self.doubts < self.DOUBTS or slots.source != "seen" or requests.source != "none":
            return False
        self.below = self.strays = self.doubts = 0
        slots.resume()
        ticket.before = self.doubted.before
        requests.guess()
        return True

    def _give_up(self) -> None:
        """Gives the guess up where too many of those sent below it are refused; where all are, it is the minute."""
        share = (self.strays + PRIOR_REFUSED) / (self.below + 1.0)
        if share < self.DOUBTFUL or self.strays == self.below:
            return
        if self.slots.source == "seen":
            self.slots.resume()
        if self.requests.source == "seen":
            self.requests.give_up()
        self._mistaken()

    def _mistaken(self) -> None:
        self.guessed = False
        self.evidence.mistaken()
