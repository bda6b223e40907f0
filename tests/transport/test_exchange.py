"""
Requests, responses, timeouts and deadlines, without sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kimi_async import APIConnectionError, APITimeoutError, Timeout
from kimi_async.errors import ResponseTooLargeError
from kimi_async.transport.deadlines import Deadline
from kimi_async.transport.exchange import Headers, Request, Response
from kimi_async.transport.phases import send_within

pytestmark = pytest.mark.virtual_clock


def reading(*data: bytes | Exception, pause: float = 0.0) -> Callable[[], Awaitable[bytes]]:
    left = list(data)

    async def reader() -> bytes:
        if pause:
            await asyncio.sleep(pause)
        if not left:
            return b""
        each = left.pop(0)
        if isinstance(each, Exception):
            raise each
        return each

    return reader


def request(**options: Any) -> Request:
    return Request("POST", "http://host/v1/x", **options)


async def test_response_read_and_closed():
    """
    `read` joins, remembers, closes once and calls back.
    """
    said: list[str] = []
    response = Response(
        200, request=request(), reader=reading(b"a", b"b"), closer=lambda: said.append("closed")
    )
    response.on_close(lambda: said.append("called"))
    with pytest.raises(RuntimeError, match="read"):
        _ = response.content

    assert b"ab" == await response.read() == await response.read() == response.content
    assert ["closed", "called"] == said
    assert response.is_closed
    response.on_close(lambda: said.append("late"))
    response.close()
    await response.aclose()
    assert ["closed", "called", "late"] == said
    assert 2 == response.bytes_received


async def test_response_calls_back_all_though_one_fails(caplog: pytest.LogCaptureFixture):
    """
    What is told of the end loses neither the answer nor the slot that waits for it.
    """
    said: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    response = Response(200, request=request(), reader=reading(b"a"))
    response.on_close(fail)
    response.on_close(lambda: said.append("called"))

    assert b"a" == await response.read()
    assert ["called"] == said
    assert 1 == caplog.text.count("a function given to on_close raised")


async def test_response_hands_out_what_is_here_without_waiting():
    """
    It counts as received, as what was waited for does, and goes no second way once the body has been read.
    """
    here = [b"one, "]
    response = Response(
        200, request=request(), reader=reading(b"two"), arrived=lambda: here.pop() if here else b""
    )

    assert b"one, " == response.take_arrived()
    assert b"" == response.take_arrived()
    assert 5 == response.bytes_received
    assert b"two" == await response.read()
    here.append(b"three")
    assert b"" == response.take_arrived()
    assert b"" == Response(200, request=request(), reader=reading(b"one")).take_arrived()


async def test_response_calls_back_all_though_closing_fails():
    """
    A slot must come back even if the connection cannot be closed.
    """
    said: list[str] = []

    def fail() -> None:
        raise OSError("no")

    response = Response(200, request=request(), reader=reading(), closer=fail)
    response.on_close(lambda: said.append("called"))
    with pytest.raises(OSError, match="no"):
        response.close()

    assert ["called"] == said


async def test_response_iterated():
    """
    `async for` gives bytes as they come; leaving early closes.
    """
    response = Response(200, request=request(), reader=reading(b"a", b"b"))
    assert [b"a", b"b"] == [data async for data in response]
    assert response.is_closed
    async with Response(200, request=request(), reader=reading(b"a", b"b")) as other:
        assert b"a" == await other.readany()

    assert other.is_closed


async def test_response_of_bytes():
    """
    A body that is there is handed out once by `readany`, and stays for `read`.
    """
    response = Response(200, {"A": "1"}, request=request(), body=b'{"a": 1}')

    assert b'{"a": 1}' == await response.readany()
    assert b"" == await response.readany()
    assert b'{"a": 1}' == await response.read()
    assert ({"a": 1}, '{"a": 1}', "1") == (response.json(), response.text, response.headers["a"])


async def test_response_too_large():
    """
    A good reply past its bound is an error; a bad one is cut.
    """
    big = Response(200, request=request(), reader=reading(b"x" * 60, b"x" * 60), max_body=100)
    with pytest.raises(ResponseTooLargeError, match="max_response_size"):
        await big.read()
    assert big.is_closed
    bad = Response(500, request=request(), reader=reading(*[b"x" * 60] * 9), max_body=100)

    assert b"x" * 120 == await bad.read()
    assert bad.is_closed


async def test_error_body_that_never_ends():
    """
    The status of a failed reply does not wait for a body that does not come.
    """
    bad = Response(500, request=request(), reader=reading(b"a", *[b"b"] * 100, pause=1.0))

    assert b"abbb" == (await bad.read())[:4]
    assert asyncio.get_running_loop().time() <= 5.0
    assert bad.is_closed


async def test_error_body_that_breaks_off():
    """
    Nor for one that breaks off; a good reply's break is an error.
    """
    broken = APIConnectionError(message="reset")
    bad = Response(500, request=request(), reader=reading(b"a", broken))
    good = Response(200, request=request(), reader=reading(b"a", broken))

    assert b"a" == await bad.read()
    with pytest.raises(APIConnectionError):
        await good.read()
    assert bad.is_closed
    assert good.is_closed


async def test_request_copy_is_its_own():
    """
    A middleware's changes stay in its copy; the history is the call's.
    """
    one = request(headers=Headers({"A": "1"}), extensions={"x": 1}, body=b'{"a": 1}')
    other = one.copy(url="http://other/")
    other.headers["A"] = "2"
    other.extensions["x"] = 2
    other.history.append("h")  # type: ignore[arg-type]

    assert ("1", 1, "http://host/v1/x") == (one.headers["A"], one.extensions["x"], one.url)
    assert one.history is other.history
    assert ({"a": 1}, "/v1/x", b'{"a": 1}') == (one.json(), one.path, await one.read())
    assert (None, b"") == (request().json(), await request().read())


@pytest.mark.parametrize(
    ("timeout", "stream", "phase", "at"),
    [
        (Timeout(read=7.0), False, "headers", 7.0),
        (Timeout(first_token=3.0), True, "headers", 3.0),
        (Timeout(read=7.0, total=2.0), False, "total", 2.0),
        (Timeout(first_token=3.0, total=9.0), True, "headers", 3.0),
        (Timeout(read=None, total=4.0), False, "total", 4.0),
    ],
)
async def test_send_within(timeout: Timeout, stream: bool, phase: str, at: float):
    """
    The headers are waited for as long as the phase allows, and the error names it.
    """

    async def never(_: Request) -> Response:
        await asyncio.sleep(1e6)
        raise AssertionError

    with pytest.raises(APITimeoutError) as caught:
        await send_within(never, request(timeout=timeout, stream=stream))

    assert pytest.approx(at) == asyncio.get_running_loop().time()
    assert (phase, at) == (caught.value.phase, caught.value.elapsed)
    assert "host" in str(caught.value)


async def test_send_within_passes_a_foreign_timeout():
    """
    A TimeoutError of the transport's own is not taken for ours.
    """

    async def fails(_: Request) -> Response:
        raise TimeoutError("theirs")

    with pytest.raises(TimeoutError, match="theirs"):
        await send_within(fails, request(timeout=Timeout.of(None)))


async def test_deadline_of_another_length_for_each_call_leaves_no_timer():
    """
    Who gives each call what is left of his own time does not have the loop keep a timer of each until it would ring.
    """
    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    for number in range(1000):
        with Deadline(60 + number / 7):
            pass

    assert 70 > sum(not timer.cancelled() for timer in timers)


async def test_deadline_and_cancellation_in_one_turn():
    """
    When both come together, the caller's cancellation wins and is not lost.
    """

    async def waits() -> None:
        with Deadline(1.0):
            await asyncio.sleep(1e6)

    task = asyncio.ensure_future(waits())
    asyncio.get_running_loop().call_at(1.0, task.cancel)
    await asyncio.wait([task])

    assert task.cancelled()


async def test_deadline_leaves_no_cancellation():
    """
    After it has run out the task is as it was; and a second one works.
    """
    task = asyncio.current_task()
    assert task is not None
    for _ in range(2):
        with pytest.raises(TimeoutError), Deadline(1.0):
            await asyncio.sleep(1e6)
        assert 0 == task.cancelling()
    with Deadline(None):
        await asyncio.sleep(1.0)
    with Deadline(5.0) as unused:
        await asyncio.sleep(1.0)

    assert not unused.expired


def test_timeout_values():
    """
    Above zero, or None; infinity is None.
    """
    assert Timeout(idle=None) == Timeout(idle=float("inf"))
    assert Timeout(idle=5.0) == Timeout().replace(idle=5.0)
    for bad in (0, -1, "1", True, float("nan")):
        with pytest.raises(ValueError, match=r"Timeout\.idle"):
            Timeout(idle=bad)  # type: ignore[arg-type]
