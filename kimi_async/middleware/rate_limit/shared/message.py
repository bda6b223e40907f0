"""
What a member of a shared quota and its ledger say to each other: one message, one answer.

No clock crosses the wire. A member says how long ago it did something, the ledger says in how many milliseconds something may be
done. What is under way is told as an absolute number, so that a lost answer, a repeated message and a late one heal with the
next; what cannot be absolute carries a tag, and is counted once.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct, field

from ....errors import SharedLimitsError
from ..limits import RateLimits

__all__ = ["Answer", "Item", "Ledger", "LedgerUnavailable", "Peer", "SharedView", "Sync"]


class LedgerUnavailable(SharedLimitsError):
    """The ledger did not answer: not there, too slow, or cut off. Any other exception of a ledger is taken for a fault in it."""


SOURCES = ("none", "config", "told", "seen")

Item = tuple[int, str, int, int, int, int]
"""(tag, kind, age in ms, and three numbers whose meaning depends on the kind).

The tag is the number of the first message that carried it.

    "sent"      n, tokens                       sent without having been granted; negative: granted and not sent, or cost less
    "good"      n                               admitted by the server
    "slots" "rpm" "tpm" "tpd" "some"            refused by the server: limit, current (0: not told), hint in ms
    "over"      0, 0, hint in ms                the server has no capacity
"""


class Sync(Struct, kw_only=True, omit_defaults=True):
    """What a member says."""

    member: str
    name: str = ""
    """For people: host and process."""
    seq: int = 0
    """Its number, rising."""
    seen: int = 0
    """The number of the last message whose answer arrived."""
    epoch: int = 0
    """Of the ledger as the member knew it; 0 if it never saw one."""
    seed: int = 0
    """What the epoch is to be, if the ledger is empty. Below 2**40."""
    mono: int = 0
    """Milliseconds on a clock of the member's that nobody sets."""
    held: int = 0
    """Requests it has under way, those included that were granted and are to go in a moment."""
    want: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """(tokens, priority) of those who wait, first of the line first."""
    waiting: int = 0
    """How many wait, those included that are not listed."""
    items: list[Item] = field(default_factory=list[Item])
    conf: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Concurrency, RPM, TPM and TPD as the member was told them by its user; 0 where unknown."""
    leave: int = 0
    """1: it goes, and holds nothing any more. 2: it only looks, and is no member."""
    now: int = 0
    """Only for tests: the time that the ledger is to believe."""


class Peer(Struct, array_like=True):
    """One member as the others see it."""

    member: str
    name: str
    held: int
    waiting: int
    silent: int
    """Milliseconds since it was heard."""


class Answer(Struct, kw_only=True):
    """What the ledger says."""

    state: Literal["ok", "register", "late", "bye"]
    """`register`: another ledger than the one you knew; say again what you sent in the last minute. `late`: a newer message of yours
    was here before."""
    epoch: int
    grants: list[int]
    """For the first of those who wait, in how many milliseconds each may go."""
    again: int
    """Milliseconds until the member is to be heard again, at the latest."""
    reason: str
    """What the next one waits for: `learning`, `gate`, `overloaded`, `concurrency`, `rpm`, `tpm`, `tpd`, `turn`; empty if none waits."""
    wait: int
    """Milliseconds for which it waits at least, as far as the ledger can tell."""
    limits: list[int]
    """Concurrency, RPM, TPM, TPD as they are believed; 0 where unknown."""
    sources: list[int]
    """Of each: 0 nobody, 1 the user, 2 told by the server, 3 counted."""
    allowed: list[int]
    """Slots and RPM of which use is made now: less than the limit after a refusal."""
    used: list[int]
    """Slots, requests and tokens of the minute, tokens of the day."""
    waiting: int
    members: int
    rank: int
    """The member's place among all, from 0."""
    lining: int
    """How many members wait."""
    gate: int
    """Milliseconds for which nobody sends."""
    overloaded: int
    peers: list[Peer] = field(default_factory=list[Peer])
    """Only for who looks."""


class Ledger(Protocol):
    """Where a quota is kept. It passes messages on and changes nothing about them."""

    async def sync(self, message: Sync) -> Answer:
        """
        One round trip, within a second or so.

        :raises LedgerUnavailable: it did not answer, whatever the reason.
        """
        ...

    async def aclose(self) -> None:
        """Closes what was opened for it."""
        ...


class SharedView(Struct, kw_only=True, frozen=True):
    """A shared quota as one member knows it."""

    limits: Sequence[int] = (0, 0, 0, 0)
    """Concurrency, RPM, TPM, TPD; 0 where unknown."""
    sources: Sequence[str] = ("none", "none", "none", "none")
    allowed: Sequence[int] = (0, 0)
    used: Sequence[int] = (0, 0, 0, 0)
    waiting: int = 0
    """Of all members."""
    members: int = 0
    rank: int = 0
    gate: float = 0.0
    overloaded: bool = False
    mode: Literal["shared", "alone", "learning", "blocked", "idle"] = "idle"
    """`alone`: the ledger does not answer, and what goes is bounded by what this member had."""
    reason: str = ""
    wait: float = 0.0
    since: float = 0.0
    """When it came to be in this mode, on the loop's clock."""

    def after(self, answer: Answer, now: float) -> "SharedView":
        """What is known once this was heard."""
        mode: Literal["shared", "learning"] = "learning" if answer.reason == "learning" else "shared"
        return SharedView(
            limits=answer.limits,
            sources=tuple(SOURCES[source] for source in answer.sources),
            allowed=answer.allowed,
            used=answer.used,
            waiting=answer.waiting,
            members=answer.members,
            rank=answer.rank,
            gate=answer.gate / 1000,
            overloaded=answer.overloaded > 0,
            mode=mode,
            reason=answer.reason,
            wait=answer.wait / 1000,
            since=self.since if self.mode == mode else now,
        )

    @classmethod
    def of(cls, limits: RateLimits) -> "SharedView":
        """What is known before the ledger was asked."""
        known = conf_of(limits)
        return cls(
            limits=known, sources=tuple("config" if limit else "none" for limit in known), allowed=known[:2]
        )


def conf_of(limits: RateLimits) -> tuple[int, int, int, int]:
    """Limits as they are told: 0 where unknown. Who does not want slots to be found by slow start has more than can be used."""
    slots = limits.concurrency or (0 if limits.hold else 1_000_000)
    return (slots, limits.rpm or 0, limits.tpm or 0, limits.tpd or 0)
