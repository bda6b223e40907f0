"""
Chaos to order: what goes wrong with which request, as data.

    plan = FaultPlan([
        Drop(after_events=3, how="rst"),          # the first chat request
        None,                                     # the second goes well
        [Trickle(size=1), ErrorEvent(after_events=5)],   # the third has two troubles
    ])
    async with KimiSimulator(faults=plan) as sim: ...

A plan hands one entry to each request that matches its `path`, in order of arrival; when the entries are used up
requests go well again (or, with `cycle=True`, the plan starts over). `FaultPlan.random(seed)` never ends, and the same
seed gives the same troubles; with `per="conversation"` whatever the order of arrival. Faults are msgspec structs:
`plan.to_json()` and `FaultPlan.from_json()` carry a plan through a file, and
`python -m kimi_async.testing.simulator --faults plan.json` plays it.

`Fault` classes in the order of the layers they trouble:

- the reply as a whole: `Error`, `Redirect`, `ContentType`, `HeaderFlood`, `SlowHeaders`, `EmptyBody`;
- chunks: `MissingRole`, `MissingFinish`, `DuplicateFinish`, `MissingDone`, `ToolDeltas`, `NullFields`, `InsertText`,
  `SurrogateHalves`, `GiantEvent`, `ErrorEvent`;
- lines: `Comments`, `Pings`, `LineEndings`, `JoinedEvents`, `Garbage`, `InvalidUtf8`;
- bytes and time: `Drop`, `Stall`, `Trickle`, `Compress`, `Bomb`, `BadFraming`, `LateTerminator`, `CloseIdle`.

Positions: `after_events=n` means after n events have been sent (0: right after the headers); `after_bytes=n` counts
bytes of the body, before any compression. A reply that is not a stream has no events; faults placed by events
then strike in the middle of its body. Faults on chunks and lines leave such replies alone.
"""

import copy
import itertools
import math
import random
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, cast

import msgspec

from ...sse import encode_event
from ..simulator.chat_model import as_list, as_object
from ..simulator.replies import Answer, Cut, End, Head, Pause, Raw, Send, Step, error_reply, json_bytes, paced

__all__ = [
    "BadFraming",
    "Bomb",
    "CloseIdle",
    "Comments",
    "Compress",
    "ContentType",
    "Drop",
    "DuplicateFinish",
    "EmptyBody",
    "Error",
    "ErrorEvent",
    "Fault",
    "FaultEntry",
    "FaultPlan",
    "Garbage",
    "GiantEvent",
    "HeaderFlood",
    "InsertText",
    "InvalidUtf8",
    "JoinedEvents",
    "LateTerminator",
    "LineEndings",
    "MissingDone",
    "MissingFinish",
    "MissingRole",
    "NullFields",
    "Pings",
    "Redirect",
    "SlowHeaders",
    "Stall",
    "SurrogateHalves",
    "ToolDeltas",
    "Trickle",
    "apply_faults",
    "random_fault",
]

DONE = b"[DONE]"


class Fault(msgspec.Struct, frozen=True, kw_only=False, tag_field="fault", tag=str.lower):
    """
    One trouble. A subclass overrides the layers it troubles; each takes what is there and gives what shall be.
    """

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


FaultEntry = Fault | Sequence[Fault] | None
Key = Callable[[dict[str, Any]], Hashable]


# --- plans ----------------------------------------------------------------------------------------------


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
        listed = msgspec.json.decode(data, type=list[Any])
        entries: list[FaultEntry] = []
        for entry in listed:
            one = as_list(entry) if not isinstance(entry, dict) else [cast(Any, entry)]
            entries.append([_fault_from(fields) for fields in one] if entry is not None else None)
        return cls(entries, path=path, cycle=cycle)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        return as_object(msgspec.json.decode(body)) or {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _conversation(request: dict[str, Any]) -> Hashable:
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


# --- the reply as a whole -------------------------------------------------------------------------------


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


# --- chunks ---------------------------------------------------------------------------------------------


def _decoded(payload: bytes) -> dict[str, Any] | None:
    return None if payload == DONE else as_object(msgspec.json.decode(payload))


def _choice(chunk: dict[str, Any] | None) -> dict[str, Any]:
    choices = as_list((chunk or {}).get("choices"))
    return as_object(choices[0]) or {} if choices else {}


class MissingRole(Fault, frozen=True):
    """No chunk carries a role."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            chunk = _decoded(payload)
            delta = as_object(_choice(chunk).get("delta"))
            if delta is not None and "role" in delta:
                del delta["role"]
                yield json_bytes(chunk)
            else:
                yield payload


class MissingFinish(Fault, frozen=True):
    """No chunk says `finish_reason`; `[DONE]` comes unless `done` is False."""

    done: bool = True

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            if payload == DONE:
                if self.done:
                    yield payload
            elif not _choice(_decoded(payload)).get("finish_reason"):
                yield payload


class DuplicateFinish(Fault, frozen=True):
    """The finish chunk comes twice."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            yield payload
            if _choice(_decoded(payload)).get("finish_reason"):
                yield payload


class MissingDone(Fault, frozen=True):
    """The body ends properly, without `[DONE]`."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return (payload for payload in payloads if payload != DONE)


class ToolDeltas(Fault, frozen=True):
    """
    Tool calls as careless servers stream them.

    "no_index": no fragment says which call it belongs to. "no_id": no call has an id. "interleaved": the fragments of
    parallel calls alternate. "name_repeated": every fragment repeats id, type and name. "arguments_first": each
    call's first fragment of arguments comes before its name. "whole": each call in one delta. "null_function":
    a delta with `function: null` before each call. Streams without tool calls are left alone.
    """

    style: Literal[
        "no_index", "no_id", "interleaved", "name_repeated", "arguments_first", "whole", "null_function"
    ] = "no_index"

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        held: list[dict[str, Any]] = []  # chunks with tool deltas, until the first chunk that has none
        for payload in payloads:
            chunk = _decoded(payload)
            delta = as_object(_choice(chunk).get("delta")) or {}
            if chunk is not None and delta.get("tool_calls"):
                held.append(chunk)
                continue
            yield from map(json_bytes, self._restyled(held))
            held = []
            yield payload

    def _restyled(self, chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        deltas = [as_object(_choice(chunk)["delta"]["tool_calls"][0]) or {} for chunk in chunks]
        calls: dict[int, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        for chunk, delta in zip(chunks, deltas, strict=True):
            calls.setdefault(delta["index"], []).append((chunk, delta))
        if self.style == "interleaved":
            rows = itertools.zip_longest(*calls.values())
            return [pair[0] for row in rows for pair in row if pair is not None]
        found: list[dict[str, Any]] = []
        for pairs in calls.values():
            first = dict(pairs[0][1])
            function = dict(first["function"])
            if self.style == "arguments_first" and len(pairs) > 1:
                pairs[0], pairs[1] = pairs[1], pairs[0]
            if self.style == "whole":
                text = "".join(delta["function"]["arguments"] for _, delta in pairs)
                pairs[0][1]["function"]["arguments"] = text
                pairs = pairs[:1]
            if self.style == "null_function":
                empty = copy.deepcopy(pairs[0][0])
                _choice(empty)["delta"]["tool_calls"][0] = {"index": first["index"], "function": None}
                found.append(empty)
            for chunk, delta in pairs:
                if self.style == "no_index":
                    delta.pop("index", None)
                elif self.style == "no_id":
                    delta.pop("id", None)
                elif self.style == "name_repeated":
                    delta.update(id=first["id"], type=first["type"])
                    delta["function"]["name"] = function["name"]
                found.append(chunk)
        return found


class NullFields(Fault, frozen=True):
    """Every optional field is present and null, as vLLM sends them."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            chunk = _decoded(payload)
            if chunk is None:
                yield payload
                continue
            for raw in as_list(chunk.get("choices")):
                choice = as_object(raw) or {}
                delta: dict[str, Any] = choice.setdefault("delta", {})
                for key in (
                    "role",
                    "content",
                    "reasoning_content",
                    "reasoning",
                    "refusal",
                    "tool_calls",
                    "function_call",
                ):
                    delta.setdefault(key, None)
                for key in ("logprobs", "stop_reason", "token_ids", "usage"):
                    choice.setdefault(key, None)
            for key in ("usage", "service_tier", "system_fingerprint", "prompt_token_ids", "error"):
                chunk.setdefault(key, None)
            yield json_bytes(chunk)


def _inserted(
    payloads: Iterator[bytes], after: int, make: Callable[[bytes], Iterable[bytes]]
) -> Iterator[bytes]:
    """
    Put what `make` gives after `after` payloads, at the latest before the finish chunk. It is shown a chunk to imitate.
    """
    model = b""
    done = False
    for position, payload in enumerate(payloads):
        model = model or payload
        ending = payload == DONE or bool(_choice(_decoded(payload)).get("finish_reason"))
        if not done and (position >= after or ending):
            done = True
            yield from make(model)
        yield payload
    if not done:
        yield from make(model)


def _text_chunk(model: bytes, text: str) -> bytes:
    chunk = _decoded(model) or {}
    _choice(chunk)["delta"] = {"content": text}
    return json_bytes(chunk)


class InsertText(Fault, frozen=True):
    """One more content chunk; by default the three characters that `str.splitlines` takes for line ends."""

    text: str = "a\u2028b\u2029c\u0085d"
    after_events: int = 3

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return _inserted(payloads, self.after_events, lambda model: [_text_chunk(model, self.text)])


class SurrogateHalves(Fault, frozen=True):
    """
    One more character, sent as its two UTF-16 halves in two chunks: servers that cut text by UTF-16 units do that.

    `lone` sends only the first half.
    """

    character: str = "🎵"
    after_events: int = 3
    lone: bool = False

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return _inserted(payloads, self.after_events, self._halves)

    def _halves(self, model: bytes) -> Iterator[bytes]:
        units = self.character.encode("utf-16-be").hex()
        for half in (units[:4], units[4:8]):
            yield _text_chunk(model, "@half@").replace(b"@half@", b"\\u" + half.encode())
            if self.lone:
                return


class GiantEvent(Fault, frozen=True):
    """One more content chunk, of `size` letters."""

    size: int = 8 * 1024 * 1024
    after_events: int = 3

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return _inserted(payloads, self.after_events, lambda model: [_text_chunk(model, "x" * self.size)])


class ErrorEvent(Fault, frozen=True):
    """
    An error inside a 200.

    `shape`: "kimi" `{"error":{message,type}}`; "chunk" the same beside the fields of a chunk, with
    finish_reason "error" (OpenRouter); "vllm" `{"object":"error",…,"code":400}`; "string" `{"error":"…"}`.
    `then`: "end" (the body ends, without `[DONE]`), "done" (`[DONE]`), "rst", or "continue" as if nothing had been.
    """

    kind: str = "overloaded"
    after_events: int = 0
    shape: Literal["kimi", "chunk", "vllm", "string"] = "kimi"
    then: Literal["end", "done", "rst", "continue"] = "end"

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for position, payload in enumerate(payloads):
            if position == self.after_events or (payload == DONE and position < self.after_events):
                yield self._error(payload)
                if self.then == "done":
                    yield DONE
                if self.then != "continue":
                    return
            yield payload

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            yield Cut("rst") if self.then == "rst" and isinstance(step, End) else step

    def _error(self, model: bytes) -> bytes:
        refusal = error_reply(self.kind)
        error: dict[str, Any] = {"message": refusal.message, "type": refusal.type}
        if self.shape == "vllm":
            return json_bytes({"object": "error", **error, "param": None, "code": 400})
        if self.shape == "string":
            return json_bytes({"error": refusal.message})
        if self.shape == "chunk":
            chunk = _decoded(model) or {}
            chunk["error"] = {"code": 502, "message": refusal.message}
            chunk["choices"] = [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]
            return json_bytes(chunk)
        return json_bytes({"error": error})


# --- lines ----------------------------------------------------------------------------------------------


class Comments(Fault, frozen=True):
    """
    `count` comment lines after `after_events` events, `interval` seconds apart; -1 never stops.

    With `after_events` -1 they come after every event.
    """

    count: int = 1
    after_events: int = 0
    interval: float = 0.0
    text: str = "KIMI PROCESSING"

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        if self.after_events < 0:
            for step in steps:
                yield step
                if isinstance(step, Send):
                    yield from self._flood()
            return
        yield from _at(steps, self.after_events, None, lambda rest: itertools.chain(self._flood(), rest))

    def _flood(self) -> Iterator[Step]:
        line = f": {self.text}\n\n".encode()
        for _ in itertools.count() if self.count < 0 else range(self.count):
            yield Send(line)
            if self.interval > 0:
                yield Pause(self.interval)


class Pings(Fault, frozen=True):
    """
    Blocks that say nothing after every `every` events: "event" (`event: ping`, empty data), "empty" (`data:`),
    "null" (`data: null`), "blank" (empty lines), "retry" (`retry: 1000`), "id" (`id: 7`).
    """

    style: Literal["event", "empty", "null", "blank", "retry", "id"] = "event"
    every: int = 1

    def events(self, events: Iterator[bytes]) -> Iterator[bytes]:
        block = {
            "event": b"event: ping\ndata: \n\n",
            "empty": b"data:\n\n",
            "null": b"data: null\n\n",
            "blank": b"\n\n\n",
            "retry": b"retry: 1000\n\n",
            "id": b"id: 7\n\n",
        }[self.style]
        for number, event in enumerate(events, 1):
            # Before the event, so that nothing follows [DONE].
            if number % max(1, self.every) == 0:
                yield block
            yield event


class LineEndings(Fault, frozen=True):
    """Lines as the standard allows them: "crlf", "cr", "no_space" (`data:{…}`), "bom" (a byte-order mark first), or "unterminated" (no last blank line)."""

    style: Literal["crlf", "cr", "no_space", "bom", "unterminated"] = "crlf"

    def events(self, events: Iterator[bytes]) -> Iterator[bytes]:
        first = True
        for event in events:
            if self.style in ("crlf", "cr"):
                event = event.replace(b"\n", b"\r\n" if self.style == "crlf" else b"\r")
            elif self.style == "no_space":
                event = event.replace(b"data: ", b"data:", 1)
            elif self.style == "bom" and first:
                event = b"\xef\xbb\xbf" + event
            elif self.style == "unterminated" and event.startswith(b"data: [DONE]"):
                event = b"data: [DONE]"
            first = False
            yield event


class JoinedEvents(Fault, frozen=True):
    """
    Two chunks in one event: "one_line" (`data: {…}{…}`) or "two_lines" (two `data:` lines, one blank line). `[DONE]` stays
    alone.
    """

    style: Literal["one_line", "two_lines"] = "one_line"

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        between = b"" if self.style == "one_line" else b"\n"
        held: bytes | None = None
        for payload in payloads:
            if payload == DONE:
                if held is not None:
                    yield held
                held = None
                yield payload
            elif held is None:
                held = payload
            else:
                yield held + between + payload
                held = None
        if held is not None:
            yield held


class Garbage(Fault, frozen=True):
    """An event whose data is not JSON; `raw` writes the bytes without `data:` around them."""

    data: bytes = b'{"choices": [{"delta": \x00\x01 no json'
    after_events: int = 3
    raw: bool = False

    def events(self, events: Iterator[bytes]) -> Iterator[bytes]:
        for position, event in enumerate(events):
            if position == self.after_events:
                yield self.data if self.raw else b"data: " + self.data + b"\n\n"
            yield event


class InvalidUtf8(Fault, frozen=True):
    """One more content chunk whose text is not UTF-8."""

    after_events: int = 3

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        def broken(model: bytes) -> Iterator[bytes]:
            yield _text_chunk(model, "@bytes@").replace(b"@bytes@", b"\xff\xfe\xc3(")

        return _inserted(payloads, self.after_events, broken)


# --- bytes and time -------------------------------------------------------------------------------------


def _at(
    steps: Iterator[Step],
    after_events: int | None,
    after_bytes: int | None,
    then: Callable[[Iterator[Step]], Iterator[Step]],
) -> Iterator[Step]:
    """Let steps pass until so many events or bytes have been sent after the head; `then` gives what follows."""
    events, sent = after_events, after_bytes
    begun = False
    for step in steps:
        if isinstance(step, Head):
            begun = True
            yield step
            if events == 0 or sent == 0:
                yield from then(steps)
                return
            continue
        if not begun or not isinstance(step, Send):
            if isinstance(step, (End, Cut)) and begun:
                # The body was shorter than the place that was named.
                yield step
                return
            yield step
            continue
        if sent is not None and len(step.data) >= sent:
            if step.data[:sent]:
                yield Send(step.data[:sent])
            rest = Send(step.data[sent:], step.events)
            yield from then(itertools.chain((rest,) if rest.data else (), steps))
            return
        if events is not None and step.events >= events:
            cut = len(step.data) if step.events == events else _end_of_event(step.data, events)
            yield Send(step.data[:cut], events)
            rest = Send(step.data[cut:], step.events - events)
            yield from then(itertools.chain((rest,) if rest.data else (), steps))
            return
        if sent is not None:
            sent -= len(step.data)
        if events is not None:
            events -= step.events
        yield step


def _end_of_event(data: bytes, count: int) -> int:
    at = 0
    for _ in range(count):
        at = data.find(b"\n\n", at) + 2
    return at


class Drop(Fault, frozen=True):
    """
    The connection is lost: after so many events, or bytes of the body, or before the headers.

    `how`: "fin" (closed; the body's end never comes), "rst" (reset), "truncated" (closed inside a chunk that
    promised more), "clean" (the body ends properly, as if that were all).
    """

    after_events: int | None = None
    after_bytes: int | None = None
    before_headers: bool = False
    how: Literal["fin", "rst", "truncated", "clean"] = "rst"

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        if self.before_headers:
            return iter((Cut("rst" if self.how == "rst" else "fin"),))
        events = 0 if self.after_events is None and self.after_bytes is None else self.after_events
        return _at(steps, events, self.after_bytes, self._end)

    def _end(self, rest: Iterator[Step]) -> Iterator[Step]:
        if self.how == "clean":
            yield End()
            return
        if self.how == "truncated":
            part = next((step.data for step in rest if isinstance(step, Send)), b"data: {}")
            yield Raw(b"%x\r\n%b" % (len(part) + 1024, part[: len(part) // 2]))
        yield Cut("rst" if self.how == "rst" else "fin")


class Stall(Fault, frozen=True):
    """Silence for `seconds` (None: until the client goes away), then on as if nothing had been."""

    after_events: int | None = None
    after_bytes: int | None = None
    before_headers: bool = False
    seconds: float | None = None

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        pause: Iterator[Step] = iter((Pause(math.inf if self.seconds is None else self.seconds),))
        if self.before_headers:
            return itertools.chain(pause, steps)
        events = 0 if self.after_events is None and self.after_bytes is None else self.after_events
        return _at(steps, events, self.after_bytes, lambda rest: itertools.chain(pause, rest))


class Trickle(Fault, frozen=True):
    """The body in pieces of `size` bytes, each a chunk of its own, `delay` seconds apart."""

    size: int = 1
    delay: float = 0.0

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        size = max(1, self.size)
        for step in steps:
            if not isinstance(step, Send):
                yield step
                continue
            last = len(step.data) - size
            for at in range(0, len(step.data), size):
                yield Send(step.data[at : at + size], step.events if at >= last else 0)
                if self.delay > 0:
                    yield Pause(self.delay)


class Compress(Fault, frozen=True):
    """
    The body in gzip. `broken`: "truncated" (the last bytes are missing, the body ends properly), "corrupt" (a few
    bytes in the middle are wrong), "lie" (the header says gzip, the body is plain).
    """

    broken: Literal["", "truncated", "corrupt", "lie"] = ""

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        number = 0
        for step in steps:
            if isinstance(step, Head):
                # The length is not known before the end.
                yield replace(step, headers=(*step.headers, ("Content-Encoding", "gzip")), framing="chunked")
            elif isinstance(step, Send) and self.broken != "lie":
                data = packer.compress(step.data) + packer.flush(zlib.Z_SYNC_FLUSH)
                number += 1
                if self.broken == "corrupt" and number == 2:
                    data = bytes(byte ^ 0x5A for byte in data)
                if data:
                    yield Send(data, step.events)
            elif isinstance(step, End) and self.broken != "lie":
                if self.broken != "truncated":
                    yield Send(packer.flush())
                yield step
            else:
                yield step


class Bomb(Fault, frozen=True):
    """A gzip body that unpacks to `size` bytes of blanks before anything else; a thousandth of that travels."""

    size: int = 400 * 1024 * 1024

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        block = b" " * (1 << 20)
        for step in steps:
            if isinstance(step, Head):
                yield replace(step, headers=(*step.headers, ("Content-Encoding", "gzip")), framing="chunked")
                packer = zlib.compressobj(9, zlib.DEFLATED, 31)
                for _ in range(max(1, self.size >> 20)):
                    data = packer.compress(block)
                    if data:
                        yield Send(data)
                yield Send(packer.flush())
            elif not isinstance(step, Send):
                yield step


class BadFraming(Fault, frozen=True):
    """
    HTTP itself is broken: "status_line", "header" (a line without a colon), "chunk_size" (a size that is no number, after
    `after_events` events), "short_length" (the body is shorter than promised), "two_lengths" (contradicting ones).
    """

    kind: Literal["status_line", "header", "chunk_size", "short_length", "two_lengths"] = "chunk_size"
    after_events: int = 3

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        if self.kind == "status_line":
            return iter((Raw(b"HTTP/9.x maybe\r\n\r\n"), Cut("fin")))
        if self.kind == "header":
            return iter((Raw(b"HTTP/1.1 200 OK\r\nthis is no header\r\n\r\n"), Cut("fin")))
        if self.kind == "two_lengths":
            return iter(
                (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello"), Cut("fin"))
            )
        if self.kind == "short_length":
            return self._short(steps)
        bad: tuple[Step, ...] = (Raw(b"zz\r\ndata: {}\r\n"), Cut("fin"))
        return _at(steps, self.after_events, None, lambda rest: iter(bad))

    def _short(self, steps: Iterator[Step]) -> Iterator[Step]:
        head: Head | None = None
        body = b""
        for step in steps:
            if isinstance(step, Send):
                body += step.data
            elif isinstance(step, Head):
                head = step
            elif isinstance(step, End) and head is not None:
                yield replace(head, framing="length", length=len(body) + 100)
                yield Send(body)
                yield Cut("fin")
                return
            else:
                yield step


class LateTerminator(Fault, frozen=True):
    """The body's end (the last, empty chunk) comes `seconds` after its last bytes."""

    seconds: float = 0.005

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            if isinstance(step, End):
                yield Pause(self.seconds)
            yield step


class CloseIdle(Fault, frozen=True):
    """After the reply the server closes the connection, without having said so, `after` seconds later."""

    after: float = 0.0

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            yield replace(step, close_after=self.after) if isinstance(step, End) else step
