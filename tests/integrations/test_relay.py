"""
A stream that is handed on to a browser: over real sockets, by each web framework.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from kimi_async import (
    APIConnectionError,
    APIStatusError,
    AsyncKimi,
    ConfigurationError,
    IncompleteStreamError,
    KimiError,
    RateLimitReachedError,
    RateLimits,
    RateLimitWaitError,
    ResumePolicy,
)
from kimi_async.codec.faults import error_from
from kimi_async.errors import APITimeoutError, CircuitOpenError
from kimi_async.integrations import aiohttp as for_aiohttp
from kimi_async.integrations.relaying import COMMENT, Relay, RelayEnd, refusal_of
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

starlette = pytest.importorskip("starlette", reason="starlette is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from starlette.applications import Starlette  # noqa: E402
from starlette.background import BackgroundTask  # noqa: E402
from starlette.routing import Route  # noqa: E402

from kimi_async.integrations import starlette as for_starlette  # noqa: E402

QUESTION = [{"role": "user", "content": "Count."}]
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
PATIENCE = 10.0

Answers = Callable[[], Any]
"""What makes the response to a request."""


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def event(delta: Any, finish: Any = None, **more: Any) -> bytes:
    return data({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


ROLE = event({"role": "assistant", "content": ""})
END = event({}, "stop", usage=USAGE) + DONE


class Model:
    """
    The host: `say` is the body of its answer, piece by piece; after the last it is silent where `hangs`.
    """

    def __init__(self) -> None:
        self.said: list[bytes] = [ROLE, event({"content": "a"}), event({"content": "b"}), END]
        self.hangs = False
        self.status = 200
        self.headers: dict[str, str] = {}
        self.slow_to_begin = False
        self.asked = asyncio.Event()
        self.stopped = asyncio.Event()
        self.transport = MemoryTransport(self.serve)
        self.client = AsyncKimi(
            api_key="sk-test", transport=self.transport, max_retries=0, limits=RateLimits(concurrency=1)
        )

    async def serve(self, _: Request) -> Reply:
        self.asked.set()
        if self.slow_to_begin:
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
        if self.status != 200:
            return Reply(status=self.status, headers=self.headers, body=b"".join(self.said))
        return Reply(headers={"content-type": "text/event-stream"}, body=self.body())

    async def body(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.said:
                yield piece
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.stopped.set()

    def create(self, **options: Any) -> Awaitable[Any]:
        return self.client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True, **options)


@asynccontextmanager
async def serving_starlette(answer: Answers) -> AsyncIterator[str]:
    async def endpoint(_: Any) -> Any:
        return answer()

    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    # Who connects before the server runs waits in the socket's queue.
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def serving_aiohttp(answer: Answers) -> AsyncIterator[str]:
    async def endpoint(_: web.Request) -> Any:
        return answer()

    app = web.Application()
    app.router.add_post("/", endpoint)
    app.router.add_get("/", endpoint)  # and HEAD
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


class Framework:
    def __init__(self, name: str, serving: Any, response: Any) -> None:
        self.name = name
        self.serving = serving
        self.response = response


@pytest.fixture(params=["starlette", "aiohttp"])
def on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Framework:
    monkeypatch.setattr(for_aiohttp, "LOOK", 0.001)
    if request.param == "starlette":
        return Framework("starlette", serving_starlette, for_starlette.EventStreamResponse)
    return Framework("aiohttp", serving_aiohttp, for_aiohttp.EventStreamResponse)


async def asked(address: str) -> tuple[int, Any, bytes]:
    """
    Status, headers and body that a browser gets.
    """
    async with aiohttp.ClientSession() as session, session.post(address) as response:
        return response.status, response.headers, await response.read()


async def test_relay_hands_on_what_came(on: Framework) -> None:
    """
    To the byte, under the headers of an event stream; afterwards its usage and end are known.
    """
    model = Model()
    ends: list[RelayEnd] = []
    async with on.serving(lambda: on.response(model.create(), on_end=ends.append)) as address:
        status, headers, body = await asked(address)

    assert (200, b"".join(model.said)) == (status, body)
    assert "text/event-stream; charset=utf-8" == headers["content-type"]
    assert ("no-cache", "no") == (headers["cache-control"], headers["x-accel-buffering"])
    [end] = ends
    assert (None, False, "stop") == (end.error, end.left, end.finish_reason)
    assert USAGE == end.usage.to_dict()
    assert "ab" == end.completion.choices[0].message.content
    assert 0 == model.transport.open


async def test_relay_awaits_a_coroutine_function(on: Framework) -> None:
    """
    `on_end` may be one.
    """
    model = Model()
    ends: list[RelayEnd] = []

    async def note(end: RelayEnd) -> None:
        await asyncio.sleep(0)
        ends.append(end)

    async with on.serving(lambda: on.response(model.create(), on_end=note)) as address:
        _, _, body = await asked(address)

    assert b"".join(model.said) == body
    assert "ab" == ends[0].completion.choices[0].message.content


async def test_relay_takes_an_open_stream(on: Framework) -> None:
    """
    A stream that the handler opened itself is handed on as well.
    """
    model = Model()
    stream = await model.create()
    async with on.serving(lambda: on.response(stream)) as address:
        _, _, body = await asked(address)

    assert b"".join(model.said) == body


@pytest.mark.parametrize("options", [{"resume": ResumePolicy()}, {"leaked_tools": "mend"}])
async def test_relay_of_a_changed_stream_is_encoded_again(on: Framework, options: Any) -> None:
    """
    What is continued or mended on the way cannot go on as it came; it goes on all the same.
    """
    model = Model()
    ends: list[RelayEnd] = []
    async with on.serving(lambda: on.response(model.create(**options), on_end=ends.append)) as address:
        _, _, body = await asked(address)
    *chunks, done = body.removesuffix(b"\n\n").split(b"\n\n")
    deltas = [json.loads(each.removeprefix(b"data: "))["choices"][0]["delta"] for each in chunks]

    assert "ab" == "".join(delta.get("content") or "" for delta in deltas)
    assert b"data: [DONE]" == done
    assert "ab" == ends[0].completion.choices[0].message.content


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (
            400,
            {"message": "The prompt was rejected", "type": "content_filter"},
            (400, None, {"message": "The prompt was rejected", "type": "content_filter", "code": 400}),
        ),
        (
            429,
            {"message": "org-1 max RPM", "type": "rate_limit_reached_error"},
            (
                503,
                "7",
                {"message": "the model is busy; try again later", "type": "overloaded_error", "code": 503},
            ),
        ),
        (
            401,
            {"message": "Invalid key", "type": "invalid_authentication_error"},
            (
                502,
                None,
                {"message": "the model cannot be asked at present", "type": "upstream_error", "code": 502},
            ),
        ),
    ],
)
async def test_relay_refused_has_a_status(on: Framework, status: int, error: Any, expected: Any) -> None:
    """
    The response starts when the stream is open: before that an error is a status, and says nothing of our account.
    """
    model = Model()
    model.status, model.said = status, [json.dumps({"error": error}).encode()]
    model.headers = {"retry-after": "7"} if status == 429 else {}
    ends: list[RelayEnd] = []
    async with on.serving(lambda: on.response(model.create(), on_end=ends.append)) as address:
        found, headers, body = await asked(address)

    assert expected == (found, headers.get("retry-after"), json.loads(body)["error"])
    assert headers["content-type"].startswith("application/json")
    assert isinstance(ends[0].error, APIStatusError)
    assert (None, False) == (ends[0].stream, ends[0].left)


@pytest.mark.parametrize(
    ("last", "error", "expected"),
    [
        (b"", IncompleteStreamError, "incomplete_stream_error"),
        (
            data({"error": {"message": "rate limit", "type": "rate_limit_reached_error"}}),
            RateLimitReachedError,
            "overloaded_error",
        ),
    ],
)
async def test_relay_tells_an_error_inside(on: Framework, last: bytes, error: Any, expected: str) -> None:
    """
    What had come is handed on, then an event tells the error, and no `[DONE]` follows: nobody takes it for a whole answer.
    """
    model = Model()
    model.said = [ROLE, event({"content": "a"}), last]
    ends: list[RelayEnd] = []
    async with on.serving(lambda: on.response(model.create(), on_end=ends.append)) as address:
        status, _, body = await asked(address)
    *came, told = body.removesuffix(b"\n\n").split(b"\n\n")

    assert 200 == status
    assert ROLE + event({"content": "a"}) == b"\n\n".join(came) + b"\n\n"
    assert expected == json.loads(told.removeprefix(b"data: "))["error"]["type"]
    assert isinstance(ends[0].error, error)
    assert not ends[0].left
    assert 0 == model.transport.open


async def test_relay_tells_in_your_words(on: Framework) -> None:
    """
    `tell` makes what the reader is told.
    """
    model = Model()
    model.said = [ROLE, event({"content": "a"})]
    async with on.serving(
        lambda: on.response(model.create(), tell=lambda error: {"of": type(error).__name__})
    ) as address:
        _, _, body = await asked(address)

    assert body.endswith(b'data: {"error":{"of":"IncompleteStreamError"}}\n\n')


async def test_relay_reader_leaves_in_the_middle(on: Framework) -> None:
    """
    The model is stopped while it is silent, and `on_end` is told, to its end.
    """
    model = Model()
    model.said, model.hangs = [ROLE, event({"content": "a"})], True
    ended = asyncio.Event()
    ends: list[RelayEnd] = []

    async def note(end: RelayEnd) -> None:
        await asyncio.sleep(0)
        ends.append(end)
        ended.set()

    async with on.serving(lambda: on.response(model.create(), on_end=note)) as address:
        async with aiohttp.ClientSession() as session:
            response = await session.post(address)
            await response.content.readuntil(b'"a"')
            response.close()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()

    assert (None, True) == (ends[0].error, ends[0].left)
    assert 0 == model.transport.open


async def test_relay_reader_leaves_before_the_first_token(on: Framework) -> None:
    """
    Also then nobody goes on waiting for the model.
    """
    model = Model()
    model.slow_to_begin = True
    async with on.serving(lambda: on.response(model.create())) as address:
        async with aiohttp.ClientSession() as session:
            asking = asyncio.create_task(session.post(address))
            await model.asked.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            await model.stopped.wait()


async def test_relay_comments_while_the_model_is_silent(on: Framework) -> None:
    """
    In a silence comments go out, so that no proxy takes it for the end.
    """
    model = Model()
    model.said, model.hangs = [ROLE], True
    async with (
        on.serving(lambda: on.response(model.create(), keep_alive=0.001)) as address,
        aiohttp.ClientSession() as session,
        session.post(address) as response,
    ):
        async with asyncio.timeout(PATIENCE):
            came = await response.content.readexactly(len(ROLE) + 2 * len(COMMENT))

    assert ROLE + 2 * COMMENT == came


async def test_relay_comments_before_the_first_event(on: Framework) -> None:
    """
    A model that thinks for long before it says anything is not cut either: the response begins with a comment.
    """
    model = Model()
    model.slow_to_begin = True
    async with (
        on.serving(lambda: on.response(model.create(), keep_alive=0.001)) as address,
        aiohttp.ClientSession() as session,
        session.post(address) as response,
    ):
        async with asyncio.timeout(PATIENCE):
            came = await response.content.readexactly(2 * len(COMMENT))

    assert (200, 2 * COMMENT) == (response.status, came)


@pytest.mark.parametrize("status", [200, 429])
async def test_relay_goes_on_after_early_comments(status: int) -> None:
    """
    What comes after them is handed on; a refusal, whose status is gone, is told as an error inside.
    """
    model, wire = Model(), Wire()
    model.status = status
    if status != 200:
        model.said = [b'{"error":{"message":"max RPM","type":"rate_limit_reached_error"}}']

    async def opening() -> Any:
        await wire.wrote.wait()
        return await model.create()

    ends: list[RelayEnd] = []
    await Relay(opening(), keep_alive=0.001, on_end=ends.append).run(wire)
    first, *told = [each for each in wire.told if each != COMMENT]

    assert "begin" == first
    assert "end" == told[-1]
    if status == 200:
        assert b"".join(model.said) == b"".join(told[:-1])
    else:
        assert b"overloaded_error" in told[0]
        assert [RateLimitReachedError] == [type(end.error) for end in ends]


async def test_relay_background_runs_at_the_end() -> None:
    """
    A background task runs when all is over, as of any response of Starlette's.
    """
    model = Model()
    done = asyncio.Event()

    async def note() -> None:
        done.set()

    async with serving_starlette(
        lambda: for_starlette.EventStreamResponse(model.create(), background=BackgroundTask(note))
    ) as address:
        await asked(address)
        async with asyncio.timeout(PATIENCE):
            await done.wait()


class Wire:
    """
    A reader in memory, which stays.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.wrote = asyncio.Event()

    async def begin(self) -> None:
        self.told.append("begin")

    async def refuse(self, status: int, headers: Any, body: bytes) -> None:
        self.told.append(status)

    async def write(self, data: bytes, /) -> None:
        self.told.append(data)
        self.wrote.set()

    async def end(self) -> None:
        self.told.append("end")

    async def gone(self) -> None:
        await asyncio.Event().wait()


async def test_relay_cancelled_scope_stops_the_model() -> None:
    """
    A scope of the server's that is cancelled, in the middle or before, closes the request; what `on_end` awaits is awaited.
    """
    for early in (True, False):
        model, wire = Model(), Wire()
        model.said, model.hangs = [ROLE], True
        ends: list[RelayEnd] = []

        async def note(end: RelayEnd, ends: list[RelayEnd] = ends) -> None:
            await asyncio.sleep(0)
            ends.append(end)

        relay = Relay(await model.create(), on_end=note)
        with anyio.CancelScope() as scope:
            if early:
                scope.cancel()
                await relay.run(wire)
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(relay.run, wire)
                    await wire.wrote.wait()
                    scope.cancel()

        assert scope.cancelled_caught
        assert [True] == [end.left for end in ends]
        assert 0 == model.transport.open


async def test_relay_cancelled_task_stops_the_model() -> None:
    """
    So does cancelling the task, as aiohttp does, and the cancellation goes on.
    """
    model, wire = Model(), Wire()
    model.said, model.hangs = [ROLE], True
    ends: list[RelayEnd] = []
    running = asyncio.create_task(Relay(model.create(), on_end=ends.append).run(wire))
    await wire.wrote.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [True] == [end.left for end in ends]
    assert 0 == model.transport.open


async def test_relay_write_that_fails_stops_the_model() -> None:
    """
    A server that says so with an error where it writes is understood: the reader has left.
    """
    model = Model()
    ends: list[RelayEnd] = []

    class Broken(Wire):
        async def write(self, data: bytes, /) -> None:
            raise ConnectionResetError

    await Relay(model.create(), on_end=ends.append).run(Broken())

    assert [(None, True)] == [(end.error, end.left) for end in ends]
    assert 0 == model.transport.open


async def test_relay_comment_waits_its_turn() -> None:
    """
    Nothing is written while a comment is on its way, nor a comment into the middle of an event, nor after the end.
    """
    model = Model()
    busy = 0

    class Slow(Wire):
        async def write(self, data: bytes, /) -> None:
            nonlocal busy
            busy += 1
            assert 1 == busy
            await asyncio.sleep(0.003)
            busy -= 1
            await super().write(data)

        async def end(self) -> None:
            assert 0 == busy
            await super().end()

    async def body() -> AsyncIterator[bytes]:
        for piece in model.said:
            yield piece
            await asyncio.sleep(0.002)

    model.body = body  # type: ignore[method-assign]
    wire = Slow()
    await Relay(model.create(), keep_alive=0.001).run(wire)

    assert ["begin", "end"] == [wire.told[0], wire.told[-1]]
    assert b"".join(model.said) == b"".join(each for each in wire.told[1:-1] if each != COMMENT)


async def test_relay_raises_an_oserror_of_the_source() -> None:
    """
    An `OSError` that is not the reader's is not taken for his leaving: a timeout around the call that opens the stream.
    """

    async def opening() -> Any:
        raise TimeoutError("mine")

    ends: list[RelayEnd] = []
    with pytest.raises(TimeoutError, match="mine"):
        await Relay(opening(), on_end=ends.append).run(Wire())

    assert [("mine", False)] == [(str(end.error), end.left) for end in ends]


@pytest.mark.parametrize("opened", [False, True])
async def test_relay_head_asks_nothing_of_the_model(on: Framework, opened: bool) -> None:
    """
    HEAD gets the head of a stream, with no body after it, which would begin the next reply on the connection; and no model is
    asked, nor an open stream left open.
    """
    model = Model()
    model.hangs = True
    ends: list[RelayEnd] = []
    source = await model.create() if opened else model.create()
    async with on.serving(lambda: on.response(source, on_end=ends.append)) as address:
        host, port = address.split("/")[2].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()

    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"text/event-stream" in head
    assert b"" == body
    assert opened == model.asked.is_set()
    assert 0 == model.transport.open
    assert [(None, None, False)] == [(end.stream, end.error, end.left) for end in ends]


async def test_relay_head_forgets_what_opens_in_a_task() -> None:
    """
    A call that the handler has started already is ended.
    """
    model, wire = Model(), Wire()
    model.slow_to_begin = True
    opening = asyncio.ensure_future(model.create())
    await model.asked.wait()

    await Relay(opening).head(wire)
    await asyncio.wait([opening])

    assert opening.cancelled()
    assert ["begin", "end"] == wire.told


async def test_relay_raises_an_oserror_of_the_callers_functions() -> None:
    """
    One that `tell` raises, to which a file is full or gone, is not taken for the reader's leaving.
    """
    model = Model()
    model.said = [ROLE]

    def tell(_: KimiError) -> Any:
        raise FileNotFoundError("mine")

    ends: list[RelayEnd] = []
    with pytest.raises(FileNotFoundError, match="mine"):
        await Relay(model.create(), tell=tell, on_end=ends.append).run(Wire())

    assert [("mine", False)] == [(str(end.error), end.left) for end in ends]


async def test_relay_raises_the_services_own_faults() -> None:
    """
    A fault of whoever wrote the service is no refusal: it reaches the server, and its log.
    """
    model = Model()
    for source in (
        model.create(gather="soon"),
        model.client.chat.completions.create(model="kimi-k3", messages=QUESTION),
    ):
        wire = Wire()
        with pytest.raises((KimiError, TypeError)):
            await Relay(source).run(wire)

        assert [] == wire.told


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        (iter(()), {}, "AsyncStream"),
        (None, {"keep_alive": 0}, "keep_alive"),
        (None, {"keepalive": 1.0}, "keep_alive, tell, on_end; not keepalive"),
    ],
)
async def test_relay_refuses_what_it_cannot_do(source: Any, options: Any, match: str) -> None:
    """
    When the response is made, not when it is sent.
    """
    model = Model()
    stream = await model.create()
    async with stream:
        with pytest.raises((ConfigurationError, TypeError), match=match):
            Relay(source or stream, **options)


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry_after"),
    [
        (error_from(413, {}, b"{}", None), 413, "invalid_request_error", None),
        (
            error_from(402, {}, b'{"error":{"message":"insufficient balance"}}', None),
            502,
            "upstream_error",
            None,
        ),
        (error_from(500, {}, b"oops", None), 502, "upstream_error", None),
        (RateLimitWaitError("no", eta=3.5), 503, "overloaded_error", 3.5),
        (CircuitOpenError("no", cause="server", retry_after=2.0), 503, "overloaded_error", 2.0),
        (APITimeoutError(), 504, "timeout_error", None),
        (APIConnectionError(), 502, "upstream_error", None),
    ],
)
def test_refusal_by_cause(error: KimiError, status: int, kind: str, retry_after: float | None) -> None:
    """
    Who can do something about it decides: the reader, time, or we.
    """
    refusal = refusal_of(error)

    assert (status, kind, retry_after) == (refusal.status, refusal.error["type"], refusal.retry_after)
    assert status == refusal.error["code"]
