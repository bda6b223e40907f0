"""
`client.map`: results from many requests, and what survives when it is killed. Waiting is in virtual time.
"""

import asyncio
import errno
import gc
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from kimi_async.bulk import journal as journal_module
from kimi_async.bulk.journal import Journal, JournalLockedError, JournalMismatchError, JournalWriteError
from kimi_async.bulk.lines import InvalidLinesError
from kimi_async.bulk.map import (
    AnswerBegunAnew,
    Map,
    MapOptions,
    MapProgress,
    MapStoppedError,
    TokenPrice,
    request_of,
)
from kimi_async.bulk.output_files import ResultFiles
from kimi_async.client import AsyncKimi
from kimi_async.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    IncompleteStreamError,
    InternalServerError,
)
from kimi_async.testing.memory_transport import MemoryTransport, Reply
from kimi_async.testing.simulator.replies import error_reply
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.transport.exchange import Request

JSON = {"Content-Type": "application/json"}


pytestmark = pytest.mark.virtual_clock


def said(request: Request) -> str:
    return str(request.json()["messages"][-1]["content"])


def completion(text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "kimi-k2.6",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        **more,
    }


class Server:
    """
    Answers "re: …" after a wait; counts what it was asked, and how much at once.
    """

    def __init__(self, wait: Any = 0.01) -> None:
        self.wait = wait
        self.asked: Counter[str] = Counter()
        self.now = self.peak = 0
        self.refuse: dict[str, str] = {}
        self.extra: dict[str, Any] = {}

    async def __call__(self, request: Request) -> Reply:
        text = said(request)
        self.asked[text] += 1
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            wait = self.wait(text) if callable(self.wait) else self.wait
            await asyncio.sleep(wait)
            if text in self.refuse:
                refusal = error_reply(self.refuse[text])
                return Reply(refusal.status, JSON, refusal.payload())
            return Reply(200, JSON, json.dumps(completion(f"re: {text}", **self.extra)))
        finally:
            self.now -= 1


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncKimi]:
    # Limits are not what is tested here; a limiter that learns would begin with few.
    async with AsyncKimi(
        api_key="sk-x", transport=MemoryTransport(server), limits="tier5", max_retries=0
    ) as opened:
        yield opened


def run(client: AsyncKimi, requests: Any, **options: Any) -> Map:
    options.setdefault("model", "kimi-k2.6")
    options.setdefault("concurrency", 8)
    return Map(client, requests, MapOptions(**options))


def texts(count: int) -> list[str]:
    return [f"q{n}" for n in range(count)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# Results


async def test_map_gives_every_result_once(client: AsyncKimi, server: Server):
    """
    One result for each request, with its index, whatever the order.
    """
    server.wait = lambda text: random.Random(text).random()
    found = [result async for result in run(client, texts(100))]

    assert list(range(100)) == sorted(result.index for result in found)
    assert list(range(100)) != [result.index for result in found]
    assert all(result.text == f"re: q{result.index}" for result in found)
    assert all(result.custom_id == f"request-{result.index + 1}" for result in found)
    assert {1} == set(server.asked.values())


async def test_map_ordered_gives_the_order_of_the_input(client: AsyncKimi, server: Server):
    """
    Ordered results come in order, and a slow one holds up no more than the window.
    """
    server.wait = lambda text: 100.0 if text == "q5" else 0.01
    order: list[int] = []
    async for result in run(client, texts(100), ordered=True, window=20):
        order.append(result.index)
        if result.index == 4:
            await asyncio.sleep(50)
            assert 25 == len(server.asked)

    assert list(range(100)) == order


async def test_map_concurrency_is_kept_and_used(client: AsyncKimi, server: Server):
    """
    Never more under way than asked for, and as many as that while there is work.
    """
    server.wait = 1.0
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert 100 == len([result async for result in run(client, texts(100), concurrency=10)])

    assert 10 == server.peak
    assert 10.0 == pytest.approx(loop.time() - began, abs=0.1)


async def test_map_pulls_only_what_it_can_use(client: AsyncKimi, server: Server):
    """
    An endless input is read no further than the window ahead of what was taken; a consumer that stops stops the intake.
    """
    pulled = 0

    def endless() -> Iterator[str]:
        nonlocal pulled
        while True:
            pulled += 1
            yield f"q{pulled}"

    async with run(client, endless(), concurrency=4, window=10) as results:
        taken = [await anext(results) for _ in range(30)]
        await asyncio.sleep(60)
        assert 30 == len(taken)
        assert pulled <= 30 + 10
    await asyncio.sleep(60)
    assert pulled <= 30 + 10


async def test_map_left_with_break_stops_sending(client: AsyncKimi, server: Server):
    """
    Even without `async with`, leaving the loop ends the run.
    """
    server.wait = 1.0
    async for _ in run(client, texts(1000)):
        break
    gc.collect()
    await asyncio.sleep(1)
    sent = len(server.asked)
    await asyncio.sleep(100)

    assert sent == len(server.asked) < 100
    assert 0 == server.now


async def test_map_closing_gives_up_what_is_under_way(client: AsyncKimi, server: Server):
    """
    Leaving the block cancels the requests and leaves no task behind.
    """
    server.wait = lambda text: 0.1 if text == "q0" else 1000.0
    before = asyncio.all_tasks()
    async with run(client, texts(100)) as results:
        assert "re: q0" == (await anext(results)).text

    assert 0 == server.now
    assert before == asyncio.all_tasks()
    with pytest.raises(StopAsyncIteration):
        await anext(results)


@pytest.mark.parametrize("cancel", ["asyncio", "anyio"])
async def test_map_closing_waits_and_lets_a_cancellation_go_on(
    client: AsyncKimi, server: Server, tmp_path: Path, cancel: str
):
    """
    Closing while cancelled waits for the run's end, which holds the journal, and does not swallow the cancellation.
    """
    server.wait = 5
    path = tmp_path / "out.jsonl"
    passed_on: list[str] = []

    async def leave() -> None:
        results = run(client, texts(20), journal=path, concurrency=4)
        with anyio.CancelScope() as scope:
            async with results:
                asking = asyncio.ensure_future(anext(results))
                await asyncio.sleep(1)
                assert 4 == server.now
                asking.cancel()
                if cancel == "anyio":
                    scope.cancel()
                else:
                    task = asyncio.current_task()
                    assert task is not None
                    asyncio.get_running_loop().call_soon(task.cancel)
            passed_on.append("swallowed")

    left = (await asyncio.gather(asyncio.ensure_future(leave()), return_exceptions=True))[0]

    assert (cancel == "asyncio") == isinstance(left, asyncio.CancelledError)
    assert [] == passed_on
    assert 0 == server.now
    Journal.open(path).close()  # nobody holds it


async def test_map_closed_at_any_moment_gives_its_journal_back(client: AsyncKimi, tmp_path: Path):
    """
    Wherever the run is when it is closed and cancelled at once, its journal is unlocked afterwards.
    """
    path = tmp_path / "out.jsonl"
    for turns in range(60):
        results = run(client, texts(5), journal=path)
        asking = asyncio.ensure_future(anext(results))
        for _ in range(turns):
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(results.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        asking.cancel()
        await asyncio.gather(closing, asking, return_exceptions=True)
        Journal.open(path).close()


async def test_map_cancelled_consumer_cancels_the_run(client: AsyncKimi, server: Server):
    """
    Cancelling the task that iterates ends the run with it.
    """
    server.wait = 1000.0

    async def consume() -> None:
        async with run(client, texts(100)) as results:
            async for _ in results:
                pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(1)
    assert 8 == server.now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 == server.now


async def test_map_error_is_the_items_own(client: AsyncKimi, server: Server):
    """
    A request that fails gives its error, with the class that tells why; the others are answered.
    """
    server.refuse = {"q2": "content_filter", "q7": "server_error"}
    found = {r.index: r async for r in run(client, texts(10))}

    assert [2, 7] == [index for index, result in sorted(found.items()) if not result.ok]
    assert isinstance(found[2].error, BadRequestError)
    assert isinstance(found[7].error, InternalServerError)
    assert (None, None) == (found[2].text, found[2].completion)
    with pytest.raises(BadRequestError):
        found[2].unwrap()


async def test_map_counts_attempts(server: Server):
    """
    Retries are the client's; the result tells how many attempts it took.
    """
    server.refuse = {"q1": "server_error", "q2": "server_error"}

    async def heal(request: Request, send: Any) -> Any:
        response = await send(request)
        # Only behind its own reply: another's could come while the second attempt is under way, and end it well.
        if said(request) == "q1" and server.asked["q1"] > 1:
            server.refuse.pop("q1", None)
        return response

    async with AsyncKimi(
        api_key="sk-x", transport=MemoryTransport(server), limits="tier5", max_retries=2, middleware=[heal]
    ) as client:
        found = {result.index: result.attempts async for result in run(client, texts(3))}

    assert {0: 1, 1: 3, 2: 3} == found


def endless_list() -> list[Any]:
    """
    A message that holds itself.
    """
    message: dict[str, Any] = {"role": "user", "content": "x"}
    message["self"] = message
    return [message]


class Broken(Mapping[str, Any]):
    """
    A mapping of the caller's that cannot be read.
    """

    def __getitem__(self, key: str) -> Any:
        raise OSError("broken")

    def __iter__(self) -> Iterator[str]:
        raise OSError("broken")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("item", "said_wrong"),
    [
        ({"nothing": 1}, "neither messages nor body"),
        (5, "must be a mapping, a string"),
        ((1, 2), "a tuple must be (custom_id, request)"),
        (b"{", "not a request line"),
        ({"custom_id": "a", "url": "/v1/embeddings", "body": {"messages": []}}, "url must be"),
        ({"body": 3}, "body must be a mapping"),
        ({"custom_id": 3, "messages": []}, "custom_id must be a string"),
        ({"messages": [{"role": "user", "content": "x"}], "temperatur": 1}, "did you mean 'temperature'?"),
        ({"messages": []}, "messages is empty"),
        ("\ud800", "not valid Unicode"),
        (("id \ud800", "x"), "not valid Unicode"),
        ({"messages": [{"role": "user", "content": "x", "extra": object()}]}, "cannot be encoded"),
        ({"messages": endless_list()}, ""),
        (Broken(), "cannot be sent: OSError: broken"),
    ],
)
@pytest.mark.parametrize("journaled", [False, True])
async def test_map_impossible_item_is_reported_not_sent(
    client: AsyncKimi, server: Server, item: Any, said_wrong: str, tmp_path: Path, journaled: bool
):
    """
    What is no request becomes a result with the reason; the others go on, with a journal as without.
    """
    journal = tmp_path / "out.jsonl" if journaled else None
    found = {r.index: r async for r in run(client, ["q0", item, "q2"], journal=journal)}

    assert [True, False, True] == [found[n].ok for n in range(3)]
    assert said_wrong in str(found[1].error)
    assert 2 == len(server.asked)


async def test_map_duplicate_id_is_sent_once(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    The second request under a custom_id is refused here, and does not touch the line of the first.
    """
    path = tmp_path / "out.jsonl"
    items = [("a", "q0"), ("b", "q1"), ("a", "q2")]
    found = {r.index: r async for r in run(client, items, journal=path)}

    assert "custom_id 'a' is also that of requests[0]" in str(found[2].error)
    assert ["a", "b"] == sorted(line["custom_id"] for line in lines_of(path))
    assert {"q0", "q1"} == set(server.asked)


def test_request_of_every_form():
    """
    All forms of a request come to the same: an id, if it has one, and a body.
    """
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "m", "messages": messages}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}

    assert (None, {"messages": messages}) == request_of("hi", 0) == request_of(messages, 0)
    assert (None, body) == request_of(body, 0)
    assert (
        ("a", body)
        == request_of(line, 0)
        == request_of({"custom_id": "a", **body}, 0)
        == request_of(("a", body), 0)
    )
    name, raw = request_of(json.dumps(line).encode(), 0)
    assert ("a", body) == (name, json.loads(bytes(raw)))


async def test_map_defaults_fill_only_what_is_missing(client: AsyncKimi, server: Server):
    """
    The model and other fields are added to requests that lack them.
    """
    seen: list[dict[str, Any]] = []

    async def look(request: Request, send: Any) -> Any:
        seen.append(request.json())
        return await send(request)

    messages = [{"role": "user", "content": "x"}]
    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(server), middleware=[look]) as client:
        items: list[Any] = [
            {"messages": messages},
            {"messages": messages, "model": "own", "max_completion_tokens": 1},
            json.dumps({"custom_id": "a", "body": {"messages": messages}}).encode(),
        ]
        async for result in run(client, items, defaults={"max_completion_tokens": 9}, concurrency=1):
            result.unwrap()

    assert [("kimi-k2.6", 9), ("own", 1), ("kimi-k2.6", 9)] == [
        (body["model"], body["max_completion_tokens"]) for body in seen
    ]


async def test_map_async_iterable_and_failing_source(client: AsyncKimi, server: Server):
    """
    An async source is read one item at a time; its failure is raised after the results of what it had given.
    """

    async def source() -> AsyncIterator[str]:
        for text in texts(20):
            await asyncio.sleep(0.5)
            yield text
        raise OSError("the database went away")

    found: list[int] = []
    with pytest.raises(OSError, match="the database went away"):
        async for result in run(client, source()):
            found.append(result.index)

    assert list(range(20)) == sorted(found)


async def test_map_streams_are_put_together(tmp_path: Path):
    """
    Streamed answers arrive as whole completions, with usage; each chunk can be watched; a broken one is the item's error.
    """
    path = tmp_path / "out.jsonl"
    chunks: Counter[str] = Counter()

    def watch(custom_id: str, chunk: Any) -> None:
        chunks[custom_id] += 1

    async with (
        KimiSimulator(words=(3, 6)) as simulator,
        AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key) as client,
        run(client, texts(6), stream=True, on_chunk=watch, journal=path) as results,
    ):
        found = [result async for result in results]
        tokens = results.progress.tokens

    assert all(result.ok and result.text and result.usage for result in found)
    assert 6 == len(chunks)
    assert tokens == sum(r.usage.total_tokens for r in found if r.usage)
    assert sorted(r.text or "" for r in found) == sorted(
        line["response"]["body"]["choices"][0]["message"]["content"] for line in lines_of(path)
    )


async def test_map_cut_stream_is_an_error(client: AsyncKimi):
    """
    A stream without its end is a failure, never a short answer.
    """

    async def handler(request: Request) -> Reply:
        chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "half"}}]}
        return Reply(
            200, {"Content-Type": "text/event-stream"}, [b"data: " + json.dumps(chunk).encode() + b"\n\n"]
        )

    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(handler), max_retries=0) as client:
        [result] = [result async for result in run(client, ["q"], stream=True)]

    assert isinstance(result.error, IncompleteStreamError)


class Breaks:
    """
    Streams answers of two pieces, and breaks the first streams off after one of them.
    """

    def __init__(self, times: int) -> None:
        self.times = times
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, request: Request) -> Reply:
        body = request.json()
        self.bodies.append(body)
        prefix = body["messages"][-1].get("content") if body["messages"][-1].get("partial") else ""
        pieces = ["half", " whole"] if not prefix else [" whole"]
        broken = len(self.bodies) <= self.times
        if broken:
            pieces = pieces[:1]
        chunks: list[dict[str, Any]] = [
            {"id": "c", "choices": [{"index": 0, "delta": {"content": each}}]} for each in pieces
        ]
        if not broken:
            chunks.append({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        lines = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks]
        return Reply(200, {"Content-Type": "text/event-stream"}, lines)


@pytest.mark.parametrize("resume", [False, True])
async def test_map_stream_that_breaks_off_is_repeated_unseen(resume: bool, tmp_path: Path):
    """
    An answer is put together before anybody sees it, so a break costs an attempt and not the answer. Who watches is told.
    """
    breaks = 1 if resume else 2
    host = Breaks(breaks)
    seen: list[Any] = []

    def watch(custom_id: str, chunk: Any) -> None:
        if isinstance(chunk, AnswerBegunAnew):
            assert "stream" == chunk.cause.cause
            seen.append(chunk.attempt)
        seen.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)

    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(host), max_retries=2) as client:
        options = {"stream": True, "on_chunk": watch, "resume": resume, "journal": tmp_path / "j"}
        [result] = [result async for result in run(client, ["q"], **options)]

    assert ("half whole", breaks + 1) == (result.text, result.attempts)
    [line] = lines_of(tmp_path / "j")
    assert breaks + 1 == line["kimi_async"]["attempts"]
    if resume:
        assert ["half", " whole"] == seen
        assert [None, "half"] == [
            each["messages"][-1]["content"] if "partial" in each["messages"][-1] else None
            for each in host.bodies
        ]
    else:
        assert ["half", 2, "half", 3, "half", " whole"] == seen
        assert host.bodies[0] == host.bodies[1] == host.bodies[2]


async def test_map_stream_that_always_breaks_off_tells_each_attempt():
    """
    After `max_retries` it is the item's error, with every attempt.
    """
    host = Breaks(99)
    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(host), max_retries=3) as client:
        [result] = [result async for result in run(client, ["q"], stream=True)]

    assert isinstance(result.error, IncompleteStreamError)
    assert 4 == result.attempts == len(host.bodies)
    assert ["stream"] * 3 == [each.cause for each in result.error.attempts]


# Stopping


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"token_budget": 150}, "the budget of 150 tokens is spent"),
        ({"cost_budget": 0.0025, "price": TokenPrice(input=10, output=30)}, "the budget of 0.0025 is spent"),
        (
            {"cost_budget": 0.0025, "price": {"kimi-k2.6": TokenPrice(10, 30)}},
            "the budget of 0.0025 is spent",
        ),
        ({"cost_budget": 5, "price": lambda completion: 0.5}, "the budget of 5 is spent"),
    ],
)
async def test_map_budget_stops_the_run(
    client: AsyncKimi, server: Server, options: dict[str, Any], reason: str
):
    """
    Past a budget nothing more is sent; what was under way is handed out, and the error says how far it got.
    """
    found: list[Any] = []
    with pytest.raises(MapStoppedError, match=reason) as caught:
        async for result in run(client, texts(1000), concurrency=4, **options):
            found.append(result)

    assert 10 <= len(found) <= 13
    assert len(found) == caught.value.progress.done == sum(server.asked.values())


async def test_map_stop_may_be_silent(client: AsyncKimi):
    """
    With on_stop="return" the iteration just ends, and `stopped` says why.
    """
    async with run(client, texts(1000), token_budget=150, on_stop="return") as results:
        async for _ in results:
            pass
        assert results.stopped == "the budget of 150 tokens is spent"


async def test_map_budget_spent_by_the_last_item_is_no_stop(client: AsyncKimi):
    """
    A run that reached the end of its input was not stopped.
    """
    async with run(client, texts(10), token_budget=150, concurrency=1) as results:
        assert 10 == len([result async for result in results])
        assert results.stopped is None


async def test_map_error_rate_stops_the_run(client: AsyncKimi, server: Server):
    """
    When too many of the last requests failed the rest is not burnt.
    """
    server.refuse = dict.fromkeys(texts(1000)[50:], "server_error")
    with pytest.raises(
        MapStoppedError, match="of the last 20 requests failed, most of them with InternalServerError"
    ):
        async for _ in run(client, texts(1000), max_error_rate=0.5, error_window=20, concurrency=2):
            pass

    assert 60 <= len(server.asked) <= 64


async def test_map_wrong_key_stops_at_once(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    An error that every request would meet stops the run; none of them counts as answered.
    """
    path = tmp_path / "out.jsonl"
    server.refuse = dict.fromkeys(texts(1000)[5:], "invalid_authentication")
    found: list[Any] = []
    with pytest.raises(MapStoppedError, match="AuthenticationError"):
        async for result in run(client, texts(1000), concurrency=2, journal=path):
            found.append(result)

    assert len(server.asked) <= 7
    assert isinstance(found[-1].error, AuthenticationError)
    assert 5 == len(lines_of(path))


async def test_map_deadline_gives_up_what_is_under_way(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    At the deadline the run ends; what was not finished is not in the journal.
    """
    path = tmp_path / "out.jsonl"
    server.wait = lambda text: 1.0 if int(text[1:]) < 20 else 1000.0
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(MapStoppedError, match="the deadline of 60 s has passed"):
        async for _ in run(client, texts(100), deadline=60, journal=path):
            pass

    assert 60.0 == pytest.approx(loop.time() - began, abs=1)
    assert 20 == len(lines_of(path))


async def test_map_stop_finishes_what_is_under_way(client: AsyncKimi, server: Server):
    """
    Asked to stop (Ctrl-C, say), it sends nothing more and hands out the rest.
    """
    server.wait = 1.0
    found = 0
    with pytest.raises(MapStoppedError, match="stopped by the caller"):
        async with run(client, texts(100), concurrency=5) as results:
            async for _ in results:
                found += 1
                results.stop()

    assert 5 <= found == len(server.asked) <= 10


async def test_map_stop_does_not_wait_for_a_silent_source(client: AsyncKimi):
    """
    A source that has nothing to give for hours does not hold up a stop.
    """
    closed = False

    async def queue() -> AsyncIterator[str]:
        nonlocal closed
        try:
            yield "q0"
            await asyncio.sleep(10_000)
            yield "q1"
        finally:
            closed = True

    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(MapStoppedError):
        async with run(client, queue()) as results:
            async for _ in results:
                loop.call_later(5, results.stop)

    assert 5.0 == pytest.approx(loop.time() - began, abs=1)
    assert closed


async def test_map_failing_on_progress_ends_nothing(
    client: AsyncKimi, server: Server, caplog: pytest.LogCaptureFixture
):
    """
    What on_progress raises is logged, once, as in batches and uploads: who only looks on loses nobody an answer.
    """
    server.wait = 1.0

    def broken(progress: MapProgress) -> None:
        raise ZeroDivisionError("my hook")

    found = [result async for result in run(client, texts(100), on_progress=broken)]

    assert 100 == len(found)
    assert 1 == caplog.text.count("on_progress raised")


@pytest.mark.parametrize("name", ["price", "on_chunk"])
async def test_map_failing_function_costs_no_answer(
    client: AsyncKimi, server: Server, tmp_path: Path, name: str
):
    """
    Whichever function of the caller's raises, the answers that were paid for are in the journal, and the error is told.
    """

    def broken(*_: Any) -> float:
        raise ZeroDivisionError("my function")

    options: dict[str, Any] = {name: broken}
    if name == "on_chunk":
        options["stream"] = True
        transport = MemoryTransport(streams)
        client = AsyncKimi(api_key="sk-x", transport=transport, limits="tier5")
    with pytest.raises(ZeroDivisionError, match="my function"):
        async for result in run(client, texts(10), journal=tmp_path / "j", **options):
            assert result.ok
    assert len(lines_of(tmp_path / "j")) > 0
    if name == "on_chunk":
        await client.close()


async def streams(request: Request) -> Reply:
    """
    One streamed answer.
    """
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
    }
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    return Reply(200, {"Content-Type": "text/event-stream"}, body)


async def test_map_shared_by_several_consumers(client: AsyncKimi, server: Server):
    """
    Several tasks may take from one run; each result goes to one of them.
    """
    server.wait = lambda text: random.Random(text).random()
    results = run(client, texts(50))
    found: list[int] = []

    async def consume() -> None:
        async for result in results:
            found.append(result.index)

    await asyncio.gather(*(consume() for _ in range(5)))

    assert list(range(50)) == sorted(found)


async def test_map_structured_results(tmp_path: Path):
    """
    With a type for response_format each result has its object; one that does not fit is the item's error.
    """

    class City(msgspec.Struct):
        name: str
        people: int

    replies = {"q0": '{"name": "Rome", "people": 3}', "q1": "no JSON", "q2": '{"name": "Oslo", "people": 1}'}

    async def handler(request: Request) -> Reply:
        assert "json_schema" == request.json()["response_format"]["type"]
        return Reply(200, JSON, json.dumps(completion(replies[said(request)])))

    path = tmp_path / "out.jsonl"
    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(handler)) as client:
        found = {r.index: r async for r in run(client, texts(3), response_format=City, journal=path)}
        again = [r async for r in run(client, texts(3), response_format=City, journal=path, replay=True)]

    assert [City("Rome", 3), None, City("Oslo", 1)] == [found[n].parsed for n in range(3)]
    assert not found[1].ok
    assert City("Rome", 3) == next(r.parsed for r in again if r.index == 0)


async def test_map_progress_adds_up(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    Progress is told at intervals and at the end, with counts, rates, costs and what is left.
    """
    server.wait = 1.0
    server.refuse = {"q3": "content_filter"}
    seen: list[MapProgress] = []
    path = tmp_path / "out.jsonl"
    async for _ in run(client, texts(10), journal=path):
        pass
    options = {"concurrency": 10, "price": TokenPrice(1, 1), "on_progress": seen.append, "journal": path}
    async for _ in run(client, texts(110), **options):
        pass
    last = seen[-1]

    assert (100, 100, 0, 10, 110, 0) == (
        last.done,
        last.ok,
        last.failed,
        last.skipped,
        last.total,
        last.in_flight,
    )
    assert (1000, 500, 1500) == (last.prompt_tokens, last.completion_tokens, last.tokens)
    assert 0.0015 == pytest.approx(last.cost or 0)
    assert 10.0 == pytest.approx(last.rate, rel=0.2)
    assert 150.0 == pytest.approx(last.token_rate, rel=0.2)
    middle = seen[len(seen) // 2]
    assert (110 - middle.done - 10) / 10 == pytest.approx(middle.eta or 0, rel=0.3)
    assert all(a.done <= b.done for a, b in itertools.pairwise(seen))


# The journal


async def test_map_line_is_on_disk_before_its_result(client: AsyncKimi, tmp_path: Path):
    """
    Whoever has seen a result finds its line in the file, as the Batch API would have written it.
    """
    path = tmp_path / "out.jsonl"
    async for result in run(client, texts(50), journal=path):
        line = next(line for line in lines_of(path) if line["custom_id"] == result.custom_id)
        assert result.text == line["response"]["body"]["choices"][0]["message"]["content"]
        assert (200, None) == (line["response"]["status_code"], line["error"])
    with ResultFiles([path]) as results:
        assert (50, 0) == (results.ok, results.failed)


async def test_map_second_run_sends_only_what_is_missing(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    Answered requests are skipped; passing failures are sent again, final ones are not; the file has one line an id.
    """
    path = tmp_path / "out.jsonl"
    server.refuse = {"q1": "content_filter", "q2": "server_error"}
    async with run(client, texts(10), journal=path) as first:
        assert 10 == len([result async for result in first])
    server.refuse = {}
    async with run(client, texts(15), journal=path) as second:
        found = [result.index async for result in second]
        skipped, mended = second.progress.skipped, second.mended.redo

    assert [2, 10, 11, 12, 13, 14] == sorted(found)
    assert (9, 1) == (skipped, mended)
    assert {**dict.fromkeys(texts(15), 1), "q2": 2} == server.asked
    assert 15 == len({line["custom_id"] for line in lines_of(path)}) == len(lines_of(path))


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_replay_hands_out_the_old_results_too(
    client: AsyncKimi, server: Server, tmp_path: Path, ordered: bool
):
    """
    With replay=True the caller sees every result, wherever it comes from, in order if asked.
    """
    path = tmp_path / "out.jsonl"
    server.refuse = {"q1": "content_filter"}
    async for _ in run(client, texts(10), journal=path):
        pass
    found = [r async for r in run(client, texts(20), journal=path, replay=True, ordered=ordered)]

    assert list(range(20)) == [r.index for r in (found if ordered else sorted(found, key=lambda r: r.index))]
    assert {"journal": 10, "live": 10} == Counter(r.source for r in found)
    replayed = next(r for r in found if r.index == 1)
    assert isinstance(replayed.error, BadRequestError)
    assert "high risk" in str(replayed.error)
    assert all(r.text == f"re: q{r.index}" for r in found if r.index != 1)


async def test_map_changed_request_is_noticed(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    Another request under an answered custom_id ends the run, is sent again, or keeps the old answer, as asked.
    """
    path = tmp_path / "out.jsonl"
    async for _ in run(client, [("a", "q0"), ("b", "q1")], journal=path):
        pass
    changed = [("a", "q0"), ("b", "other"), ("c", "q2")]
    with pytest.raises(JournalMismatchError, match="another request under custom_id 'b'"):
        async for _ in run(client, changed, journal=path, concurrency=1):
            pass
    async for _ in run(client, changed, journal=path, on_changed="keep"):
        pass
    assert 0 == server.asked["other"]
    resent = [r.text async for r in run(client, changed, journal=path, on_changed="resend")]

    assert ["re: other"] == resent
    assert ["a", "b", "c"] == sorted(line["custom_id"] for line in lines_of(path))
    with ResultFiles([path]) as results:
        assert b"re: other" in (results.line("b") or b"")
    assert {"q0": 1, "q1": 1, "q2": 1, "other": 1} == server.asked


async def test_map_same_request_written_otherwise_is_the_same(
    client: AsyncKimi, server: Server, tmp_path: Path
):
    """
    Order of keys, defaults or streaming do not make a request another one.
    """
    path = tmp_path / "out.jsonl"
    messages = [{"role": "user", "content": "q"}]
    async for _ in run(client, [("a", {"messages": messages, "max_completion_tokens": 5})], journal=path):
        pass
    line = {
        "body": {"max_completion_tokens": 5, "stream": True, "model": "kimi-k2.6", "messages": messages},
        "custom_id": "a",
    }
    async with run(client, [json.dumps(line).encode()], journal=path, model=None) as again:
        assert [] == [result async for result in again]
        assert 1 == again.progress.skipped


async def test_map_two_runs_on_one_journal_are_refused(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    The second is told, and sends nothing; the first goes on.
    """
    path = tmp_path / "out.jsonl"
    async with run(client, texts(10), journal=path) as first:
        await anext(first)
        sent = sum(server.asked.values())
        with pytest.raises(JournalLockedError):
            await anext(run(client, ["other"], journal=path))
        assert 9 == len([result async for result in first])
        assert 0 == server.asked["other"]
        assert sent <= 10
    async with run(client, texts(11), journal=path) as second:
        assert 1 == len([result async for result in second])


async def test_map_finished_work_is_kept_when_closed(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    Results that had arrived when the run was closed are in the journal, though nobody took them.
    """
    path = tmp_path / "out.jsonl"
    server.wait = lambda text: 0.1 if int(text[1:]) < 5 else 1000.0
    async with run(client, texts(100), journal=path, concurrency=8) as results:
        await anext(results)
        await asyncio.sleep(1)

    assert 5 == len(lines_of(path))


async def test_map_full_disk_loses_nothing_journaled(
    client: AsyncKimi, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    A full disk stops the run and says so; every line written before is whole, and the next run sends only the rest.
    """
    path = tmp_path / "out.jsonl"
    real, room = os.write, 4000

    def write(fd: int, data: Any) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, data[:room])
        room -= done
        return done

    monkeypatch.setattr(journal_module.os, "write", write)
    seen: list[int] = []
    with pytest.raises(JournalWriteError, match=r"the disk is full.*Make room and run again"):
        async for result in run(client, texts(100), journal=path, concurrency=2):
            seen.append(result.index)
    monkeypatch.undo()
    kept = [line["custom_id"] for line in lines_of(path)]

    assert 0 < len(kept) < 20
    assert {f"request-{index + 1}" for index in seen} <= set(kept)
    rest = [r.index async for r in run(client, texts(100), journal=path)]
    assert 100 == len(rest) + len(kept) == len(lines_of(path))


async def test_map_file_is_checked_before_anything_is_sent(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    A path is read once to the end first: every bad line is named, and nothing is sent.
    """
    path = tmp_path / "in.jsonl"
    good = {"custom_id": "a", "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}}
    path.write_bytes(b"\n".join([json.dumps(good).encode(), b"{", json.dumps(good).encode()]))
    with pytest.raises(InvalidLinesError, match="2 bad lines") as caught:
        await anext(run(client, path))

    assert [(2, "json"), (3, "duplicate")] == [(p.line, p.kind) for p in caught.value.problems]
    assert 0 == len(server.asked)


async def test_map_file_long_line_only_where_allowed(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    A line of ten megabytes is taken for an accident, unless the caller says that lines are that long.
    """
    path = tmp_path / "in.jsonl"
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 10_000_000}]}
    path.write_text(json.dumps({"custom_id": "a", "body": body}))
    with pytest.raises(InvalidLinesError, match="line 1: longer than 8,388,608 bytes"):
        await anext(run(client, path))
    assert 0 == len(server.asked)
    assert [True] == [result.ok async for result in run(client, path, model=None, max_line_size=20_000_000)]


async def test_map_file_runs_as_the_batch_would(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    The Batch API's own file, however an editor left it, is mapped line by line.
    """
    path = tmp_path / "in.jsonl"
    lines = [
        json.dumps(
            {"custom_id": f"r{n}", "body": {"model": "m", "messages": [{"role": "user", "content": f"q{n}"}]}}
        )
        for n in range(20)
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n")
    async with run(client, str(path), model=None, repair=True) as results:
        found = {result.custom_id: result.text async for result in results}
        assert 20 == results.progress.total

    assert {f"r{n}": f"re: q{n}" for n in range(20)} == found


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_map_killed_and_resumed_is_exact(tmp_path: Path, durability: str):
    """
    Killed with SIGKILL at random moments and started again: every id once, no line torn, and nothing that was answered is
    sent again but what was in flight at a kill.
    """
    count, concurrency, kills = 300, 16, 2
    path = tmp_path / "out.jsonl"
    dice = random.Random(durability)
    with KimiSimulator(words=(1, 3), keep_requests=100_000).in_thread() as simulator:
        command = [
            sys.executable,
            str(Path(__file__).parents[1] / "support" / "bulk_victim.py"),
            simulator.base_url,
            simulator.api_key,
            str(path),
            str(count),
            str(concurrency),
            durability,
        ]
        for _ in range(kills):
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            goal = simulator.stats.requests + dice.randrange(20, 120)
            while simulator.stats.requests < goal and process.poll() is None:
                # A pipe would tell us more, and change what is killed; the file grows while we look at it.
                os.sched_yield()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            # What is in the file and whole is safe.
            complete = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            assert all(json.loads(line)["custom_id"] for line in complete)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        asked = Counter(
            json.loads(request.body)["messages"][0]["content"]
            for request in simulator.requests
            if request.method == "POST"
        )
    ids = [line["custom_id"] for line in lines_of(path)]

    assert b"done\n" == done.stdout
    assert {f"r{n}" for n in range(count)} == set(ids)
    assert count == len(ids)
    assert sum(asked.values()) - count <= kills * concurrency


async def test_map_concurrency_follows_the_limiter(server: Server):
    """
    Without a number, as many are under way as the client's limits allow, and the rest is not pulled.
    """
    server.wait = 1.0
    async with (
        AsyncKimi(api_key="sk-x", transport=MemoryTransport(server), limits="tier1") as client,
        run(client, texts(60), concurrency=None) as results,
    ):
        assert 60 == len([result async for result in results])
        assert 15 < results.progress.concurrency <= 20
    assert 15 == server.peak


def test_map_options_are_checked(client_without_loop: AsyncKimi):
    """
    Impossible options are an error at once, and a misspelt one names its neighbour.
    """
    for options in (
        {"concurrency": 0},
        {"cost_budget": 1.0},
        {"max_error_rate": 2},
        {"replay": True},
        {"window": 0},
    ):
        with pytest.raises(ConfigurationError):
            client_without_loop.map([], **options)
    with pytest.raises(TypeError, match="did you mean 'concurrency'"):
        client_without_loop.map([], concurency=3)


@pytest.fixture
def client_without_loop() -> AsyncKimi:
    return AsyncKimi(api_key="sk-x", transport=MemoryTransport(Server()))


async def test_map_journal_of_a_batch_is_believed(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    Output downloaded from a batch serves as a journal: one file format, two engines.
    """
    path = tmp_path / "out.jsonl"
    line = {
        "id": "a",
        "custom_id": "a",
        "response": {"status_code": 200, "body": completion("from the batch")},
        "error": None,
    }
    path.write_text(json.dumps(line) + "\n")
    found = {
        r.custom_id: r.text async for r in run(client, [("a", "q0"), ("b", "q1")], journal=path, replay=True)
    }

    assert {"a": "from the batch", "b": "re: q1"} == found
    assert {"q1"} == set(server.asked)


async def test_map_half_an_emoji_stays_readable(client: AsyncKimi, server: Server, tmp_path: Path):
    """
    A reply with half a surrogate pair, as servers send them, gives a journal that can be read again.
    """
    path = tmp_path / "out.jsonl"

    async def handler(request: Request) -> Reply:
        return Reply(200, JSON, json.dumps(completion("X")).replace('"X"', '"\\ud83c!"'))

    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(handler)) as client:
        [result] = [result async for result in run(client, ["q"], journal=path)]
    with Journal.open(path) as journal:
        assert (1, False) == (journal.ok, bool(journal.mended))
    assert "\ufffd!" == result.text


async def test_map_pretty_printed_reply_is_one_line(tmp_path: Path):
    """
    A gateway that indents its JSON does not break the journal's lines, and unknown fields are kept.
    """
    path = tmp_path / "out.jsonl"

    async def handler(request: Request) -> Reply:
        return Reply(200, JSON, json.dumps(completion("x", novelty={"a": [1]}), indent=2))

    async with AsyncKimi(api_key="sk-x", transport=MemoryTransport(handler)) as client:
        async for result in run(client, ["q"], journal=path):
            result.unwrap()
    [line] = lines_of(path)

    assert {"a": [1]} == line["response"]["body"]["novelty"]


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("openrouter", "reasoning"),
        ("aimlapi", "reasoning"),
        ("vllm", "reasoning"),
        ("moonshot", "reasoning_content"),
    ],
)
async def test_map_sends_reasoning_under_the_hosts_own_name(
    tmp_path: Path, provider: str, expected: str, from_file: bool
):
    """
    `map` builds its requests as `create` does: earlier reasoning goes back under the name that the host reads.
    """
    sent: list[dict[str, Any]] = []

    async def answer(request: Request) -> Reply:
        sent.append(request.json())
        return Reply(200, JSON, json.dumps(completion("ok")))

    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "because"},
        {"role": "user", "content": "c"},
    ]
    line = {"custom_id": "1", "body": {"model": "kimi-k3", "messages": messages}}
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({**line, "method": "POST", "url": "/v1/chat/completions"}) + "\n")
    async with (
        AsyncKimi(api_key="sk-test", provider=provider, transport=MemoryTransport(answer)) as client,
        client.map(source if from_file else [line]) as results,
    ):
        assert [None] == [result.error async for result in results]

    assert "because" == sent[0]["messages"][1][expected]
