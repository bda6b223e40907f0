"""
Which faults strike which request, and how they are put into a reply.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, cast

import msgspec

from ...sse import encode_event
from ..simulator.replies import Answer, End, Head, Pause, Send, Step, paced
from ..simulator.words import as_list, as_object
from .byte_faults import BadFraming, CloseIdle, Compress, Drop, LateTerminator, Stall, Trickle
from .chunk_faults import (
    DuplicateFinish,
    ErrorEvent,
    GiantEvent,
    InsertText,
    MissingDone,
    MissingFinish,
    MissingRole,
    NullFields,
    SurrogateHalves,
)
from .fault import Fault
from .line_faults import Comments, Garbage, InvalidUtf8, JoinedEvents, LineEndings, Pings
from .reply_faults import ContentType, EmptyBody, Error, HeaderFlood, Redirect, SlowHeaders

__all__ = ["FaultEntry", "FaultPlan", "apply_faults", "random_fault"]

FaultEntry = Fault | Sequence[Fault] | None
Key = Callable[[dict[str, object]], Hashable]


class FaultPlan:
    """
    Which faults strike which request.

    `entries`: one per matching request; None for a request that goes well, a sequence for several faults at once.
    `path` selects requests whose path ends with it (None: all of them). `drawn` counts matching requests.

    `per` gives each key a run of its own through the entries: "conversation" (the first user message, so that retries and
    resumptions of one call share a run), or a function of the parsed body. What strikes a call then does not depend
    on the order in which concurrent calls arrive.
    """

    def __init__(
        self,
        entries: Iterable[FaultEntry] = (),
        *,
        path: str | None = "/chat/completions",
        cycle: bool = False,
        per: Key | Literal["conversation"] | None = None,
    ) -> None:
        self.entries: list[tuple[Fault, ...]] = [_as_tuple(entry) for entry in entries]
        self.path = path
        self.cycle = cycle
        self.drawn: int = 0
        self._key = _conversation if per == "conversation" else per
        self._runs: Counter[Hashable] = Counter()
        self._seed = 0
        self._make: Callable[[random.Random], FaultEntry] | None = None

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        share: float = 0.5,
        make: Callable[[random.Random], FaultEntry] | None = None,
        path: str | None = "/chat/completions",
        per: Key | Literal["conversation"] | None = None,
    ) -> Self:
        """
        A plan without end: each request fails with probability `share`, in a way that `make` chooses.

        `make` gets a generator seeded by `seed`, the key (with `per`) and the request's number; by default it is
        `random_fault`.
        """
        plan = cls(path=path, per=per)
        plan._seed = seed

        def chance(dice: random.Random) -> FaultEntry:
            return (make or random_fault)(dice) if dice.random() < share else None

        plan._make = chance
        return plan

    def draw(self, method: str, path: str, body: bytes = b"") -> tuple[Fault, ...]:
        """The faults of the next request, if it matches; each call uses an entry up."""
        if self.path is not None and not path.partition("?")[0].endswith(self.path):
            return ()
        self.drawn += 1
        key = self._key(_parsed(body)) if self._key is not None else None
        ordinal = self._runs[key]
        self._runs[key] += 1
        if self._make is not None:
            return _as_tuple(self._make(random.Random(f"{self._seed}:{key!r}:{ordinal}")))
        if self.cycle and self.entries:
            return self.entries[ordinal % len(self.entries)]
        return self.entries[ordinal] if ordinal < len(self.entries) else ()

    def to_json(self) -> bytes:
        """The entries as a JSON array; each fault is an object whose `fault` is its name."""
        return msgspec.json.encode(self.entries)

    @classmethod
    def from_json(
        cls, data: bytes | str, *, path: str | None = "/chat/completions", cycle: bool = False
    ) -> Self:
        """A plan from a JSON array of faults, arrays of faults, and nulls; `msgspec.ValidationError` if it is not."""
        listed = msgspec.json.decode(data, type=list[object])
        entries: list[FaultEntry] = []
        for entry in listed:
            one = as_list(entry) if not isinstance(entry, dict) else [cast(object, entry)]
            entries.append([_fault_from(fields) for fields in one] if entry is not None else None)
        return cls(entries, path=path, cycle=cycle)


def _parsed(body: bytes) -> dict[str, object]:
    try:
        return as_object(msgspec.json.decode(body)) or {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _conversation(request: Mapping[str, object]) -> Hashable:
    """The first user message, as text."""
    messages = map(as_object, as_list(request.get("messages")))
    return next(
        (str(message.get("content")) for message in messages if message and message.get("role") == "user"), ""
    )


def _as_tuple(entry: FaultEntry) -> tuple[Fault, ...]:
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, Fault) else tuple(entry)


def _fault_from(fields: Any) -> Fault:
    known = {kind.__name__.lower(): kind for kind in Fault.__subclasses__()}
    name = (as_object(fields) or {}).get("fault")
    if name not in known:
        raise msgspec.ValidationError(f"no fault is called {name!r}; there are: {', '.join(sorted(known))}")
    return msgspec.convert(fields, known[name])


def apply_faults(answer: Answer, faults: Sequence[Fault]) -> Iterator[Step]:
    """The steps of `answer` with `faults` applied, first to last, layer by layer."""
    closing, delay = answer.closing, answer.delay
    for fault in faults:
        answer = fault.answer(answer)
    answer.closing = closing
    if answer.payloads is None:
        body = _pieces(answer.body)
        head = Head(answer.status, tuple(answer.headers), "length", len(answer.body))
    else:
        payloads = iter(answer.payloads)
        for fault in faults:
            payloads = fault.payloads(payloads)
        events: Iterator[bytes] = map(encode_event, payloads)
        for fault in faults:
            events = fault.events(events)
        body = paced(events, answer.pace)
        head = Head(answer.status, tuple(answer.headers))
    before: list[Step] = [Pause(answer.delay or delay)] if answer.delay or delay else []
    steps: Iterator[Step] = itertools.chain(before, (head,), body, (End(),))
    for fault in faults:
        steps = fault.steps(steps)
    return steps


def _pieces(body: bytes) -> Iterator[Step]:
    """A body that is not a stream, in two halves: a fault placed by events strikes between them."""
    half = (len(body) + 1) // 2
    if body:
        yield Send(body[:half], 1)
        if body[half:]:
            yield Send(body[half:])


def random_fault(dice: random.Random) -> Fault:
    """Any one fault that a client must survive or report within seconds, at a random place; nothing that floods memory."""
    at = dice.randrange(0, 60)
    makers: list[Callable[[], Fault]] = [
        lambda: Drop(after_events=at, how=dice.choice(("fin", "rst", "truncated", "clean"))),
        lambda: Drop(
            after_bytes=dice.randrange(0, 20_000), how=dice.choice(("fin", "rst", "truncated", "clean"))
        ),
        lambda: Drop(before_headers=True, how=dice.choice(("fin", "rst"))),
        lambda: Stall(after_events=at, seconds=dice.uniform(0.001, 0.05)),
        lambda: Trickle(size=dice.randrange(1, 64)),
        lambda: SlowHeaders(seconds=dice.uniform(0.001, 0.05)),
        lambda: Comments(after_events=at, count=dice.randrange(1, 200)),
        lambda: Pings(every=dice.randrange(1, 5)),
        lambda: Garbage(after_events=at),
        lambda: InvalidUtf8(after_events=at),
        lambda: GiantEvent(after_events=at, size=dice.randrange(1, 300_000)),
        lambda: ErrorEvent(kind=dice.choice(("overloaded", "server_error")), after_events=at),
        MissingDone,
        MissingFinish,
        MissingRole,
        DuplicateFinish,
        NullFields,
        JoinedEvents,
        lambda: SurrogateHalves(after_events=at),
        lambda: InsertText(after_events=at),
        lambda: ContentType(value=dice.choice(("text/html", "application/json", ""))),
        lambda: Compress(broken=dice.choice(("", "truncated", "corrupt"))),
        lambda: BadFraming(kind=dice.choice(("chunk_size", "status_line", "header"))),
        lambda: LateTerminator(seconds=dice.uniform(0.001, 0.02)),
        lambda: CloseIdle(after=dice.uniform(0.0, 0.01)),
        lambda: Redirect(),
        lambda: HeaderFlood(count=dice.randrange(1, 3_000)),
        EmptyBody,
        lambda: LineEndings(style=dice.choice(("crlf", "cr", "no_space", "bom"))),
        # A limit so high that a client which learns limits from refusals is not held back by it.
        lambda: Error(kind="rpm", limit=1_000_000),
        lambda: Error(kind=dice.choice(("overloaded", "server_error", "unavailable", "gateway_timeout"))),
    ]
    return dice.choice(makers)()
