"""
Every fault is on the wire as its name says. The client here is a socket: it hides nothing and forgives nothing.
"""

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kimi_async.sse import SSEDecoder
from kimi_async.testing.faults import (
    BadFraming,
    Bomb,
    CloseIdle,
    Comments,
    Compress,
    ContentType,
    Drop,
    DuplicateFinish,
    EmptyBody,
    Error,
    ErrorEvent,
    Fault,
    FaultEntry,
    FaultPlan,
    Garbage,
    GiantEvent,
    HeaderFlood,
    InsertText,
    InvalidUtf8,
    JoinedEvents,
    LateTerminator,
    LineEndings,
    MissingDone,
    MissingFinish,
    MissingRole,
    NullFields,
    Pings,
    Redirect,
    SlowHeaders,
    Stall,
    SurrogateHalves,
    ToolDeltas,
    Trickle,
    random_fault,
)
from kimi_async.testing.service_in_memory import in_memory
from kimi_async.testing.simulator.chat_model import Turn, think
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.replies import ERRORS, Pace
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.service import KimiService
from kimi_async.transport.exchange import Headers, Request

USER = [{"role": "user", "content": "Tell me about the moon."}]
TEXT = think(MODELS[2], {"messages": USER}).content
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def body(**options: Any) -> bytes:
    return json.dumps({"model": "kimi-k3", "messages": USER, "stream": True, **options}).encode()


class Seen:
    """All that came over one connection, taken apart as far as it goes."""

    def __init__(self, raw: bytes, ending: str, seconds: float) -> None:
        self.raw, self.ending, self.seconds = raw, ending, seconds
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1]) if lines[0].startswith("HTTP/1.1 ") else 0
        self.headers = Headers(line.split(": ", 1) for line in lines[1:] if ": " in line)
        self.sizes: list[int] = []
        self.complete = False  # the body ended as HTTP wants it
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._dechunk(rest)
        else:
            self.body = rest
            self.complete = len(rest) == int(self.headers.get("Content-Length", "-1"))

    def _dechunk(self, rest: bytes) -> bytes:
        found = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            try:
                length = int(size, 16)
            except ValueError:
                break
            if length == 0:
                self.complete = rest == b"\r\n"
                break
            self.sizes.append(length)
            found += rest[:length]
            if len(rest) < length + 2:
                break
            rest = rest[length + 2 :]
        return found

    @property
    def data(self) -> list[bytes]:
        decoder = SSEDecoder()
        return [bytes(event.data) for event in decoder.feed(self.body)]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(data) for data in self.data if data != b"[DONE]"]

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def calls(self) -> list[Any]:
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return [call for choice in choices for call in choice["delta"].get("tool_calls") or ()]


@pytest.fixture
async def sim() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as simulator:
        yield simulator


async def ask(
    sim: KimiSimulator, *faults: FaultEntry, sent: bytes | None = None, limit: int = 1 << 30
) -> Seen:
    """One request over a fresh connection, read until the server ends it (at most `limit` bytes)."""
    if faults:
        sim.faults = FaultPlan(faults)
    loop = asyncio.get_running_loop()
    started = loop.time()
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    payload = body() if sent is None else sent
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload)
    )
    raw, ending = b"", "fin"
    try:
        while len(raw) < limit and (data := await reader.read(1 << 20)):
            raw += data
        if len(raw) >= limit:
            ending = "limit"
    except ConnectionResetError:
        ending = "rst"
    writer.close()
    return Seen(raw, ending, loop.time() - started)


async def calls(sim: KimiSimulator, fault: Fault) -> Seen:
    messages = [{"role": "user", "content": "Weather in Beijing and Shanghai?"}]
    return await ask(sim, fault, sent=body(messages=messages, tools=[TOOL]))


async def test_no_fault_is_the_undisturbed_stream(sim: KimiSimulator) -> None:
    """
    What the other tests compare with.
    """
    seen = await ask(sim)

    assert (200, "fin", True, TEXT) == (seen.status, seen.ending, seen.complete, seen.text)
    assert b"[DONE]" == seen.data[-1]


# --- plans ----------------------------------------------------------------------------------------------


async def test_plan_gives_one_entry_to_each_request(sim: KimiSimulator) -> None:
    """
    In order of arrival; None is a request that goes well, and so is everything after the last entry.
    """
    sim.faults = FaultPlan([Error("rpm"), None, [Error("overloaded"), ContentType("x/y")]])
    statuses = [(await ask(sim)).status for _ in range(4)]

    assert [429, 200, 429, 200] == statuses
    assert {"error": 2, "contenttype": 1} == sim.stats.faults
    assert [("error",), (), ("error", "contenttype"), ()] == [request.faults for request in sim.requests]


def test_plan_leaves_other_paths_alone() -> None:
    """
    A plan is for chat unless told otherwise, and a request that does not match uses no entry up.
    """
    plan = FaultPlan([MissingDone()])
    everything = FaultPlan([MissingDone()], path=None, cycle=True)

    assert () == plan.draw("GET", "/v1/models")
    assert (MissingDone(),) == plan.draw("POST", "/v1/chat/completions?x=1")
    assert () == plan.draw("POST", "/v1/chat/completions")
    assert [(MissingDone(),)] * 2 == [everything.draw("GET", "/v1/models") for _ in range(2)]


def test_plan_random_repeats_by_seed() -> None:
    """
    The same seed gives the same troubles; another seed gives others.
    """

    def drawn(seed: int) -> list[tuple[Fault, ...]]:
        plan = FaultPlan.random(seed, share=0.7)
        return [plan.draw("POST", "/chat/completions") for _ in range(100)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert 50 <= sum(map(len, drawn(1))) <= 90


def test_plan_per_conversation_does_not_depend_on_arrival() -> None:
    """
    Each call has its own run through the entries, in whatever order calls and their retries interleave.
    """

    def told(text: str, *more: Any) -> bytes:
        return json.dumps({"messages": [{"role": "user", "content": text}, *more]}).encode()

    path = "/v1/chat/completions"
    resumed = told("a", {"role": "assistant", "content": "x", "partial": True})
    plan = FaultPlan([MissingDone(), MissingRole()], per="conversation")
    drawn = [plan.draw("POST", path, body) for body in (told("a"), told("b"), resumed, told("b"), told("a"))]

    def random_run(order: list[str]) -> dict[str, list[Any]]:
        plan = FaultPlan.random(3, share=0.8, per="conversation")
        found: dict[str, list[Any]] = {}
        for text in order:
            found.setdefault(text, []).append(plan.draw("POST", path, told(text)))
        return found

    assert [(MissingDone(),), (MissingDone(),), (MissingRole(),), (MissingRole(),), ()] == drawn
    assert random_run(["a", "b", "c"] * 9) == random_run(["c"] * 9 + ["a", "b"] * 9)


def test_plan_survives_json() -> None:
    """
    Faults are data: a plan written to a file is the same plan when read.
    """
    dice = random.Random(0)
    entries: list[FaultEntry] = [random_fault(dice) for _ in range(200)]
    entries += [None, [Stall(), Garbage(data=b"\xff")]]
    plan = FaultPlan(entries)

    assert plan.entries == FaultPlan.from_json(plan.to_json()).entries
    with pytest.raises(msgspec.ValidationError, match="missingdone"):
        FaultPlan.from_json('[{"fault": "earthquake"}]')


# --- the reply as a whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ERRORS))
async def test_error_has_its_true_body(sim: KimiSimulator, kind: str) -> None:
    """
    Status, type and headers of every kind; messages have no placeholders left.
    """
    seen = await ask(sim, Error(kind, limit=7, current=9))

    assert (ERRORS[kind].status, True) == (seen.status, seen.complete)
    assert b"{" not in seen.body[1:].replace(b'{"message"', b"")
    if seen.headers["Content-Type"].startswith("application/json"):
        assert ERRORS[kind].type == json.loads(seen.body)["error"]["type"]
    assert (kind in ("concurrency", "rpm", "rpm_hidden", "tpm", "tpd")) == ("Retry-After" in seen.headers)


async def test_error_hint_can_be_garbage(sim: KimiSimulator) -> None:
    """
    `retry_after` stands in the headers as it was given.
    """
    seen = await ask(sim, Error("rpm", retry_after="-1e999"))
    none = await ask(sim, Error("rpm", retry_after=""))

    assert "-1e999" == seen.headers["Retry-After"] == seen.headers["Msh-Cooldown-Seconds"]
    assert "Retry-After" not in none.headers


async def test_redirect_points_elsewhere(sim: KimiSimulator) -> None:
    """
    A 307 to another origin.
    """
    seen = await ask(sim, Redirect())

    assert (307, "http://elsewhere.invalid/v1/chat/completions") == (seen.status, seen.headers["Location"])


async def test_content_type_lies(sim: KimiSimulator) -> None:
    """
    The stream is the same, its label is not.
    """
    seen = await ask(sim, ContentType("text/html"))
    bare = await ask(sim, ContentType(""))

    assert ("text/html", TEXT) == (seen.headers["Content-Type"], seen.text)
    assert "Content-Type" not in bare.headers


async def test_header_flood_precedes_the_body(sim: KimiSimulator) -> None:
    """
    Ten thousand headers, then the answer.
    """
    seen = await ask(sim, HeaderFlood(10_000, 50))

    assert len([name for name in seen.headers if name.startswith("X-Flood-")]) == 10_000
    assert TEXT == seen.text


@pytest.mark.parametrize("trickle", [False, True])
async def test_slow_headers_take_their_time(sim: KimiSimulator, trickle: bool) -> None:
    """
    Late at once, or byte by byte.
    """
    seen = await ask(sim, SlowHeaders(0.05, trickle))

    assert seen.seconds >= 0.05
    assert TEXT == seen.text


async def test_empty_body_ends_properly(sim: KimiSimulator) -> None:
    """
    A 200 with nothing in it, streamed or not.
    """
    stream = await ask(sim, EmptyBody())
    whole = await ask(sim, EmptyBody(), sent=body(stream=False))

    assert (200, b"", True) == (stream.status, stream.body, stream.complete)
    assert (200, b"", True) == (whole.status, whole.body, whole.complete)


# --- chunks ---------------------------------------------------------------------------------------------


async def test_missing_parts_are_missing(sim: KimiSimulator) -> None:
    """
    Role, finish chunk and [DONE] can each be absent while the body ends properly.
    """
    role = await ask(sim, MissingRole())
    finish = await ask(sim, MissingFinish())
    neither = await ask(sim, MissingFinish(done=False))
    done = await ask(sim, MissingDone())

    assert not any("role" in choice["delta"] for chunk in role.chunks for choice in chunk["choices"])
    assert not any(choice["finish_reason"] for chunk in finish.chunks for choice in chunk["choices"])
    assert [True, False, False] == [b"[DONE]" in seen.data for seen in (finish, neither, done)]
    assert "stop" == done.chunks[-1]["choices"][0]["finish_reason"]
    assert [True] * 4 == [seen.complete and seen.text == TEXT for seen in (role, finish, neither, done)]


async def test_duplicate_finish_comes_twice(sim: KimiSimulator) -> None:
    """
    Two equal finish chunks, one [DONE].
    """
    seen = await ask(sim, DuplicateFinish())

    assert seen.chunks[-1] == seen.chunks[-2]
    assert b"[DONE]" == seen.data[-1]


ARGUMENTS = {0: '{"city":"Beijing"}', 1: '{"city":"Shanghai"}'}


@pytest.mark.parametrize(
    "style", ["no_id", "interleaved", "name_repeated", "arguments_first", "whole", "null_function"]
)
async def test_tool_deltas_still_add_up_by_index(sim: KimiSimulator, style: Any) -> None:
    """
    Careless as they are, the fragments of each index join to the same arguments.
    """
    seen = await calls(sim, ToolDeltas(style))
    text = {0: "", 1: ""}
    for call in seen.calls:
        text[call["index"]] += (call["function"] or {}).get("arguments", "")

    indexes = [call["index"] for call in seen.calls]
    names = [call for call in seen.calls if call["function"] and "name" in call["function"]]
    assert (style == "arguments_first") or text == ARGUMENTS
    assert (style == "interleaved") == (indexes != sorted(indexes))
    assert (style == "name_repeated") == (len(names) > 2)
    assert (style == "whole") == (len(seen.calls) == 2)
    assert (style == "null_function") == any(call["function"] is None for call in seen.calls)
    assert (style == "arguments_first") == ("name" not in (seen.calls[0]["function"] or {"name": ""}))
    assert (style == "no_id") == (not any("id" in call for call in seen.calls))


async def test_tool_deltas_without_index_keep_their_order(sim: KimiSimulator) -> None:
    """
    No index anywhere; each name opens a call and what follows belongs to it.
    """
    seen = await calls(sim, ToolDeltas("no_index"))

    assert not any("index" in call for call in seen.calls)
    assert "".join(ARGUMENTS.values()) == "".join(call["function"]["arguments"] for call in seen.calls)


async def test_null_fields_are_all_there(sim: KimiSimulator) -> None:
    """
    Optional fields are null, not absent, and the text is the same.
    """
    seen = await ask(sim, NullFields())

    assert TEXT == seen.text
    assert all(
        chunk["usage"] is None and "tool_calls" in chunk["choices"][0]["delta"] for chunk in seen.chunks
    )


async def test_insert_text_brings_line_separators(sim: KimiSimulator) -> None:
    """
    U+2028, U+2029 and U+0085 stand unescaped inside one event.
    """
    seen = await ask(sim, InsertText())

    assert "a\u2028b\u2029c\u0085d".encode() in seen.body
    assert "a\u2028b\u2029c\u0085d" in seen.text


@pytest.mark.parametrize("lone", [False, True])
async def test_surrogate_halves_come_in_two_events(sim: KimiSimulator, lone: bool) -> None:
    """
    Each half is an escape in a chunk of its own; `lone` leaves the second one out.
    """
    seen = await ask(sim, SurrogateHalves(lone=lone))

    assert 1 == sum(b'"\\ud83c"' in data for data in seen.data)
    assert (0 if lone else 1) == sum(b'"\\udfb5"' in data for data in seen.data)


async def test_giant_event_is_one_event(sim: KimiSimulator) -> None:
    """
    A content chunk of a megabyte between the others.
    """
    seen = await ask(sim, GiantEvent(size=1 << 20))

    assert (1 << 20) < max(map(len, seen.data)) < (1 << 20) + 400
    assert len(TEXT) + (1 << 20) == len(seen.text)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("kimi", {"error": {"message": ERRORS["overloaded"].message, "type": "engine_overloaded_error"}}),
        ("string", {"error": ERRORS["overloaded"].message}),
    ],
)
async def test_error_event_ends_the_stream(sim: KimiSimulator, shape: Any, expected: Any) -> None:
    """
    After five good events comes the error, and the body ends.
    """
    seen = await ask(sim, ErrorEvent(after_events=5, shape=shape))

    assert (6, expected, True) == (len(seen.data), seen.chunks[-1], seen.complete)


@pytest.mark.parametrize("shape", ["vllm", "chunk"])
async def test_error_event_foreign_shapes(sim: KimiSimulator, shape: Any) -> None:
    """
    The first event may already be the error, as vLLM or OpenRouter write it.
    """
    seen = await ask(sim, ErrorEvent(shape=shape))

    error = seen.chunks[0]
    assert 1 == len(seen.data)
    assert 400 == error["code"] if shape == "vllm" else "error" == error["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    ("then", "last", "ending"),
    [("done", b"[DONE]", "fin"), ("continue", b"[DONE]", "fin"), ("rst", None, "rst")],
)
async def test_error_event_then(sim: KimiSimulator, then: Any, last: bytes | None, ending: str) -> None:
    """
    What follows an error event differs from server to server.
    """
    seen = await ask(sim, ErrorEvent(after_events=2, then=then))

    assert ending == seen.ending
    assert (then == "continue") == (len(seen.data) > 4)
    if last is not None:
        assert last == seen.data[-1]


# --- lines ----------------------------------------------------------------------------------------------


async def test_comments_flood_without_disturbing_events(sim: KimiSimulator) -> None:
    """
    A thousand comment lines; the events are the same.
    """
    seen = await ask(sim, Comments(count=1_000, after_events=4))
    everywhere = await ask(sim, Comments(count=2, after_events=-1))

    assert 1_000 == seen.body.count(b": KIMI PROCESSING\n\n")
    assert 4 == seen.body.partition(b": KIMI")[0].count(b"\n\n")
    assert 2 * len(everywhere.data) == everywhere.body.count(b": KIMI PROCESSING\n\n")
    assert [TEXT, TEXT] == [seen.text, everywhere.text]


async def test_comments_without_end_stop_when_the_client_leaves(sim: KimiSimulator) -> None:
    """
    An endless flood ends with its reader, on the server too.
    """
    seen = await ask(sim, Comments(count=-1, after_events=2), limit=1 << 16)
    await sim.until(lambda stats: stats.in_flight == 0)

    assert ("limit", 2) == (seen.ending, len(seen.data))
    assert sim.requests[0].client_gone


@pytest.mark.parametrize("style", ["event", "empty", "null", "blank", "retry", "id"])
async def test_pings_stand_between_events(sim: KimiSimulator, style: Any) -> None:
    """
    Blocks without a chunk; [DONE] is still the last event.
    """
    seen = await ask(sim, Pings(style))

    chunks = [json.loads(data) for data in seen.data if data not in (b"", b"null", b"[DONE]")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert (TEXT, b"[DONE]") == (text, seen.data[-1])
    assert (style == "null") == (b"null" in seen.data)


@pytest.mark.parametrize("style", ["crlf", "cr", "no_space", "bom"])
async def test_line_endings_are_the_same_stream(sim: KimiSimulator, style: Any) -> None:
    """
    The standard allows them all.
    """
    plain = await ask(sim)
    seen = await ask(sim, LineEndings(style))

    assert plain.body != seen.body
    assert TEXT == seen.text


async def test_line_endings_unterminated_leaves_done_open(sim: KimiSimulator) -> None:
    """
    The last event lacks its blank line.
    """
    seen = await ask(sim, LineEndings("unterminated"))

    assert seen.body.endswith(b"\n\ndata: [DONE]")


async def test_joined_events_hold_two_chunks(sim: KimiSimulator) -> None:
    """
    In one line, or in two lines of one event.
    """
    line = await ask(sim, JoinedEvents("one_line"))
    lines = await ask(sim, JoinedEvents("two_lines"))

    assert line.data[0].count(b'"object"') == lines.data[0].count(b'"object"') == 2
    assert b"}{" in line.data[0]
    assert b"}\n{" in lines.data[0]
    assert [b"[DONE]"] * 2 == [line.data[-1], lines.data[-1]]


async def test_garbage_and_invalid_utf8_are_in_place(sim: KimiSimulator) -> None:
    """
    Broken events after the number of good ones that was asked for.
    """
    event = await ask(sim, Garbage(after_events=2))
    raw = await ask(sim, Garbage(after_events=2, raw=True, data=b"\xde\xad"))
    utf8 = await ask(sim, InvalidUtf8(after_events=2))

    with pytest.raises(json.JSONDecodeError):
        json.loads(event.data[2].decode())
    assert b"\n\n\xde\xaddata: " in raw.body
    with pytest.raises(UnicodeDecodeError):
        utf8.data[2].decode()


# --- bytes and time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "ending", "complete"), [("fin", "fin", False), ("rst", "rst", False), ("clean", "fin", True)]
)
async def test_drop_after_events(sim: KimiSimulator, how: Any, ending: str, complete: bool) -> None:
    """
    Exactly so many events arrive; the end is as ordered.
    """
    seen = await ask(sim, Drop(after_events=7, how=how))

    assert (ending, complete) == (seen.ending, seen.complete)
    # A reset may throw away what the kernel still held; it never adds anything.
    assert 7 == len(seen.data) or (how == "rst" and len(seen.data) < 7)


@pytest.mark.parametrize("size", [0, 1, 100, 777, 3_000])
async def test_drop_after_bytes(sim: KimiSimulator, size: int) -> None:
    """
    Exactly so many bytes of the body arrive.
    """
    whole = await ask(sim)
    seen = await ask(sim, Drop(after_bytes=size, how="fin"))

    assert (size, False) == (len(seen.body), seen.complete)
    assert whole.body[: min(size, 20)] == seen.body[:20]


async def test_drop_beyond_the_end_does_nothing(sim: KimiSimulator) -> None:
    """
    A place past the body's end is never reached.
    """
    seen = await ask(sim, Drop(after_bytes=10**9))

    assert (TEXT, True) == (seen.text, seen.complete)


async def test_drop_truncated_breaks_inside_a_chunk(sim: KimiSimulator) -> None:
    """
    The last chunk promised more bytes than came.
    """
    seen = await ask(sim, Drop(after_events=3, how="truncated"))

    assert sum(seen.sizes) > len(seen.body)
    assert (3, False) == (len(seen.data), seen.complete)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_drop_before_headers_sends_nothing(sim: KimiSimulator, how: Any) -> None:
    """
    The connection ends without a status line.
    """
    seen = await ask(sim, Drop(before_headers=True, how=how))

    assert (b"", how) == (seen.raw, seen.ending)
    assert {0: 1} == sim.stats.by_status


async def test_drop_splits_writes_of_many_events() -> None:
    """
    Places are exact also where several events share a write.
    """
    async with KimiSimulator(pace=Pace(events_per_write=16)) as sim:
        seen = await ask(sim, Drop(after_events=21, how="fin"))

    assert 21 == len(seen.data)


async def test_drop_in_a_reply_that_is_not_a_stream(sim: KimiSimulator) -> None:
    """
    The body is shorter than its Content-Length.
    """
    seen = await ask(sim, Drop(after_events=1, how="fin"), sent=body(stream=False))

    assert 0 < len(seen.body) < int(seen.headers["Content-Length"])


@pytest.mark.parametrize(
    "place", [{"before_headers": True}, {"after_events": 0}, {"after_events": 4}, {"after_bytes": 10}]
)
async def test_stall_is_silent_and_goes_on(sim: KimiSimulator, place: Any) -> None:
    """
    A stall costs time and nothing else.
    """
    seen = await ask(sim, Stall(**place, seconds=0.05))

    assert (TEXT, True) == (seen.text, seen.complete)
    assert seen.seconds >= 0.05


async def test_stall_lasts_as_long_late_in_a_stream() -> None:
    """
    A stall is counted from the moment it begins, however long the stream has been going.
    """
    async with KimiSimulator(pace=Pace(headers=0.1)) as sim:
        seen = await ask(sim, [Stall(after_events=10, seconds=0.05), Stall(after_events=20, seconds=0.05)])

    assert seen.seconds >= 0.2


async def test_stall_without_end_frees_the_server_when_the_client_leaves(sim: KimiSimulator) -> None:
    """
    Events before the stall arrive, then nothing; the handler ends with the connection.
    """
    sim.faults = FaultPlan([Stall(after_events=2)])
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body()), body())
    )
    await reader.readuntil(b"\n\n\r\n")
    await reader.readuntil(b"\n\n\r\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.read(1)
    writer.close()
    await sim.until(lambda stats: stats.in_flight == 0 and stats.connections_open == 0)

    assert sim.requests[0].client_gone


async def test_trickle_sends_single_bytes(sim: KimiSimulator) -> None:
    """
    Each byte is a chunk of its own; the stream is the same.
    """
    seen = await ask(sim, Trickle())

    assert {1} == set(seen.sizes)
    assert (TEXT, True) == (seen.text, seen.complete)


async def test_compress_unpacks_to_the_stream(sim: KimiSimulator) -> None:
    """
    Sound gzip, flushed with every event.
    """
    plain = await ask(sim)
    seen = await ask(sim, Compress())

    assert "gzip" == seen.headers["Content-Encoding"]
    assert len(plain.data) == gzip.decompress(seen.body).count(b"\n\n")
    assert len(seen.sizes) > 20


async def test_compress_broken(sim: KimiSimulator) -> None:
    """
    Cut short without a sign in HTTP, wrong in the middle, or not gzip at all.
    """
    truncated = await ask(sim, Compress("truncated"))
    corrupt = await ask(sim, Compress("corrupt"))
    lie = await ask(sim, Compress("lie"))

    assert truncated.complete
    with pytest.raises(EOFError):
        gzip.decompress(truncated.body)
    with pytest.raises((zlib.error, EOFError, gzip.BadGzipFile)):
        gzip.decompress(corrupt.body)
    assert ("gzip", TEXT) == (lie.headers["Content-Encoding"], lie.text)


async def test_bomb_unpacks_a_thousandfold(sim: KimiSimulator) -> None:
    """
    Little travels, much comes out.
    """
    seen = await ask(sim, Bomb(size=16 << 20))

    assert len(seen.body) < 40_000
    assert 16 << 20 == len(gzip.decompress(seen.body))


@pytest.mark.parametrize(
    ("kind", "sign"),
    [
        ("status_line", b"HTTP/9.x maybe\r\n"),
        ("header", b"\r\nthis is no header\r\n"),
        ("chunk_size", b"\r\nzz\r\n"),
        ("two_lengths", b"Content-Length: 5\r\nContent-Length: 7"),
    ],
)
async def test_bad_framing_is_on_the_wire(sim: KimiSimulator, kind: Any, sign: bytes) -> None:
    """
    HTTP broken at the place that was named.
    """
    seen = await ask(sim, BadFraming(kind))

    assert sign in seen.raw
    assert "fin" == seen.ending


async def test_bad_framing_short_length(sim: KimiSimulator) -> None:
    """
    A hundred bytes are promised that never come.
    """
    seen = await ask(sim, BadFraming("short_length"), sent=body(stream=False))

    assert 100 == int(seen.headers["Content-Length"]) - len(seen.body)


async def test_late_terminator_keeps_the_connection_open_meanwhile(sim: KimiSimulator) -> None:
    """
    [DONE] arrives at once, the end of the body later.
    """
    sim.faults = FaultPlan([LateTerminator(0.05)])
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body()), body())
    )
    loop = asyncio.get_running_loop()
    await reader.readuntil(b"data: [DONE]\n\n\r\n")
    done_at = loop.time()
    end = await reader.readexactly(5)
    writer.close()

    assert b"0\r\n\r\n" == end
    assert loop.time() - done_at >= 0.04


async def test_close_idle_ends_the_connection_after_the_reply(sim: KimiSimulator) -> None:
    """
    The reply says nothing of closing; then the server hangs up.
    """
    sim.faults = FaultPlan([CloseIdle(0.01)])
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body()), body())
    )
    raw = await reader.read(-1)
    writer.close()
    seen = Seen(raw, "fin", 0.0)

    assert (TEXT, True) == (seen.text, seen.complete)
    assert "Connection" not in seen.headers


# --- all of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_random_faults_leave_nothing_behind(seed: int) -> None:
    """
    A hundred requests in trouble: the server has no request and no connection left, and serves the next one.
    """
    async with KimiSimulator(faults=FaultPlan.random(seed, share=0.9)) as sim:
        for start in range(0, 100, 25):
            await asyncio.gather(*(ask(sim) for _ in range(start, start + 25)))
        await sim.until(lambda stats: stats.in_flight == 0 and stats.connections_open == 0)
        sim.faults = None
        assert TEXT == (await ask(sim)).text


def test_faults_work_without_sockets() -> None:
    """
    Behind MemoryTransport, under a virtual clock: an hour's stall and a reset inside the body.
    """
    from kimi_async.errors import APIConnectionError
    from kimi_async.testing.clock import run

    async def main() -> tuple[float, int]:
        service = KimiService(faults=[[Stall(after_events=2, seconds=3600), Drop(after_events=5)]])
        headers = Headers({"Authorization": "Bearer sk-simulator"})
        request = Request("POST", "http://memory/v1/chat/completions", headers=headers, body=body())
        response = await in_memory(service).send(request)
        events = 0
        try:
            async for data in response:
                events += data.count(b"\n\n")
        except APIConnectionError:
            return asyncio.get_running_loop().time(), events
        raise AssertionError("the body ended as if nothing had happened")

    assert (3600.0, 5) == run(main())


async def test_faults_combine_with_limits_and_scripted_turns(sim: KimiSimulator) -> None:
    """
    A fault changes how an answer arrives, whoever gave it.
    """
    sim.say(Turn("Short."))
    seen = await ask(sim, MissingDone())

    assert ("Short.", False) == (seen.text, b"[DONE]" in seen.data)
