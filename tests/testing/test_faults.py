"""
Every fault is on the wire as its name says: plans, replies, chunks.
"""

import asyncio
import json
import random
from typing import Any

import msgspec
import pytest

from kimi_async.testing.faults import (
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
    MissingDone,
    MissingFinish,
    MissingRole,
    NullFields,
    Redirect,
    SlowHeaders,
    Stall,
    SurrogateHalves,
    ToolDeltas,
    random_fault,
)
from kimi_async.testing.service_in_memory import in_memory
from kimi_async.testing.simulator.chat_model import Turn
from kimi_async.testing.simulator.replies import ERRORS
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.service import KimiService
from kimi_async.transport.exchange import Headers, Request
from support.bare_socket import (
    TEXT,
    ask,
    body,
    calls,
)


async def test_no_fault_is_the_undisturbed_stream(sim: KimiSimulator) -> None:
    """What the other tests compare with."""
    seen = await ask(sim)

    assert (200, "fin", True, TEXT) == (seen.status, seen.ending, seen.complete, seen.text)
    assert b"[DONE]" == seen.data[-1]


# --- plans ---------------------------------------------------------------------------------------------


async def test_plan_gives_one_entry_to_each_request(sim: KimiSimulator) -> None:
    """In order of arrival; None is a request that goes well, and so is everything after the last entry."""
    sim.faults = FaultPlan([Error("rpm"), None, [Error("overloaded"), ContentType("x/y")]])
    statuses = [(await ask(sim)).status for _ in range(4)]

    assert [429, 200, 429, 200] == statuses
    assert {"error": 2, "contenttype": 1} == sim.stats.faults
    assert [("error",), (), ("error", "contenttype"), ()] == [request.faults for request in sim.requests]


def test_plan_leaves_other_paths_alone() -> None:
    """A plan is for chat unless told otherwise, and a request that does not match uses no entry up."""
    plan = FaultPlan([MissingDone()])
    everything = FaultPlan([MissingDone()], path=None, cycle=True)

    assert () == plan.draw("GET", "/v1/models")
    assert (MissingDone(),) == plan.draw("POST", "/v1/chat/completions?x=1")
    assert () == plan.draw("POST", "/v1/chat/completions")
    assert [(MissingDone(),)] * 2 == [everything.draw("GET", "/v1/models") for _ in range(2)]


def test_plan_random_repeats_by_seed() -> None:
    """The same seed gives the same troubles; another seed gives others."""

    def drawn(seed: int) -> list[tuple[Fault, ...]]:
        plan = FaultPlan.random(seed, share=0.7)
        return [plan.draw("POST", "/chat/completions") for _ in range(100)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert 50 <= sum(map(len, drawn(1))) <= 90


def test_plan_per_conversation_does_not_depend_on_arrival() -> None:
    """Each call has its own run through the entries, in whatever order calls and their retries interleave."""

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
    """Faults are data: a plan written to a file is the same plan when read."""
    dice = random.Random(0)
    entries: list[FaultEntry] = [random_fault(dice) for _ in range(200)]
    entries += [None, [Stall(), Garbage(data=b"\xff")]]
    plan = FaultPlan(entries)

    assert plan.entries == FaultPlan.from_json(plan.to_json()).entries
    with pytest.raises(msgspec.ValidationError, match="missingdone"):
        FaultPlan.from_json('[{"fault": "earthquake"}]')


# --- the reply as a whole ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ERRORS))
async def test_error_has_its_true_body(sim: KimiSimulator, kind: str) -> None:
    """Status, type and headers of every kind; messages have no placeholders left."""
    seen = await ask(sim, Error(kind, limit=7, current=9))

    assert (ERRORS[kind].status, True) == (seen.status, seen.complete)
    assert b"{" not in seen.body[1:].replace(b'{"message"', b"")
    if seen.headers["Content-Type"].startswith("application/json"):
        assert ERRORS[kind].type == json.loads(seen.body)["error"]["type"]
    assert (kind in ("concurrency", "rpm", "rpm_hidden", "tpm", "tpd")) == ("Retry-After" in seen.headers)


async def test_error_hint_can_be_garbage(sim: KimiSimulator) -> None:
    """`retry_after` stands in the headers as it was given."""
    seen = await ask(sim, Error("rpm", retry_after="-1e999"))
    none = await ask(sim, Error("rpm", retry_after=""))

    assert "-1e999" == seen.headers["Retry-After"] == seen.headers["Msh-Cooldown-Seconds"]
    assert "Retry-After" not in none.headers


async def test_redirect_points_elsewhere(sim: KimiSimulator) -> None:
    """A 307 to another origin."""
    seen = await ask(sim, Redirect())

    assert (307, "http://elsewhere.invalid/v1/chat/completions") == (seen.status, seen.headers["Location"])


async def test_content_type_lies(sim: KimiSimulator) -> None:
    """The stream is the same, its label is not."""
    seen = await ask(sim, ContentType("text/html"))
    bare = await ask(sim, ContentType(""))

    assert ("text/html", TEXT) == (seen.headers["Content-Type"], seen.text)
    assert "Content-Type" not in bare.headers


async def test_header_flood_precedes_the_body(sim: KimiSimulator) -> None:
    """Ten thousand headers, then the answer."""
    seen = await ask(sim, HeaderFlood(10_000, 50))

    assert len([name for name in seen.headers if name.startswith("X-Flood-")]) == 10_000
    assert TEXT == seen.text


@pytest.mark.parametrize("trickle", [False, True])
async def test_slow_headers_take_their_time(sim: KimiSimulator, trickle: bool) -> None:
    """Late at once, or byte by byte."""
    seen = await ask(sim, SlowHeaders(0.05, trickle))

    assert seen.seconds >= 0.05
    assert TEXT == seen.text


async def test_empty_body_ends_properly(sim: KimiSimulator) -> None:
    """A 200 with nothing in it, streamed or not."""
    stream = await ask(sim, EmptyBody())
    whole = await ask(sim, EmptyBody(), sent=body(stream=False))

    assert (200, b"", True) == (stream.status, stream.body, stream.complete)
    assert (200, b"", True) == (whole.status, whole.body, whole.complete)


# --- chunks --------------------------------------------------------------------------------------------


async def test_missing_parts_are_missing(sim: KimiSimulator) -> None:
    """Role, finish chunk and [DONE] can each be absent while the body ends properly."""
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
    """Two equal finish chunks, one [DONE]."""
    seen = await ask(sim, DuplicateFinish())

    assert seen.chunks[-1] == seen.chunks[-2]
    assert b"[DONE]" == seen.data[-1]


ARGUMENTS = {0: '{"city":"Beijing"}', 1: '{"city":"Shanghai"}'}


@pytest.mark.parametrize(
    "style", ["no_id", "interleaved", "name_repeated", "arguments_first", "whole", "null_function"]
)
async def test_tool_deltas_still_add_up_by_index(sim: KimiSimulator, style: Any) -> None:
    """Careless as they are, the fragments of each index join to the same arguments."""
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
    """No index anywhere; each name opens a call and what follows belongs to it."""
    seen = await calls(sim, ToolDeltas("no_index"))

    assert not any("index" in call for call in seen.calls)
    assert "".join(ARGUMENTS.values()) == "".join(call["function"]["arguments"] for call in seen.calls)


async def test_null_fields_are_all_there(sim: KimiSimulator) -> None:
    """Optional fields are null, not absent, and the text is the same."""
    seen = await ask(sim, NullFields())

    assert TEXT == seen.text
    assert all(
        chunk["usage"] is None and "tool_calls" in chunk["choices"][0]["delta"] for chunk in seen.chunks
    )


async def test_insert_text_brings_line_separators(sim: KimiSimulator) -> None:
    """U+2028, U+2029 and U+0085 stand unescaped inside one event."""
    seen = await ask(sim, InsertText())

    assert "a\u2028b\u2029c\u0085d".encode() in seen.body
    assert "a\u2028b\u2029c\u0085d" in seen.text


@pytest.mark.parametrize("lone", [False, True])
async def test_surrogate_halves_come_in_two_events(sim: KimiSimulator, lone: bool) -> None:
    """Each half is an escape in a chunk of its own; `lone` leaves the second one out."""
    seen = await ask(sim, SurrogateHalves(lone=lone))

    assert 1 == sum(b'"\\ud83c"' in data for data in seen.data)
    assert (0 if lone else 1) == sum(b'"\\udfb5"' in data for data in seen.data)


async def test_giant_event_is_one_event(sim: KimiSimulator) -> None:
    """A content chunk of a megabyte between the others."""
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
    """After five good events comes the error, and the body ends."""
    seen = await ask(sim, ErrorEvent(after_events=5, shape=shape))

    assert (6, expected, True) == (len(seen.data), seen.chunks[-1], seen.complete)


@pytest.mark.parametrize("shape", ["vllm", "chunk"])
async def test_error_event_foreign_shapes(sim: KimiSimulator, shape: Any) -> None:
    """The first event may already be the error, as vLLM or OpenRouter write it."""
    seen = await ask(sim, ErrorEvent(shape=shape))

    error = seen.chunks[0]
    assert 1 == len(seen.data)
    assert 400 == error["code"] if shape == "vllm" else "error" == error["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    ("then", "last", "ending"),
    [("done", b"[DONE]", "fin"), ("continue", b"[DONE]", "fin"), ("rst", None, "rst")],
)
async def test_error_event_then(sim: KimiSimulator, then: Any, last: bytes | None, ending: str) -> None:
    """What follows an error event differs from server to server."""
    seen = await ask(sim, ErrorEvent(after_events=2, then=then))

    assert ending == seen.ending
    assert (then == "continue") == (len(seen.data) > 4)
    if last is not None:
        assert last == seen.data[-1]


# --- all of them ---------------------------------------------------------------------------------------


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
    """Behind MemoryTransport, under a virtual clock: an hour's stall and a reset inside the body."""
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
    """A fault changes how an answer arrives, whoever gave it."""
    sim.say(Turn("Short."))
    seen = await ask(sim, MissingDone())

    assert ("Short.", False) == (seen.text, b"[DONE]" in seen.data)
