"""
What a fault is: a change to one or more layers of a reply.
"""

from collections.abc import Iterator

import msgspec

from ..simulator.replies import Answer, Step

__all__ = ["DONE", "Fault"]

DONE = b"[DONE]"


class Fault(msgspec.Struct, frozen=True, kw_only=False, tag_field="fault", tag=str.lower):
    """One trouble. A subclass overrides the layers it troubles; each takes what is there and gives what shall be."""

    @property
    def name(self) -> str:
        """The class name in lower case, as in JSON and in `stats.faults`."""
        return type(self).__name__.lower()

    def answer(self, answer: Answer) -> Answer:
        """Change status, headers or body."""
        return answer

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        """Change what stands after `data:`; the last one is `[DONE]`."""
        return payloads

    def events(self, events: Iterator[bytes]) -> Iterator[bytes]:
        """Change whole events, their blank line included."""
        return events

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Change what happens on the connection."""
        return steps
