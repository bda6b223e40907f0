"""What a member has to tell the ledger once, and has not been heard to have told."""

from collections.abc import Iterable
from dataclasses import dataclass

from .message import Item

__all__ = ["Notes"]

# A minute and a second: what was sent before that is in nobody's window.
OLD = 61.0


@dataclass(slots=True)
class _Note:
    kind: str
    at: float
    first: int = 0
    second: int = 0
    hint: int = 0
    tag: int = 0


class Notes:
    """
    Each goes with every message until one is answered, under the number of the first that carried it, so that it counts once.
    """

    __slots__ = ("_good", "_notes")

    def __init__(self) -> None:
        self._notes: list[_Note] = []
        self._good = 0

    def __bool__(self) -> bool:
        return bool(self._notes)

    def sent(self, at: float, count: int, tokens: int) -> None:
        """Sent without a grant; or, negative, granted and not sent."""
        if count or tokens:
            self._notes.append(_Note("sent", at, count, tokens))

    def good(self) -> None:
        """One was admitted."""
        self._good += 1

    def refused(self, kind: str, at: float, limit: int, current: int, hint: int) -> None:
        """One was refused; `hint` is in ms."""
        self._notes.append(_Note(kind, at, limit, current, hint))

    def items(self, seq: int, now: float) -> list[Item]:
        """All of them, for the message of this number."""
        if self._good:
            self._notes.append(_Note("good", now, self._good))
            self._good = 0
        self._notes = [note for note in self._notes if now - note.at < OLD or note.kind != "sent"]
        items: list[Item] = []
        for note in self._notes:
            note.tag = note.tag or seq
            age = max(0, int((now - note.at) * 1000))
            items.append((note.tag, note.kind, age, note.first, note.second, note.hint))
        return items

    def heard(self, seq: int) -> None:
        """The message of this number was answered."""
        self._notes = [note for note in self._notes if not 0 < note.tag <= seq]

    def begin_anew(self, history: Iterable[list[float]]) -> None:
        """For a ledger that knows nothing: all that was sent in the last minute, and what is still to be told besides."""
        self._notes = [note for note in self._notes if note.kind != "sent"]
        for note in self._notes:
            note.tag = 0
        for at, count, tokens in history:
            self.sent(at, int(count), int(tokens))
