"""
Faults of a reply as a whole: its status, its headers, its body.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..simulator.replies import Answer, Head, Pause, Send, Step, error_reply
from .fault import Fault

__all__ = [
    "ContentType",
    "EmptyBody",
    "Error",
    "HeaderFlood",
    "Redirect",
    "SlowHeaders",
]


class Error(Fault, frozen=True):
    """
    An error reply instead of the answer, with its true body and headers: any `kind` of `replies.ERRORS`.

    `delay` seconds pass before it. `retry_after` puts another value into the headers that hint at a wait
    (text as it shall stand there, "" to leave them out); `limit` and `current` fill the message in.
    """

    kind: str = "rpm"
    delay: float = 0.0
    retry_after: str | None = None
    limit: int = 3
    current: int = 0

    def answer(self, answer: Answer) -> Answer:
        refusal = error_reply(self.kind, limit=self.limit, current=self.current)
        hints = list(refusal.headers)
        if self.retry_after is not None:
            names = [name for name, _ in hints] or ["Retry-After"]
            hints = [(name, self.retry_after) for name in names] if self.retry_after else []
        headers = [*_with_type(answer.headers, refusal.content_type), *hints]
        return Answer(refusal.status, headers, refusal.payload(), delay=self.delay, refused=self.kind)


class Redirect(Fault, frozen=True):
    """A redirect, by default to another origin, where neither key nor prompt may go."""

    location: str = "http://elsewhere.invalid/v1/chat/completions"
    status: int = 307

    def answer(self, answer: Answer) -> Answer:
        headers = [*_with_type(answer.headers, "text/html"), ("Location", self.location)]
        return Answer(self.status, headers, b"<html><body>Moved</body></html>")


class ContentType(Fault, frozen=True):
    """Another `Content-Type`; "" leaves the header out."""

    value: str = "text/html"

    def answer(self, answer: Answer) -> Answer:
        return replace(answer, headers=_with_type(answer.headers, self.value))


class HeaderFlood(Fault, frozen=True):
    """`count` more headers of `size` bytes each."""

    count: int = 10_000
    size: int = 100

    def answer(self, answer: Answer) -> Answer:
        flood = [(f"X-Flood-{number}", "f" * self.size) for number in range(self.count)]
        return replace(answer, headers=[*answer.headers, *flood])


class SlowHeaders(Fault, frozen=True):
    """The headers come after `seconds`, or, with `trickle`, byte by byte over that time."""

    seconds: float = 1.0
    trickle: bool = False

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            if isinstance(step, Head):
                if self.trickle:
                    step = replace(step, trickle=self.seconds)
                else:
                    yield Pause(self.seconds)
            yield step


class EmptyBody(Fault, frozen=True):
    """The headers of the answer, and an end, properly made, where the body should be."""

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            if isinstance(step, Head):
                yield replace(step, length=0)
            elif not isinstance(step, Send):
                yield step


def _with_type(headers: Iterable[tuple[str, str]], value: str) -> list[tuple[str, str]]:
    kept = [(name, old) for name, old in headers if name.lower() != "content-type"]
    return [("Content-Type", value), *kept] if value else kept
