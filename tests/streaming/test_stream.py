"""
`AsyncStream` without sockets: ends, clocks, early exits, and what is preserved. Time is virtual: ten minutes take none.
"""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import random
import re
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kimi_async import (
    APIError,
    APIResponseValidationError,
    AsyncKimi,
    IncompleteStreamError,
    InternalServerError,
    StreamStalledError,
    Timeout,
)
from kimi_async.streaming import reading
from kimi_async.streaming.stream import AsyncStream
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request, Response
from support.raw_server import COMPLETION, DONE, FINISH, HELLO, ROLE, USAGE, WHOLE, chunk, event, text

RECORDINGS = sorted((Path(__file__).parents[1] / "recordings").glob("*.raw"))
QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


pytestmark = pytest.mark.virtual_clock


class Feed:
    """
    A body that is fed by hand: `put(bytes)`, `put(OSError())`, `end()`. A cancelled read loses nothing.
    """

    def __init__(self, *data: bytes | OSError) -> None:
        self.queue: asyncio.Queue[bytes | OSError | None] = asyncio.Queue()
        self.closed = False
        for each in data:
            self.put(each)

    def put(self, data: bytes | OSError) -> None:
        self.queue.put_nowait(data)

    def end(self) -> Feed:
        self.queue.put_nowait(None)
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.queue.get()
        if data is None:
            raise StopAsyncIteration
        if isinstance(data, OSError):
            raise data
        return data

    def close(self) -> None:
        self.closed = True


class Here:
    """
    A reply whose first bytes came with its head; what comes after them is waited for.
    """

    def __init__(self, first: bytes, *more: bytes) -> None:
        self.first = first
        self.left = list(more)
        self.waits = 0
        request = Request("POST", "http://host/v1/x", stream=True)
        self.response = Response(200, request=request, reader=self.read, arrived=self.take)

    def take(self) -> bytes:
        data, self.first = self.first, b""
        return data

    async def read(self) -> bytes:
        self.waits += 1
        return self.left.pop(0) if self.left else b""


def client_of(body: Any, **options: Any) -> tuple[AsyncKimi, MemoryTransport]:
    async def handler(request: Request) -> Reply:
        return Reply(headers={"Content-Type": "text/event-stream", "Msh-Request-Id": "rid-1"}, body=body)

    transport = MemoryTransport(handler)
    return AsyncKimi(
        api_key="sk-test-0123456789abcdef", transport=transport, max_retries=0, **options
    ), transport


async def open_stream(body: Any, **options: Any) -> tuple[AsyncStream[Any], MemoryTransport]:
    client, transport = client_of(body, **options)
    return await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True), transport


async def content_of(stream: AsyncStream[Any]) -> str:
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


def now() -> float:
    return asyncio.get_running_loop().time()


async def silence(*data: bytes, every: float = 1e6, again: bytes = b"") -> AsyncIterator[bytes]:
    for each in data:
        yield each
    while True:
        await asyncio.sleep(every)
        yield again


# --- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("again", "every"),
    [(b"", 1e6), (b": still here\n\n", 10.0), (b"\n", 0.5), (b"d", 100.0), (b"event: ping\ndata:\n\n", 10.0)],
    ids=["nothing", "comments", "blank lines", "one long line", "pings"],
)
async def test_idle_without_events(again: bytes, every: float):
    """
    `idle` counts decoded events: whatever else comes, the stream stalls 300 s after the last of them, with all that had come.
    """
    stream, transport = await open_stream(silence(HELLO, every=every, again=again))
    got: list[str] = []

    with pytest.raises(StreamStalledError) as caught:
        async for each in stream:
            got.append(each.choices[0].delta.content)

    error = caught.value
    assert pytest.approx(300.0) == now()
    assert ["", "Hel", "lo"] == got
    assert ("idle", 3, "rid-1") == (error.phase, error.chunks, stream.request_id)
    assert pytest.approx(300.0) == error.elapsed
    assert "Hello" == error.partial.choices[0].message.content
    assert error.partial.choices[0].finish_reason is None
    assert "Timeout.idle" in str(error)
    assert "rid-1" in str(error)
    assert 0 == transport.open


async def test_first_token_without_events():
    """
    `first_token` is counted from the sending of the request, and comments do not stretch it.
    """
    client, transport = client_of(silence(every=7.0, again=b": PROCESSING\n\n"))

    with pytest.raises(StreamStalledError) as caught:
        await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)

    assert pytest.approx(600.0) == now()
    assert ("first_token", None, 0) == (caught.value.phase, caught.value.partial, caught.value.chunks)
    assert 0 == transport.open


async def test_idle_restarts_with_every_event():
    """
    A stream that brings an event every 299 s lives for ever.
    """

    async def body() -> AsyncIterator[bytes]:
        yield ROLE
        for _ in range(20):
            await asyncio.sleep(299)
            yield text("x")
        yield FINISH + DONE

    stream, _ = await open_stream(body())

    assert "x" * 20 == await content_of(stream)
    assert pytest.approx(20 * 299.0) == now()


async def test_idle_slow_consumer():
    """
    A slow consumer is not an idle server: only time spent waiting counts.
    """
    feed = Feed(HELLO)
    stream, _ = await open_stream(feed)
    got: list[str] = []
    async for each in stream:
        got.append(each.choices[0].delta.content)
        await asyncio.sleep(1000)
        if len(got) == 3:
            feed.put(text("!") + FINISH + DONE)

    assert ["", "Hel", "lo", "!", None] == got


async def test_idle_busy_loop():
    """
    Data that had arrived when the clock ran out is handed out: the loop was busy, not the server silent.
    """
    feed = Feed(HELLO)
    stream, _ = await open_stream(feed, timeout=Timeout(idle=10.0))
    for _ in range(3):
        await anext(stream)
    loop = asyncio.get_running_loop()
    # In one turn, as after ten seconds of work that blocked the loop: first the data, then the timer.
    loop.call_at(loop.time() + 10.0, feed.put, text("!"))
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    assert "!" == (await waiting).choices[0].delta.content
    await stream.close()


async def test_total_busy_stream():
    """
    `total` ends a stream however busy it is.
    """
    stream, transport = await open_stream(
        silence(HELLO, every=1.0, again=text(".")), timeout=Timeout(total=60.0)
    )

    with pytest.raises(StreamStalledError) as caught:
        await content_of(stream)

    assert "total" == caught.value.phase
    assert pytest.approx(60.0) == now()
    assert "Hello" + 60 * "." == caught.value.partial.choices[0].message.content
    assert 0 == transport.open


async def test_grace_after_finish_reason():
    """
    `finish_reason` without `[DONE]`: a few seconds for the usage that may follow, then success.
    """
    stream, transport = await open_stream(silence(HELLO + FINISH))

    assert "Hello" == await content_of(stream)
    assert pytest.approx(5.0) == now()
    assert 0 == transport.open


async def test_grace_takes_usage():
    """
    The usage that comes four seconds after `finish_reason` is not lost.
    """

    async def body() -> AsyncIterator[bytes]:
        yield HELLO + FINISH
        await asyncio.sleep(4.0)
        yield event({**chunk(usage=USAGE), "choices": []})
        await asyncio.sleep(1e6)

    stream, _ = await open_stream(body())
    await content_of(stream)

    assert stream.usage is not None
    assert 7 == stream.usage.total_tokens


async def test_drain_after_done_is_bounded():
    """
    A body that does not end after `[DONE]` is waited for, half a second and no more.
    """
    stream, transport = await open_stream(silence(WHOLE))

    assert "Hello" == await content_of(stream)
    assert pytest.approx(0.5) == now()
    assert 0 == transport.open


async def test_drain_after_break_at_finish_reason():
    """
    A loop that breaks at `finish_reason` still takes in the end of the body, so that the connection is used again.
    """

    async def body() -> AsyncIterator[bytes]:
        yield HELLO + FINISH
        await asyncio.sleep(0.05)
        yield DONE
        await asyncio.sleep(0.05)

    ended: list[Response] = []
    stream, transport = await open_stream(body())
    stream.response.on_close(lambda: ended.append(stream.response))
    async with stream:
        async for each in stream:
            if each.choices[0].finish_reason:
                break

    assert pytest.approx(0.1) == now()
    assert [stream.response] == ended
    assert 0 == transport.open


async def test_second_choice_after_first_has_ended():
    """
    The short wait after `finish_reason` holds only while every choice has one.
    """
    second = {**chunk(), "choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": None}]}
    end = {**chunk(), "choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}

    async def body() -> AsyncIterator[bytes]:
        yield HELLO + FINISH + event(second)
        await asyncio.sleep(60.0)
        yield event(end)
        yield DONE

    stream, _ = await open_stream(body())
    async for _ in stream:
        pass
    snapshot = stream.snapshot()

    assert snapshot is not None
    assert [("Hello", "stop"), ("B", "stop")] == [
        (choice.message.content, choice.finish_reason) for choice in snapshot.choices
    ]


# --- what had arrived ----------------------------------------------------------------------------------------------------


async def test_error_repeats():
    """
    Asking again after an error gives the error again: a loop that carries on must not believe in a good end.
    """
    stream, _ = await open_stream([HELLO])
    with pytest.raises(IncompleteStreamError) as first:
        await content_of(stream)

    with pytest.raises(IncompleteStreamError) as again:
        await anext(stream)

    assert first.value is again.value


async def test_chunks_before_the_fault_come_first():
    """
    Events and the fault in one read: the events are handed out, then the fault raised.
    """
    stream, _ = await open_stream([HELLO + event(b"oops")])
    got = [(await anext(stream)).choices[0].delta.content for _ in range(3)]

    assert ["", "Hel", "lo"] == got
    with pytest.raises(IncompleteStreamError, match="oops"):
        await anext(stream)


@pytest.mark.parametrize("fault", [ConnectionResetError("reset"), None], ids=["reset", "end"])
async def test_cut_after_every_event(fault: OSError | None):
    """
    Wherever it breaks off, `partial` is what an undisturbed stream had given by then.
    """
    events = [
        event(chunk({"role": "assistant", "content": ""})),
        event(chunk({"reasoning_content": "Hm"})),
        event(chunk({"reasoning_content": "m."})),
        text("Hel"),
        text("lo"),
        event(chunk({"tool_calls": [{"index": 0, "id": "f:0", "type": "function", "function": {"name": "f", "arguments": ""}}]})),
        event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]})),
        event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]})),
    ]  # fmt: skip
    for count in range(1, len(events) + 1):
        feed = Feed(*events[:count])
        if fault is None:
            feed.end()
        else:
            feed.put(fault)
        stream, transport = await open_stream(feed)
        got = []
        with pytest.raises(IncompleteStreamError) as caught:
            async for each in stream:
                got.append(each)

        error = caught.value
        assert count == len(got) == error.chunks
        assert sum(map(len, events[:count])) == error.bytes_received
        message = error.partial.choices[0].message
        assert "".join(c.choices[0].delta.content or "" for c in got) == (message.content or "")
        assert "".join(c.choices[0].delta.reasoning_content or "" for c in got) == (
            message.reasoning_content or ""
        )
        arguments = ["", '{"a":', "1}"][: max(0, count - 5)]
        if arguments:
            assert "".join(arguments) == message.tool_calls[0].function.arguments
        assert 0 == transport.open


async def test_truncated_at_every_byte():
    """
    No cut of a stream passes for an answer before `finish_reason`, and none raises anything but our own error.
    """
    end = (
        WHOLE.index(FINISH) + len(FINISH) - 2
    )  # the finish event's JSON is whole, its blank line may be missing
    for cut in range(len(WHOLE)):
        client, _ = client_of([WHOLE[:cut]])
        try:
            stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
            content = await content_of(stream)
        except IncompleteStreamError as error:
            content = error.partial.choices[0].message.content if error.partial else ""
            whole = False
        else:
            whole = True
        assert (cut >= end) == whole
        assert "Hello".startswith(content)
        assert "Hello" == content or not whole


# --- leaving ---------------------------------------------------------------------------------------------------------------


async def test_break_closes():
    """
    `break` inside `async with` closes the response.
    """
    feed = Feed(HELLO)
    stream, transport = await open_stream(feed)
    async with stream:
        async for _ in stream:
            break

    assert feed.closed
    assert 0 == transport.open
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_exception_in_loop_body_closes():
    """
    The caller's exception passes unchanged, and the response is closed.
    """
    feed = Feed(HELLO)
    stream, transport = await open_stream(feed)
    with pytest.raises(ZeroDivisionError):
        async with stream:
            async for _ in stream:
                raise ZeroDivisionError

    assert feed.closed
    assert 0 == transport.open


async def test_dropped_stream_warns_and_closes():
    """
    A stream that nobody closes and nobody holds warns, and does not keep the connection.
    """
    feed = Feed(HELLO)
    stream, transport = await open_stream(feed)
    await anext(stream)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del stream
        gc.collect()

    assert [ResourceWarning] == [each.category for each in caught]
    assert "dropped" in str(caught[0].message)
    assert feed.closed
    assert 0 == transport.open


async def test_dropped_while_its_timer_runs():
    """
    The idle clock does not keep a dropped stream alive.
    """
    feed = Feed(HELLO)
    stream, _ = await open_stream(feed)
    for _ in range(3):
        await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(1.0)
    waiting.cancel()
    await asyncio.wait([waiting])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del stream, waiting
        gc.collect()

    assert [ResourceWarning] == [each.category for each in caught]
    assert feed.closed


async def test_ended_stream_does_not_warn():
    """
    A stream that was read to its end needs no closing.
    """
    stream, _ = await open_stream([WHOLE])
    await content_of(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del stream
        gc.collect()


async def test_cancelled_iteration_goes_on():
    """
    A read that was cancelled loses nothing: the next one continues.
    """
    feed = Feed(ROLE)
    stream, _ = await open_stream(feed)
    await anext(stream)
    got = ""
    for part in ("Hel", "lo"):
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1.0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        feed.put(text(part))
        got += (await anext(stream)).choices[0].delta.content
    feed.put(FINISH + DONE)
    feed.end()

    assert "Hello" == got + await content_of(stream)


async def test_timeout_from_outside():
    """
    The caller's own timeout is theirs: it ends as `TimeoutError`, and leaves no cancellation behind.
    """
    feed = Feed(HELLO)
    stream, transport = await open_stream(feed)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10), stream:
            await content_of(stream)
    task = asyncio.current_task()
    assert task is not None

    assert 0 == task.cancelling()
    assert feed.closed
    assert 0 == transport.open


async def test_timeouts_in_one_turn():
    """
    When the idle clock and the caller's own timeout run out together, the caller's wins and nothing is left cancelled.
    """
    for ours in (9.999999, 10.0, 10.000001):
        stream, _ = await open_stream(Feed(HELLO), timeout=Timeout(idle=ours))
        for _ in range(3):
            await anext(stream)
        with pytest.raises((TimeoutError, StreamStalledError)):
            async with asyncio.timeout(10.0):
                await anext(stream)
        task = asyncio.current_task()
        assert task is not None
        assert 0 == task.cancelling()
        await asyncio.sleep(1.0)
        await stream.close()


async def test_close_twice_and_from_another_task():
    """
    Closing is idempotent and belongs to no task.
    """
    feed = Feed(HELLO)
    stream, transport = await open_stream(feed)
    await asyncio.create_task(stream.close())
    await stream.close()
    await stream.aclose()

    assert feed.closed
    assert 0 == transport.open


async def test_repr_tells_state():
    """
    A stream's repr says how far it is, and shows no key.
    """
    stream, _ = await open_stream([WHOLE])
    assert "4 chunks" in repr(stream)
    await content_of(stream)

    assert "ended" in repr(stream)
    assert "sk-" not in repr(stream)


# --- cuts ------------------------------------------------------------------------------------------------------------------


def body_of(recording: Path) -> bytes:
    """
    The body of a recorded reply, its chunked framing undone.
    """
    raw = recording.read_bytes()
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert b"chunked" in head.lower()
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        body += rest[:length]
        rest = rest[length + 2 :]
    return body


async def outcome(pieces: list[bytes]) -> tuple[list[dict[str, Any]], Any]:
    stream, _ = await open_stream(pieces)
    chunks = [each.to_dict() async for each in stream]
    snapshot = stream.snapshot()
    assert snapshot is not None
    return chunks, snapshot.to_dict()


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
async def test_recording_however_cut(recording: Path):
    """
    What real servers sent gives the same chunks whole, byte by byte, an event a packet, and cut at random; and it is an answer with
    an end.
    """
    body = body_of(recording)
    whole, folded = await outcome([body])

    assert folded["choices"][0]["finish_reason"]
    assert (whole, folded) == await outcome([body[i : i + 1] for i in range(len(body))])
    assert (whole, folded) == await outcome(re.findall(rb"(?s).+?(?:\n\n|\r\n\r\n|\Z)", body))
    dice = random.Random(7)
    for _ in range(20):
        cuts = sorted(dice.sample(range(len(body)), 5))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        assert (whole, folded) == await outcome(pieces)


AWKWARD = (
    b"\xef\xbb\xbf: hi\r\n\r\n"
    + ROLE.replace(b"\n", b"\r\n")
    + text("Zwölf Boxkämpfer 🍵 \u2028")
    + b'data: {"choices":[{"delta":{"content":"\\ud83c"}}]}\n\n'
    + b'data: {"choices":[{"delta":{"content":"\\udf75"}}]}\n\n'
    + b"data: null\r\rdata:\n\nevent: ping\ndata: {}\n\n"
    + event(b'{"choices":[{"delta":{"content":"a"}}]}{"choices":[{"delta":{"content":"b"}}]}')
    + b'data: {"choices":[{"delta":\ndata: {"content":"c"}}]}\n\n'
    + FINISH
    + DONE
)


async def test_awkward_stream_at_every_cut():
    """
    One stream with everything awkward in it is the same stream at every cut.
    """
    whole, folded = await outcome([AWKWARD])

    assert "Zwölf Boxkämpfer 🍵 \u2028🍵abc" == folded["choices"][0]["message"]["content"]
    for cut in range(1, len(AWKWARD)):
        assert (whole, folded) == await outcome([AWKWARD[:cut], AWKWARD[cut:]])
    assert (whole, folded) == await outcome([AWKWARD[i : i + 1] for i in range(len(AWKWARD))])


# --- foreign streams ---------------------------------------------------------------------------------------------------------


async def raw_stream(body: Any, **options: Any) -> AsyncStream[Any]:
    client, _ = client_of(body)
    return await client.post("/anything", body={}, stream=True, **options)


async def test_raw_stream_ends_with_the_body():
    """
    A stream of another kind has no `finish_reason`: the end of the body, or `[DONE]`, is its end.
    """
    stream = await raw_stream([b'data: {"a": 1}\n\n', b'data: {"a": 2}\n\n'])

    assert [{"a": 1}, {"a": 2}] == [each async for each in stream]


async def test_raw_stream_hands_out_what_came_before_a_fault():
    """
    Also here, what arrived before nonsense is handed out first.
    """
    stream = await raw_stream([b'data: {"a": 1}\n\ndata: oops\n\n'])

    assert {"a": 1} == await anext(stream)
    with pytest.raises(IncompleteStreamError):
        await anext(stream)


async def test_raw_stream_raises_an_error_in_json():
    """
    A JSON error in place of a stream is raised as what it means.
    """
    with pytest.raises(InternalServerError, match="boom"):
        await raw_stream([json.dumps({"error": {"message": "boom", "type": "server_error"}}).encode()])


async def test_html_in_place_of_a_stream():
    """
    A web page with status 200 is kept in `body`, and is no stream.
    """
    client, transport = client_of([b"<html>", b"hello</html>"])
    with pytest.raises(APIResponseValidationError) as caught:
        await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)

    assert "<html>hello</html>" == caught.value.body
    assert 0 == transport.open


async def test_many_streams_at_once():
    """
    Two hundred streams side by side each get their own text.
    """

    def body(number: int) -> list[bytes]:
        return [ROLE, *(text(f"{number}.{i} ") for i in range(20)), FINISH, DONE]

    async def handler(request: Request) -> Reply:
        async def pieces() -> AsyncIterator[bytes]:
            for each in body(int(request.json()["messages"][0]["content"])):
                await asyncio.sleep(0.01)
                yield each

        return Reply(body=pieces())

    transport = MemoryTransport(handler)
    client = AsyncKimi(api_key="sk-test", transport=transport, max_retries=0)

    async def one(number: int) -> str:
        async with await client.chat.completions.create(
            model="kimi-k3", messages=[{"role": "user", "content": str(number)}], stream=True
        ) as stream:
            return await content_of(stream)

    answers = await asyncio.gather(*map(one, range(200)))

    assert ["".join(f"{n}.{i} " for i in range(20)) for n in range(200)] == answers
    assert 0 == transport.open
    assert 0 == client.limiter.stats().in_flight


async def test_json_that_stalls_in_place_of_a_stream():
    """
    The clock that ends the wait for a body that is no stream does not cancel the caller.
    """
    client, transport = client_of(silence(b'{"error":'), timeout=Timeout(first_token=3.0))
    with pytest.raises(StreamStalledError):
        await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
    task = asyncio.current_task()
    assert task is not None

    assert 0 == task.cancelling()
    assert 0 == transport.open


def test_stream_needs_no_session(monkeypatch: pytest.MonkeyPatch):
    """
    A stream is made of a response and a running loop, and of nothing else.
    """

    async def main() -> list[Any]:
        response = Response(200, request=Request("POST", "http://x/"), body=WHOLE)
        return [each.choices[0].delta.content async for each in AsyncStream[Any](response)]

    checked: Callable[..., Any] = asyncio.run
    assert ["", "Hel", "lo", None] == checked(main())


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (b"", "without a finish_reason"),
        (b"data: oops\n\n", "oops"),
        (event({"error": {"message": "boom", "type": "server_error"}}), "boom"),
    ],
    ids=["cut", "nonsense", "error"],
)
async def test_error_of_a_stream_has_the_reply_s_headers(rest: bytes, words: str):
    """
    Whoever writes to the host's support needs the request id, whichever way the stream failed.
    """

    async def handler(request: Request) -> Reply:
        return Reply(headers={"Msh-Request-Id": "r-1", "Set-Cookie": "secret"}, body=text("Hel") + rest)

    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler), max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="kimi-k3", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(APIError, match=words) as caught:
            async for _ in stream:
                pass
    error: Any = pickle.loads(pickle.dumps(caught.value))

    assert ("r-1", "r-1", 200) == (
        error.request_id,
        error.response.headers["Msh-Request-Id"],
        error.response.status_code,
    )
    assert "Set-Cookie" not in error.response.headers


async def test_first_event_with_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    """
    What came together with the head is there at once: no read, and no clock.
    """
    here = Here(HELLO, FINISH + DONE)
    stream: AsyncStream[Any] = AsyncStream(here.response)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "call_at", None)
        await stream.prime()

    assert 0 == here.waits
    assert "Hello" == await joined(stream)
    assert len(HELLO + FINISH + DONE) == here.response.bytes_received


@pytest.mark.parametrize("cut", [1, len(ROLE) - 1])
async def test_part_of_first_event_with_head_is_waited_for(cut: int):
    """
    An event that came only in part with the head is whole when its rest has come.
    """
    here = Here(HELLO[:cut], HELLO[cut:], FINISH + DONE)
    stream: AsyncStream[Any] = AsyncStream(here.response)
    await stream.prime()

    assert 1 == here.waits
    assert "Hello" == await joined(stream)


async def test_many_events_with_head_are_digested_in_slices(monkeypatch: pytest.MonkeyPatch):
    """
    However much came with the head, no more of it is digested in one go than of any other packet.
    """
    monkeypatch.setattr(reading, "SLICE", len(HELLO))
    here = Here(HELLO + FINISH + DONE)
    stream: AsyncStream[Any] = AsyncStream(here.response)
    await stream.prime()

    assert 0 == here.waits
    assert 3 == stream.chunks
    assert "Hello" == await joined(stream)


async def test_body_with_head_that_is_no_stream_is_read_to_its_end():
    """
    A completion in place of a stream is understood also where it came with the head.
    """
    whole = json.dumps(COMPLETION).encode()
    here = Here(whole[:40], whole[40:])
    stream: AsyncStream[Any] = AsyncStream(here.response)
    await stream.prime()

    assert "Hello" == await joined(stream)


async def joined(stream: AsyncStream[Any]) -> str:
    return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])
