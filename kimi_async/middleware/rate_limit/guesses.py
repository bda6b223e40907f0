"""
Limits that no text has named: learnt where the evidence speaks for them, and given up where it speaks against them.
"""

from collections.abc import Iterable

from .evidence import Evidence
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
    """Refusals below a limit that was only guessed, after which the guess is given up."""

    __slots__ = (
        "blamed",
        "doubted",
        "doubts",
        "evidence",
        "got_through",
        "guessed",
        "requests",
        "slots",
        "wrong",
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
        self.doubts: int = 0
        """Refusals below it, which it does not explain, since somebody got through, …"""
        self.doubted: Ticket = Ticket(0, -INF, 0)
        """… the first of them, …"""
        self.wrong: int = 0
        """… and all of them."""
        self.got_through: float = -INF
        """When the latest was sent that got a good status."""

    def passed(self, ticket: Ticket) -> None:
        """A good status has come."""
        if ticket.sent > self.got_through:
            self.got_through = ticket.sent

    def admitted(self, ticket: Ticket, now: float) -> None:
        """A request was let in, by its status or by silence."""
        self.evidence.saw(ticket, True, now)
        guessed = self.requests.guessed
        self.requests.admitted(ticket, now)
        if guessed and not self.requests.guessed:
            self.evidence.mistaken()

    def explain(self, ticket: Ticket, now: float, pending: Iterable[tuple[int, int, bool]]) -> str | None:
        """
        Which limit a refusal is for whose text names none, or None while that is not known, or if it is for none.

        Where a rate is known and used up, or being tested, it was that. Else the evidence decides. What it says of the slots is
        taken back if it turns out to be the minute: the first seconds know no difference between the two. `pending` as for `Evidence.weigh`.
        """
        self.evidence.saw(ticket, False, now)
        requests, slots = self.requests, self.slots
        if self._doubt(ticket):
            return "rpm"
        if requests.opening or requests.passed or requests.canary is ticket:
            if requests.guessed:
                self.evidence.confirmed()
            return "rpm"
        if requests.known and ticket.before >= self.NEAR * requests.cap:
            return "rpm"
        if ticket.canary is slots:
            return "concurrency"
        found, begins = self.evidence.weigh(
            ticket,
            now,
            pending,
            within_slots=ticket.inflight < slots.cap < INF,
        )
        if found in ("stray", "open"):
            return None
        self.evidence.forget()
        self.guessed = True
        self.doubts = self.wrong = 0
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

    def _doubt(self, ticket: Ticket) -> bool:
        """
        A limit that was only guessed, and a refusal below it. Where that comes again, the guess was wrong: if nobody who was sent
        since got through, the minute is used up; otherwise what it was made of were accidents. Whether it is the minute.
        """
        slots, requests = self.slots, self.requests
        below_slots = ticket.inflight < self.NEAR * slots.cap - 1
        below_minute = ticket.before < self.NEAR * requests.cap - 1
        if not (self.guessed and below_slots and below_minute):
            return False
        if not self.doubts or self.got_through > self.doubted.sent:
            self.doubts, self.doubted = 0, ticket
        self.doubts += 1
        self.doubted.before = min(self.doubted.before, ticket.before)
        if self.doubts < self.DOUBTS:
            self.wrong += 1
            if self.wrong < self.DOUBTS:
                return False
        guessed, self.guessed = slots.source == "seen", False
        minute = self.doubts >= self.DOUBTS and guessed and requests.source == "none"
        self.doubts = self.wrong = 0
        if guessed:
            slots.resume()
        if minute:
            ticket.before = self.doubted.before
            self.guessed = True
            requests.guess()
            return True
        if requests.source == "seen":
            requests.give_up()
        self.evidence.mistaken()
        return False
