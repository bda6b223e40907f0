"""
One request on its way, as the laws know it.
"""

import asyncio
import weakref
from typing import Protocol

__all__ = ["Tested", "Ticket"]


class Tested(Protocol):
    """A limit that a request may test, being one more than is believed possible."""

    def over(self, ticket: "Ticket") -> None:
        """The reply to this request has ended; if it was the test, so has the test."""
        ...


class Ticket:
    """One request on its way, from its sending to the end of its reply."""

    __slots__ = (
        "before",
        "canary",
        "counted",
        "done",
        "entry",
        "held",
        "inflight",
        "loop",
        "sent",
        "seq",
        "settled",
        "tokens",
        "tokens_before",
        "wanted",
    )

    def __init__(self, seq: int, sent: float, tokens: int) -> None:
        self.seq: int = seq
        self.sent: float = sent
        self.tokens: int = tokens
        self.loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        """On which it is under way: what a loop held that was closed, or dropped, is free again."""
        self.inflight: int = 0
        """Others under way when it was sent."""
        self.before: int = 0
        """Requests in the minute before it."""
        self.tokens_before: int = 0
        """Tokens in the minute before it."""
        self.counted: list[float] | None = None
        """Where it is counted."""
        self.entry: list[float] | None = None
        """Where its tokens are written down."""
        self.canary: Tested | None = None
        """Which limit it tests, if any."""
        self.held: bool = True
        """Whether it has a slot."""
        self.settled: bool = False
        """Whether it is known to be admitted or refused."""
        self.wanted: bool = False
        """Whether more than it was waiting for a slot when it was sent."""
        self.done: bool = False
