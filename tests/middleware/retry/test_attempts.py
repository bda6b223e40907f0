"""
When a failed attempt is repeated, and when it had better not be. All in virtual time.
"""

import asyncio
import gc
import itertools
import random
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_async.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    CircuitOpenError,
    EngineOverloadedError,
    IncompleteStreamError,
    InternalServerError,
    KimiError,
    RateLimitWaitError,
)
from kimi_async.middleware.events import AttemptFailed, CallFailed, Event, Observer, RetryScheduled
from kimi_async.middleware.retry.breakers import OverloadBreaker, RetryBudget
from kimi_async.middleware.retry.middleware import RetryMiddleware
from kimi_async.middleware.retry.policy import NEVER, Failure, RetryPolicy, RetryRule, backoff, decide
from kimi_async.transport.exchange import Headers, Request, Response, Turn

pytestmark = pytest.mark.virtual_clock


URL = "https://api.example.test/v1/chat/completions"


def body_of(message: str, type_: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": type_}})


OK = (200, {}, b"{}")
RPM = (
    429,
    {"Retry-After": "1"},
    body_of(
        "request reached organization max RPM: 3, please try again after 1 seconds",
        "rate_limit_reached_error",
    ),
)
OVERLOADED = (
    429,
    {},
    body_of("The engine is currently overloaded, please try again later", "engine_overloaded_error"),
)
QUOTA = (429, {}, body_of("You exceeded your current token quota", "exceeded_current_quota_error"))
ERROR_500 = (500, {}, body_of("boom", "server_error"))


def refused(message: str = "Connection error.", reused: bool = False) -> APIConnectionError:
    error = APIConnectionError(message=message)
    error.reused_connection = reused
    return error


Step = tuple[int, dict[str, str], bytes] | KimiError | Callable[[Request], Awaitable[Response]]


class Server:
    """Answers with one step after another, the last for ever; remembers when it was asked."""

    def __init__(self, *steps: Step, delay: float = 0.0) -> None:
        self.steps = list(steps)
        self.delay = delay
        self.times: list[float] = []
        self.open = 0

    async def __call__(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        self.times.append(loop.time())
        step = self.steps[min(len(self.times), len(self.steps)) - 1]
        if self.delay:
            await asyncio.sleep(self.delay)
        if isinstance(step, KimiError):
            raise step
        if callable(step):
            return await step(request)
        status, headers, data = step
        self.open += 1
        response = Response(status, Headers(headers), request=request, body=data)
        response.on_close(self._closed)
        return response

    def _closed(self) -> None:
        self.open -= 1

    @property
    def gaps(self) -> list[float]:
        return [round(after - before, 6) for before, after in zip(self.times, self.times[1:], strict=False)]


class Limiter:
    """A limiter that lets everything through, and says whether anybody is being admitted."""

    def __init__(self, alive: bool) -> None:
        self.says = alive

    longest_gate = 120.0

    def fail(self, error: Any) -> None:
        """Nobody queues."""

    def alive(self, request: Request, within: float) -> bool:
        return self.says


async def read(response: Response) -> None:
    await response.read()


def request(**options: Any) -> Request:
    options.setdefault("max_retries", 2)
    options.setdefault("body", b"{}")
    headers = Headers({"Authorization": options.pop("key", "Bearer sk-0123456789abcdef")})
    return Request(
        options.pop("method", "POST"), URL, headers=headers, accept=options.pop("accept", read), **options
    )


def half() -> float:
    return 0.5


def middleware(policy: RetryPolicy | None = None, **options: Any) -> RetryMiddleware:
    options.setdefault("dice", half)
    return RetryMiddleware(policy, **options)


async def hangs(_: Request) -> Response:
    await asyncio.sleep(1_000)
    raise AssertionError("never reached")


async def accept_hangs(_: Response) -> None:
    await asyncio.sleep(1_000)


# --- the rule ---------------------------------------------------------------------------------------------------------


def verdict(failure: Failure, policy: RetryPolicy | None = None, **options: Any) -> Any:
    facts: dict[str, Any] = {
        "retries": 0, "max_retries": 2, "remaining": None, "previous": 0.0, "dice": half, **options,
    }  # fmt: skip
    return decide(policy or RetryPolicy(), failure, **facts)


RETRIED = [
    "connection",
    "timeout",
    "server",
    "gateway",
    "unavailable",
    "conflict",
    "overloaded",
    "rate_limit",
    "invalid",
]


@pytest.mark.parametrize("cause", RETRIED)
def test_decide_transient_cause(cause: str) -> None:
    """
    A cause that passes is repeated until the retries are used up.
    """
    assert [verdict(Failure(cause=cause), retries=n).action for n in range(3)] == ["retry", "retry", "stop"]


@pytest.mark.parametrize("cause", sorted(NEVER))
def test_decide_lasting_cause(cause: str) -> None:
    """
    A cause that does not pass is never repeated, and the reason is given in words.
    """
    told = verdict(Failure(cause=cause, retryable=False), alive=True, limiter=True)

    assert (told.action, told.reason) == ("stop", NEVER[cause])


@pytest.mark.parametrize("cause", [*RETRIED, *NEVER])
def test_decide_server_verdict_wins(cause: str) -> None:
    """
    x-should-retry beats every rule, both ways.
    """
    assert verdict(Failure(cause=cause, should_retry=True)).action == "retry"
    assert verdict(Failure(cause=cause, should_retry=False), limiter=True, alive=True).action == "stop"


@pytest.mark.parametrize("told", [None, True])
def test_decide_body_not_replayable(told: bool | None) -> None:
    """
    What cannot be sent a second time is not, whatever the server wishes.
    """
    assert verdict(Failure(cause="server", should_retry=told), replayable=False).action == "stop"


def test_decide_rate_limit_while_others_are_admitted() -> None:
    """
    A refusal uses no attempt while the organisation is admitted, however often it comes.
    """
    told = verdict(Failure(cause="rate_limit", status=429, hint=1.0), retries=2, limiter=True, alive=True)

    assert (told.action, told.wait, told.cost) == ("requeue", 0.0, 0)


def test_decide_rate_limit_while_nobody_is_admitted() -> None:
    """
    Where nobody has been admitted, refusals count, and the limiter still does the waiting.
    """
    told = [
        verdict(Failure(cause="rate_limit", status=429, hint=1.0), retries=n, limiter=True) for n in range(3)
    ]

    assert [one.action for one in told] == ["retry", "retry", "stop"]
    assert told[0].wait == 0.0


def test_decide_rate_limit_while_nobody_is_admitted_and_no_time_is_named() -> None:
    """
    The limiter may know no reason to wait, so retry waits: a crowd would spend its retries in milliseconds.
    """
    waits = [
        verdict(Failure(cause="rate_limit", status=429), retries=n, max_retries=9, limiter=True).wait
        for n in range(4)
    ]

    assert waits == [0.75, 1.5, 3.0, 6.0]


def test_decide_rate_limit_without_limiter() -> None:
    """
    Without a limiter retry waits itself: the hint at least, spread by a quarter, and longer with every refusal.
    """
    waits = [verdict(Failure(cause="rate_limit", hint=1.0), retries=n, max_retries=9).wait for n in range(4)]

    assert waits == [1.125, 1.5, 3.0, 6.0]


def test_decide_overload_alone_and_among_others() -> None:
    """
    A lone call waits on the slow curve, and so do some of which none was served; among others that were, a failed probe is nobody's
    attempt.
    """
    alone = verdict(Failure(cause="overloaded", status=429), limiter=True, alive=True, shared=False)
    among = verdict(Failure(cause="overloaded", status=429), limiter=True, alive=True, shared=True)
    from_the_start = verdict(Failure(cause="overloaded", status=429), limiter=True, alive=False, shared=True)

    assert ("retry", 3.0) == (alone.action, alone.wait)
    assert ("requeue", 0.0) == (among.action, among.wait)
    assert ("retry", 3.0) == (from_the_start.action, from_the_start.wait)


@pytest.mark.parametrize("cause", ["overloaded", "rate_limit"])
def test_decide_throttled_inside_a_stream(cause: str) -> None:
    """
    An error inside a 200 has passed the limiter unseen: it counts, and retry waits itself.
    """
    told = verdict(Failure(cause=cause, status=200), limiter=True, alive=True, shared=True)

    assert told.action == "retry"
    assert told.wait > 0.5


def test_decide_no_retries_allowed() -> None:
    """
    `max_retries=0` means sent once, also for refusals and whatever the policy says.
    """
    policy = RetryPolicy(overrides={"rate_limit": RetryRule(max_retries=5)})

    told = verdict(Failure(cause="rate_limit"), policy, max_retries=0, limiter=True, alive=True)

    assert told.action == "stop"


@pytest.mark.parametrize(
    ("failure", "options", "expected"),
    [
        (Failure(cause="rate_limit", hint=121.0), {}, "wait 121 s, and only 120 s"),
        (
            Failure(cause="rate_limit", hint=121.0),
            {"limiter": True, "alive": True},
            "wait 121 s, and only 120 s",
        ),
        (Failure(cause="server", hint=5.0), {"remaining": 4.0}, "wait 5 s, and only 4 s"),
        (Failure(cause="overloaded"), {"remaining": 2.9}, "would be in 3 s, and only 2.9 s"),
        (Failure(cause="server"), {"remaining": 0.0}, "time allowed for the call is over"),
        (Failure(cause="rate_limit"), {"remaining": -1.0, "limiter": True, "alive": True}, "is over"),
    ],
)
def test_decide_wait_longer_than_allowed(failure: Failure, options: dict[str, Any], expected: str) -> None:
    """
    A wait that the caller does not allow is not begun, and the reason says both numbers.
    """
    told = verdict(failure, **options)

    assert told.action == "stop"
    assert expected in told.reason


def test_decide_hint_just_allowed() -> None:
    """
    A hint as long as what is allowed is obeyed.
    """
    held = {"limiter": True, "alive": True}

    assert verdict(Failure(cause="rate_limit", status=429, hint=120.0), **held).action == "requeue"
    assert (
        verdict(Failure(cause="rate_limit", status=429, hint=9.0), remaining=9.0, **held).action == "requeue"
    )


def test_decide_stale_connection_once() -> None:
    """
    A connection closed while idle is replaced at once, once, even where no retries are allowed.
    """
    stale = Failure(cause="connection", reused=True)

    assert ("requeue", 0.0) == (verdict(stale, max_retries=0).action, verdict(stale).wait)
    assert verdict(stale, reconnected=True).action == "retry"


def test_decide_statuses() -> None:
    """
    A policy's own list of statuses replaces the table, but for what nothing helps.
    """
    policy = RetryPolicy(statuses=frozenset({418, 429}))

    assert (
        verdict(Failure(cause="bad_request", status=418), policy).action == "stop"
    )  # its cause is known not to pass
    assert verdict(Failure(cause="server", status=500), policy).action == "stop"
    assert verdict(Failure(cause="rate_limit", status=429), policy).action == "retry"
    assert verdict(Failure(cause="quota", status=429), policy).action == "stop"
    assert verdict(Failure(cause="connection"), policy).action == "retry"


def test_decide_overrides_by_cause() -> None:
    """
    One cause can have its own number, curve, or none; the others keep theirs.
    """
    policy = RetryPolicy(
        overrides={
            "timeout": RetryRule(retry=False),
            "server": {"max_retries": 5, "base": 1.0, "factor": 3.0, "cap": 20.0, "jitter": "none"},
            "not_found": RetryRule(retry=True),
        }
    )

    assert verdict(Failure(cause="timeout"), policy).action == "stop"
    assert [1.0, 3.0, 9.0, 20.0] == [
        verdict(Failure(cause="server"), policy, retries=n).wait for n in range(4)
    ]
    assert verdict(Failure(cause="server"), policy, retries=5).action == "stop"
    assert verdict(Failure(cause="not_found", retryable=False), policy).action == "retry"
    assert verdict(Failure(cause="connection"), policy, retries=2).action == "stop"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["none", "full", "equal", "decorrelated"]) | st.floats(0, 1),
    st.floats(0, 10),
    st.floats(0, 100),
    st.floats(0, 10),
    st.integers(1, 5_000),
    st.floats(0, 100),
    st.floats(0, 0.999),
)
def test_backoff_stays_within_bounds(
    jitter: Any, base: float, cap: float, factor: float, failures: int, previous: float, die: float
) -> None:
    """
    No jitter, exponent or die gives a negative, endless or longer wait than the cap.
    """
    wait = backoff(
        RetryRule(base=base, cap=cap, factor=factor, jitter=jitter), failures, previous, lambda: die
    )

    assert 0.0 <= wait <= cap


@pytest.mark.parametrize(
    ("jitter", "lowest", "highest"),
    [
        ("none", 2.0, 2.0),
        ("full", 0.0, 2.0),
        ("equal", 1.0, 2.0),
        (0.25, 1.5, 2.0),
        ("decorrelated", 1.25, 3.0),
    ],
)
def test_backoff_jitter_range(jitter: Any, lowest: float, highest: float) -> None:
    """
    Each jitter spreads the third wait over its range.
    """
    rule = RetryRule(base=0.5, cap=100.0, factor=2.0, jitter=jitter)
    dice = random.Random(1).random

    waits = [backoff(rule, 3, 1.0, dice) for _ in range(2_000)]

    assert pytest.approx(lowest, abs=0.02) == min(waits)
    assert pytest.approx(highest, abs=0.02) == max(waits)


@pytest.mark.parametrize(
    "options",
    [
        {"base": -1.0},
        {"cap": float("nan")},
        {"jitter": "some"},
        {"jitter": 1.5},
        {"total_time": 0.0},
        {"max_retries": -1},
        {"max_retries": True},
        {"max_retries": "3"},
        {"total_time": "1"},
        {"budget": "x"},
        {"overload_threshold": 0},
        {"budget": -1},
        {"attempts": 0},
        {"attempts": 3, "max_retries": 3},
        {"overrides": {"server": RetryRule(jitter="x")}},  # type: ignore[arg-type]
    ],
)
def test_policy_refuses_nonsense(options: dict[str, Any]) -> None:
    """
    A policy that cannot work is refused where it is made.
    """
    with pytest.raises(ValueError, match=next(iter(options)) if "overrides" not in options else "jitter"):
        RetryPolicy(**options)


def test_policy_attempts() -> None:
    """
    Attempts count the first one, retries do not.
    """
    assert RetryPolicy(attempts=3).max_retries == 2
    assert RetryPolicy(attempts=3, max_retries=2).max_retries == 2
    assert RetryPolicy(max_retries=2).attempts is None
    assert (RetryPolicy(attempts=1).max_retries, RetryPolicy(max_retries=0).max_retries) == (0, 0)
    with pytest.raises(AttributeError):
        RetryPolicy().base = 1.0  # type: ignore[misc]


# --- one call ---------------------------------------------------------------------------------------------------------


async def test_call_succeeds_after_failures() -> None:
    """
    Two failures of different kinds, two waits on the curve, then the reply.
    """
    server = Server(ERROR_500, refused(), OK)
    asked = request()

    response = await middleware()(asked, server)

    assert response.status == 200
    # decorrelated, die 0.5: base 0.25 → 0.25 + 0.5·0.5; then 0.625 + 0.5·(1.5 − 0.625)
    assert [0.5, 1.0625] == server.gaps
    assert [(1, "server", 500, 0.5), (2, "connection", None, 1.0625)] == [
        (one.number, one.cause, one.status, one.waited) for one in asked.history
    ]
    assert server.open == 0


async def test_call_final_reply_is_returned() -> None:
    """
    A failure that remains is returned as the reply it is, read and closed, with the history before it.
    """
    server = Server(ERROR_500)
    asked = request()

    response = await middleware()(asked, server)

    assert (response.status, 3, 2) == (500, len(server.times), len(asked.history))
    assert b"boom" in response.content
    assert response.given_up == "all 2 retries are used"
    assert server.open == 0


async def test_call_final_error_has_history() -> None:
    """
    A connection that stays broken raises the last error, with the attempts before it.
    """
    last = refused("third")
    server = Server(refused("first"), APITimeoutError(message="second"), last)

    with pytest.raises(APIConnectionError) as caught:
        await middleware()(request(), server)

    assert caught.value is last
    assert [("connection", "first"), ("timeout", "second")] == [(a.cause, a.message) for a in last.attempts]
    assert str(last) == "third (attempt 3; all 2 retries are used)"


@pytest.mark.parametrize(
    ("status", "sent"),
    [(400, 1), (401, 1), (403, 1), (404, 1), (408, 3), (409, 3), (413, 1), (422, 1), (500, 3), (502, 3), (503, 3), (504, 3), (520, 3), (524, 3), (529, 3), (307, 1)],
)  # fmt: skip
async def test_call_by_status(status: int, sent: int) -> None:
    """
    An HTML page of a gateway is judged by its status alone.
    """
    server = Server((status, {"Content-Type": "text/html"}, b"<html><title>sorry</title></html>"))

    response = await middleware()(request(), server)

    assert (status, sent) == (response.status, len(server.times))


async def test_call_server_asks_for_time() -> None:
    """
    A Retry-After on a 503 is waited for in full, and a little more so that all do not come back at once.
    """
    server = Server((503, {"Retry-After": "20"}, b""), OK)

    await middleware()(request(), server)

    assert [22.5] == server.gaps


@pytest.mark.parametrize("value", ["-5", "nan", "9" * 5_000, "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_call_garbage_hint(value: str) -> None:
    """
    A hint that cannot be believed changes nothing.
    """
    server = Server((500, {"Retry-After": value}, b""), OK)

    await middleware()(request(), server)

    assert [0.5] == server.gaps


async def test_call_hint_as_date() -> None:
    """
    A date is counted from the wall clock, which only then is read.
    """
    server = Server((500, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""), OK)

    await middleware(wall=lambda: 1_445_412_470.0)(request(), server)

    assert [11.25] == server.gaps


async def test_call_deadline_shorter_than_hint() -> None:
    """
    A wait beyond the deadline raises at once, and says so.
    """
    server = Server((503, {"Retry-After": "20"}, b""))
    loop = asyncio.get_running_loop()

    response = await middleware()(request(deadline=loop.time() + 10), server)

    assert (1, 0.0) == (len(server.times), loop.time())
    assert "asks to wait 20 s, and only 10 s" in response.given_up


@pytest.mark.parametrize(("deadline", "total_time"), [(10.0, 100.0), (100.0, 10.0)])
async def test_call_shorter_of_deadline_and_total_time(deadline: float, total_time: float) -> None:
    """
    Of the caller's deadline and the policy's total time the shorter one counts.
    """
    server = Server((503, {"Retry-After": "20"}, b""))

    response = await middleware(RetryPolicy(total_time=total_time))(request(deadline=deadline), server)

    assert len(server.times) == 1
    assert "only 10 s are allowed" in response.given_up


@pytest.mark.parametrize("steps", [[hangs], [ERROR_500, hangs]])
async def test_call_deadline_while_the_server_is_silent(steps: list[Step]) -> None:
    """
    The deadline ends an attempt that is under way, as a timeout with the history before it.
    """
    loop = asyncio.get_running_loop()

    with pytest.raises(APITimeoutError, match="time allowed for the call was over") as caught:
        await middleware()(request(deadline=loop.time() + 30), Server(*steps))

    assert loop.time() == pytest.approx(30.0, abs=0.01)
    assert caught.value.phase == "deadline"
    assert len(steps) - 1 == len(caught.value.attempts)


async def test_call_deadline_while_the_reply_is_read() -> None:
    """
    The deadline holds until the reply is accepted, and the reply is closed.
    """
    server = Server(OK)

    with pytest.raises(APITimeoutError):
        await middleware()(request(deadline=30, accept=accept_hangs), server)

    assert server.open == 0


async def test_call_deadline_of_someone_else() -> None:
    """
    A timeout of the caller's own around the call stays theirs.
    """
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(10):
            await middleware()(request(deadline=30), Server(hangs))

    assert not isinstance(caught.value, KimiError)


async def test_call_total_time() -> None:
    """
    `total_time` ends a call whose single attempts would go on.
    """
    server = Server(ERROR_500, delay=4.0)

    await middleware(RetryPolicy(total_time=10.0))(request(max_retries=99), server)

    assert len(server.times) == 3


async def test_call_stale_connection() -> None:
    """
    A pooled connection that had been closed is replaced without waiting, and is no attempt.
    """
    server = Server(refused(reused=True), ERROR_500, refused(reused=True), ERROR_500, OK)

    response = await middleware()(request(), server)

    assert response.status == 200
    assert [0.0, 0.5, 0.0, 1.0625] == server.gaps


async def test_call_stale_connections_without_end() -> None:
    """
    Of stale connections, too, there is an end.
    """
    server = Server(refused(reused=True))

    with pytest.raises(APIConnectionError):
        await middleware()(request(max_retries=1), server)

    assert len(server.times) == 4


async def test_call_stream_that_fails_before_its_first_event() -> None:
    """
    An error inside a 200, before anything was decoded, is a failed attempt with the class it deserves.
    """
    fates: list[KimiError | None] = [
        EngineOverloadedError.make(
            "busy", status=200, headers={}, request=None, body=None, kind="overloaded"
        ),
        IncompleteStreamError(message="nothing came"),
        None,
    ]

    async def accept(response: Response) -> None:
        fate = fates.pop(0)
        if fate is not None:
            response.close()
            raise fate

    server = Server(OK)
    asked = request(accept=accept, stream=True)

    response = await middleware()(asked, server)

    assert (response.status, 3) == (200, len(server.times))
    assert ["overloaded", "connection"] == [one.cause for one in asked.history]


async def test_call_reply_of_the_wrong_shape() -> None:
    """
    A 200 that is not JSON is tried again.
    """
    tries = [True, False]

    async def accept(response: Response) -> None:
        await response.read()
        if tries.pop(0):
            raise APIResponseValidationError(response, None)

    server = Server(OK)

    await middleware()(request(accept=accept), server)

    assert len(server.times) == 2


async def test_call_foreign_exception_passes() -> None:
    """
    A bug in somebody's middleware is not a failed attempt.
    """

    async def broken(_: Request) -> Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await middleware()(request(), Server(broken))


async def test_call_error_body_that_breaks_off() -> None:
    """
    Where the body of an error cannot be read, its status is still heard.
    """

    async def breaking(asked: Request) -> Response:
        async def reader() -> bytes:
            raise refused("reset")

        return Response(503, Headers({"x-note": "kept"}), request=asked, reader=reader)

    response = await middleware()(request(max_retries=0), Server(breaking))

    assert (503, "kept", b"") == (response.status, response.headers["X-Note"], response.content)


class OneTimeBody:
    replayable = False
    length = None
    content_type = "application/octet-stream"

    async def __aiter__(self) -> Any:
        yield b""

    async def read(self) -> bytes:
        return b""


class RewoundBody(OneTimeBody):
    replayable = True


@pytest.mark.parametrize(("body", "sent"), [(b"x", 3), (None, 3), (OneTimeBody(), 1), (RewoundBody(), 3)])
async def test_call_body_by_replayability(body: Any, sent: int) -> None:
    """
    Bytes and files that can be rewound are sent again; a generator is not.
    """
    server = Server(ERROR_500)

    await middleware()(request(body=body), server)

    assert sent == len(server.times)


async def test_call_requeued_at_the_head_without_an_attempt() -> None:
    """
    While others are admitted, a refused call goes back to the limiter again and again, ahead of the rest, and in the end
    gets through with its retries unused.
    """
    server = Server(*[RPM] * 40, ERROR_500, ERROR_500, OK)
    asked = request(priority=3)

    response = await middleware(limiter=Limiter(alive=True))(asked, server)

    assert (response.status, 43) == (200, len(server.times))
    assert (asked.priority, asked.turn) == (3, Turn(kept=True))


async def test_call_limiter_that_does_not_hold() -> None:
    """
    A limiter that lets a refused call run against the same wall at once does not make it spin: retry waits.
    """
    server = Server(*[RPM] * 10, OK, delay=0.05)

    await middleware(limiter=Limiter(alive=True))(request(), server)

    assert [0.05, 0.05, 0.05, 0.8, 1.55, 3.05, 6.05, 12.05, 24.05, 45.05] == server.gaps


async def test_call_that_no_limiter_sees() -> None:
    """
    A GET passes the limiter untouched, so that retry itself waits after its refusal, and an attempt is used.
    """
    server = Server(RPM)

    await middleware(limiter=Limiter(alive=True))(request(method="GET", body=None), server)

    assert [1.125, 1.5] == server.gaps


async def test_call_admission_of_another_kind() -> None:
    """
    A list that can be read does not show that completions are admitted.
    """
    wrapped = middleware(limiter=Limiter(alive=False))
    await wrapped(request(method="GET", body=None), Server(OK))
    server = Server(RPM)

    await wrapped(request(), server)

    assert len(server.times) == 3


async def test_call_wait_in_the_limiter_is_told_apart() -> None:
    """
    Time in the limiter's queue is waiting, not part of the attempt that failed after it.
    """
    server = Server(RPM, ERROR_500, OK, delay=0.5)

    async def limiting(asked: Request) -> Response:
        if server.times:
            await asyncio.sleep(7.0)
            asked.turn = Turn(waited=7.0)
        return await server(asked)

    asked = request()

    await middleware(limiter=Limiter(alive=True))(asked, limiting)

    assert [(0.5, 7.0), (0.5, 0.5)] == [(one.elapsed, one.waited) for one in asked.history]


@pytest.mark.parametrize(
    ("status", "told", "sent"), [(500, "false", 1), (400, "true", 3), (429, "false", 1), (500, "maybe", 3)]
)
async def test_call_server_verdict(status: int, told: str, sent: int) -> None:
    """
    x-should-retry is obeyed on the wire.
    """
    server = Server((status, {"X-Should-Retry": told}, b""))

    await middleware(limiter=Limiter(alive=True))(request(), server)

    assert sent == len(server.times)


@pytest.mark.parametrize("error", [refused(), asyncio.CancelledError(), ZeroDivisionError()])
async def test_call_reply_that_is_not_accepted(error: BaseException) -> None:
    """
    Whatever ends the acceptance of a reply, the reply is closed and its slot free.
    """

    async def accept(_: Response) -> None:
        raise error

    server = Server(OK)

    with pytest.raises(type(error)):
        await middleware()(request(accept=accept, max_retries=0), server)

    assert server.open == 0


async def test_call_server_that_only_refuses() -> None:
    """
    A server that only ever answers 429 ends the call by `max_retries`.
    """
    server = Server(RPM)

    response = await middleware(limiter=Limiter(alive=False))(request(), server)

    assert (429, 3) == (response.status, len(server.times))


async def test_call_server_that_refuses_after_having_admitted() -> None:
    """
    The admission of others is believed for a window and a half, not for ever.
    """
    wrapped = middleware(limiter=Limiter(alive=False))
    await wrapped(request(), Server(OK))

    async def slowly(asked: Request) -> Response:
        await asyncio.sleep(10)  # what a limiter would wait
        return await server(asked)

    server = Server(RPM)
    await wrapped(request(), slowly)

    # Nine refusals in the first 90 s are free, the tenth is the first to count.
    assert len(server.times) == 12


async def test_call_history_is_bounded() -> None:
    """
    A call that was refused a thousand times remembers the beginning and the end.
    """
    server = Server(*[RPM] * 1_000, OK)
    asked = request()

    await middleware(limiter=Limiter(alive=True))(asked, server)

    assert len(asked.history) == 64
    assert (1, 1_000) == (asked.history[0].number, asked.history[-1].number)


async def test_call_refused_by_our_own_limiter() -> None:
    """
    A refusal of our own is no attempt: it is raised at once, with the server's refusals that led to it.
    """
    wait = RateLimitWaitError("too long", eta=9.0)
    server = Server(RPM, wait)

    with pytest.raises(RateLimitWaitError) as caught:
        await middleware(limiter=Limiter(alive=True))(request(), server)

    assert caught.value is wait
    assert ["rate_limit"] == [one.cause for one in wait.attempts]


async def test_call_messages_are_redacted() -> None:
    """
    The account ids that Kimi writes into its messages do not reach the history.
    """
    text = "Your account org-0123456789abcdef0123456789abcdef<ak-f1v2a3l4u5e6s7h8i9d0> is slow"
    server = Server((500, {}, body_of(text, "server_error")), OK)
    asked = request()

    await middleware()(asked, server)

    assert "org-…<ak-…>" in asked.history[0].message
    assert "0123456789" not in asked.history[0].message


@pytest.mark.parametrize("strategy", [None, tenacity.stop_after_attempt(3)])
async def test_call_failed_error_is_freed(strategy: Any) -> None:
    """
    A failed call leaves nothing for the garbage collector: its error goes when the caller lets go.
    """

    async def fail() -> list[weakref.ref[Any]]:
        class Body(RewoundBody):
            pass

        body = Body()

        async def refuse(_: Request) -> Response:
            raise APIConnectionError()

        try:
            await middleware(RetryPolicy(strategy=strategy))(request(body=body), refuse)
        except APIConnectionError as error:
            return [weakref.ref(error), weakref.ref(body)]
        raise AssertionError("it should have failed")

    gc.collect()
    gc.disable()
    try:
        assert [None, None] == [reference() for reference in await fail()]
    finally:
        gc.enable()


# --- cancellation -----------------------------------------------------------------------------------------------------


POISON: Sequence[Any] = [
    None,
    tenacity.AsyncRetrying(retry=tenacity.retry_if_exception(lambda _: True)),
    tenacity.AsyncRetrying(retry=tenacity.retry_if_not_exception_type(ValueError)),
    tenacity.AsyncRetrying(retry=tenacity.retry_always),
]


@pytest.mark.parametrize("strategy", POISON)
@pytest.mark.parametrize(
    ("steps", "accept"),
    [
        ([hangs], read),  # the first attempt
        ([OK], accept_hangs),  # its first event
        ([ERROR_500], read),  # the wait before a retry
        ([ERROR_500, hangs], read),  # a later attempt, inside tenacity
        ([ERROR_500, OK], "second accept hangs"),
    ],
)
async def test_call_cancelled_at_every_await(strategy: Any, steps: list[Step], accept: Any) -> None:
    """
    Wherever a call waits, a cancellation ends it at once, whatever the user's strategy would repeat.
    """
    if accept == "second accept hangs":
        accept = accept_hangs
    policy = RetryPolicy(base=5.0, jitter="none", strategy=strategy)
    wrapped = middleware(policy)
    server = Server(*steps)
    task = asyncio.ensure_future(wrapped(request(accept=accept), server))
    await asyncio.sleep(6.0 if len(steps) > 1 else 2.0)
    sent = len(server.times)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert sent == len(server.times)
    assert [org.active for org in wrapped._organisations.values()] == [0]
    assert [len(org.sleepers) for org in wrapped._organisations.values()] == [0]


async def test_call_cancelled_while_it_waits_for_budget() -> None:
    """
    A call cancelled in the queue for the budget leaves it, and those behind it move up.
    """
    budget = RetryBudget(14)
    assert budget.spend(14)
    wrapped = middleware(RetryPolicy(base=0.0, budget_patience=100.0), budget=budget)
    first, second = Server(ERROR_500, OK), Server(ERROR_500, OK)
    tasks = [asyncio.ensure_future(wrapped(request(), server)) for server in (first, second)]
    await asyncio.sleep(1)

    tasks[0].cancel()
    await asyncio.sleep(1)
    budget.deposit(14)
    await tasks[1]

    assert (1, 2) == (len(first.times), len(second.times))
    assert tasks[0].cancelled()


# --- tenacity ---------------------------------------------------------------------------------------------------------


def test_first_attempt_does_not_import_tenacity() -> None:
    """
    A call that works the first time does not even load tenacity.
    """
    import subprocess
    import sys

    program = (
        "import asyncio, sys\n"
        "from kimi_async.middleware.retry import RetryMiddleware\n"
        "from kimi_async.transport import Request, Response\n"
        "async def send(request): return Response(200, {}, request=request)\n"
        "asyncio.run(RetryMiddleware()(Request('GET', 'http://x/'), send))\n"
        "sys.exit('tenacity' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_strategy_of_waits() -> None:
    """
    A tenacity wait replaces the curve, and sees the number of the attempt that failed.
    """
    server = Server(ERROR_500, ERROR_500, OK)

    await middleware(RetryPolicy(strategy=tenacity.wait_incrementing(start=10, increment=5)))(
        request(), server
    )

    assert [10.0, 15.0] == server.gaps


async def test_strategy_of_stops() -> None:
    """
    A tenacity stop replaces `max_retries`.
    """
    server = Server(ERROR_500)

    await middleware(RetryPolicy(strategy=tenacity.stop_after_attempt(5)))(request(max_retries=1), server)

    assert len(server.times) == 5


async def test_strategy_stop_reads_the_clock_of_the_loop() -> None:
    """
    `stop_after_delay` counts virtual seconds.
    """
    server = Server(ERROR_500)
    strategy = tenacity.AsyncRetrying(stop=tenacity.stop_after_delay(35), wait=tenacity.wait_fixed(10))

    await middleware(RetryPolicy(strategy=strategy))(request(), server)

    assert [0.0, 10.0, 20.0, 30.0, 40.0] == server.times


async def test_strategy_wait_yields_to_the_hint() -> None:
    """
    No strategy comes back before the server said so.
    """
    server = Server((503, {"Retry-After": "7"}, b""), OK)

    await middleware(RetryPolicy(strategy=tenacity.wait_fixed(1)))(request(), server)

    assert [7.0] == server.gaps


@pytest.mark.parametrize(
    ("step", "sent"), [((404, {}, b""), 3), (ERROR_500, 1), (QUOTA, 1), ((401, {}, b""), 1)]
)
async def test_strategy_predicate(step: Step, sent: int) -> None:
    """
    A predicate of the user's decides what is repeated, but for what nothing helps.
    """
    strategy = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda e: not isinstance(e, InternalServerError))
    )
    server = Server(step)

    await middleware(RetryPolicy(strategy=strategy))(request(), server)

    assert sent == len(server.times)


async def test_strategy_callbacks_and_their_errors() -> None:
    """
    before_sleep is called with the failed attempt, and what it raises reaches the caller.
    """
    seen: list[tuple[int, str]] = []

    def before_sleep(state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        seen.append((state.attempt_number, type(state.outcome.exception()).__name__))
        if len(seen) == 2:
            raise ZeroDivisionError

    strategy = tenacity.AsyncRetrying(before_sleep=before_sleep)

    with pytest.raises(ZeroDivisionError):
        await middleware(RetryPolicy(strategy=strategy))(request(max_retries=9), Server(ERROR_500))

    assert [(1, "InternalServerError"), (2, "InternalServerError")] == seen


async def test_strategy_used_by_many_calls_at_once() -> None:
    """
    One tenacity object serves calls that run together: each has its own count.
    """
    strategy = tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(1))
    wrapped = middleware(RetryPolicy(strategy=strategy), budget=RetryBudget(10_000))
    servers = [Server(ERROR_500, delay=n / 10) for n in range(20)]

    await asyncio.gather(*[wrapped(request(), server) for server in servers])

    assert {3} == {len(server.times) for server in servers}


async def test_strategy_that_is_none() -> None:
    """
    Something that is no tenacity strategy is refused by name.
    """
    with pytest.raises(TypeError, match="must be a tenacity wait, stop or AsyncRetrying; got int"):
        RetryPolicy(strategy=3)
    with pytest.raises(TypeError, match="must be a tenacity wait, stop or AsyncRetrying; got function"):
        await middleware(RetryPolicy(strategy=lambda: 3))(request(), Server(ERROR_500))


# --- budget and breakers ----------------------------------------------------------------------------------------------


async def test_budget_bounds_a_storm() -> None:
    """
    200 calls to a server that is down send 200 requests and the 35 retries that 500 tokens pay, not 400; then one a second while
    somebody waits for the budget.
    """
    server = Server(ERROR_500)
    wrapped = middleware(dice=random.Random(1).random)

    replies = await asyncio.gather(*[wrapped(request(), server) for _ in range(200)])

    assert {500} == {reply.status for reply in replies}
    begun = asyncio.get_running_loop().time()
    rest = sorted(server.times)[235:]
    assert 8 <= len(rest) <= 16
    assert min(later - sooner for sooner, later in itertools.pairwise(rest)) == pytest.approx(1.0)
    assert begun < 30
    assert any("budget is spent" in reply.given_up for reply in replies)


async def test_budget_outlives_a_restart() -> None:
    """
    Where all 200 calls in flight break off at once and the server is back, every one gets through: the first successes
    pay for the rest.
    """
    server = Server(*[refused()] * 200, OK, delay=0.2)
    wrapped = middleware(dice=random.Random(1).random)

    replies = await asyncio.gather(*[wrapped(request(), server) for _ in range(200)])

    assert {200} == {reply.status for reply in replies}
    assert len(server.times) == 400
    assert asyncio.get_running_loop().time() < 5.0


@pytest.mark.parametrize("down", [3.0, 8.0])
async def test_budget_spent_leaves_one_who_tries_each_second(down: float) -> None:
    """
    A server fails whatever comes, longer than the budget lasts, and is back: a second later it is known, and no call is lost.
    """
    loop = asyncio.get_running_loop()
    tried: list[float] = []

    async def server(sent: Request) -> Response:
        tried.append(loop.time())
        return Response(500 if loop.time() < down else 200, request=sent)

    wrapped = middleware(dice=random.Random(1).random)
    replies = await asyncio.gather(*[wrapped(request(max_retries=4), server) for _ in range(200)])

    assert {200} == {reply.status for reply in replies}
    assert loop.time() < down + 1.5
    assert sum(at > 1.5 for at in tried if at < down) <= down
    assert wrapped.budget.available == wrapped.budget.capacity


async def test_budget_comes_back_in_doubling_steps() -> None:
    """
    A thousand calls wait when a server that was down is back, half a second an answer: one goes, then two, then four, and each is
    answered, though the last waits for longer than the budget's patience.
    """
    loop = asyncio.get_running_loop()
    down, rounds = 8.0, Counter[float]()

    async def server(sent: Request) -> Response:
        if loop.time() < down:
            return Response(500, request=sent)
        rounds[loop.time()] += 1
        await asyncio.sleep(0.5)
        return Response(200, request=sent)

    wrapped = middleware(RetryPolicy(budget_patience=9.0), dice=random.Random(1).random)
    replies = await asyncio.gather(*[wrapped(request(max_retries=4), server) for _ in range(1_000)])

    assert {200} == {reply.status for reply in replies}
    assert loop.time() < down + 6.0
    # Beside them one goes each second that nobody has paid for, and its success pays for two.
    assert [1, 2] == list(rounds.values())[:2]
    assert sum(count for at, count in rounds.items() if at < min(rounds) + 1.9) < 20


async def test_budget_of_the_policy() -> None:
    """
    A policy gives the budget its size, or none.
    """
    for size, sent in ((28, 12), (0, 10), (None, 30)):
        server = Server(ERROR_500)
        wrapped = middleware(RetryPolicy(budget=size, budget_patience=0))
        await asyncio.gather(*[wrapped(request(), server) for _ in range(10)])
        assert sent == len(server.times)


def test_budget_arithmetic() -> None:
    """
    It is spent down to what is left, and never filled above its capacity.
    """
    budget = RetryBudget(20)

    assert (repr(budget), repr(RetryBudget(None))) == ("<RetryBudget 20/20>", "<RetryBudget without limit>")
    assert [True, False, True] == [budget.spend(14), budget.spend(14), budget.spend(5)]
    budget.deposit(3)
    assert budget.available == 4
    budget.repay(0)
    assert budget.available == 5
    budget.deposit(100)
    assert budget.available == 20


async def test_budget_waiters_are_served_in_order() -> None:
    """
    Nobody overtakes in the queue for the budget, however little they want.
    """
    budget = RetryBudget(14)
    budget.spend(14)
    order: list[int] = []

    async def want(cost: int) -> None:
        if await budget.spend_within(cost, 100):
            order.append(cost)

    tasks = [asyncio.ensure_future(want(cost)) for cost in (14, 5, 1)]
    await asyncio.sleep(0.3)
    budget.deposit(6)
    assert not budget.spend(1)
    await asyncio.sleep(0.3)
    assert not order
    budget.deposit(14)
    budget.deposit(14)
    await asyncio.gather(*tasks)

    assert [14, 5, 1] == order


async def test_budget_granted_in_the_moment_of_cancellation() -> None:
    """
    What was granted to one who was cancelled in the same turn goes back.
    """
    budget = RetryBudget(14)
    budget.spend(14)
    task = asyncio.ensure_future(budget.spend_within(14, 100))
    await asyncio.sleep(0.3)

    budget.deposit(14)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert budget.available == 14


def test_breaker_opens_by_generations_and_time() -> None:
    """
    A hundred that fail together are one observation; it takes several, over the time of patience.
    """
    breaker = OverloadBreaker(threshold=3, patience=60.0, cooldown=30.0)

    assert not any(breaker.failed(sent=0.0, now=8.0 + n / 100) for n in range(100))
    assert breaker.generations == 1
    assert not breaker.failed(sent=20.0, now=28.0)
    assert not breaker.failed(sent=40.0, now=48.0)  # the third, and 40 s: too soon
    assert breaker.blocked(50.0) is None
    assert breaker.failed(sent=60.0, now=69.0)
    assert breaker.blocked(69.5) == 0.5
    assert breaker.blocked(70.0) is None  # one may try
    assert breaker.blocked(70.0) == 1.5


def test_breaker_lets_try_soon_and_then_more_slowly() -> None:
    """
    A second after it opened, then ever more slowly, up to the cool-down; late refusals of those who tried add nothing to it.
    """
    breaker = OverloadBreaker(threshold=1, patience=0.0, cooldown=3.0)
    assert breaker.failed(sent=0.0, now=0.0)

    tried: list[float] = []
    while len(tried) < 6:
        wait = breaker.blocked(tried[-1] if tried else 0.0)
        assert wait is not None
        tried.append((tried[-1] if tried else 0.0) + wait)
        assert breaker.blocked(tried[-1]) is None
        assert not breaker.failed(sent=tried[-1] - 1.0, now=tried[-1])

    assert [1.0, 2.5, 4.75, 7.75, 10.75, 13.75] == tried


def test_breaker_waits_as_long_as_the_server_asks() -> None:
    """
    `Retry-After` is waited for, whether it came with the refusal that opened the breaker or with that of one who tried since.
    """
    breaker = OverloadBreaker(threshold=1, patience=0.0, cooldown=3.0)
    breaker.failed(0.0, 0.0, 20.0)
    assert breaker.blocked(0.0) == 20.0
    assert breaker.blocked(20.0) is None

    breaker.failed(20.0, 21.0, 60.0)
    assert breaker.blocked(21.0) == 60.0
    breaker.failed(20.5, 22.0)
    assert breaker.blocked(22.0) == 59.0


def test_breaker_success_of_an_old_request() -> None:
    """
    A long answer that was sent before the trouble says nothing about it; one sent since ends it.
    """
    breaker = OverloadBreaker(threshold=1, patience=0.0, cooldown=30.0)
    assert breaker.failed(sent=10.0, now=11.0)

    breaker.succeeded(sent=5.0)
    assert breaker.blocked(11.5) == 0.5
    breaker.succeeded(sent=11.0)
    assert breaker.blocked(11.5) is None


async def test_overload_that_lasts_fails_fast() -> None:
    """
    After its patience the breaker fails calls at once, with what was seen; a probe at most every cool-down; a success closes it.
    """
    server = Server(*[OVERLOADED] * 100)
    wrapped = middleware(RetryPolicy(overload_threshold=3, overload_patience=20.0))
    loop = asyncio.get_running_loop()
    while not wrapped._organisations or not next(iter(wrapped._organisations.values())).open:
        assert (await wrapped(request(), server)).status == 429
    sent, now = len(server.times), loop.time()

    with pytest.raises(CircuitOpenError, match=r"no capacity for \d+ s") as caught:
        await wrapped(request(), server)

    assert (sent, now) == (len(server.times), loop.time())
    assert caught.value.cause == "overloaded"
    assert caught.value.retry_after == 1.0
    assert {"overloaded"} == {attempt.cause for attempt in caught.value.attempts}

    await asyncio.sleep(3.0)
    assert (await wrapped(request(), server)).status == 429  # the probe, and only once
    assert sent + 1 == len(server.times)
    await asyncio.sleep(3.0)
    server.steps = [OK]
    assert (await wrapped(request(), server)).status == 200
    assert (await wrapped(request(), server)).status == 200


async def test_overload_breaker_wakes_those_who_wait() -> None:
    """
    When the breaker opens, calls that sleep before a retry fail at once, not when their time comes.
    """
    policy = RetryPolicy(
        overload_threshold=2,
        overload_patience=0.0,
        overrides={"overloaded": RetryRule(base=500.0, cap=500.0, jitter="none")},
    )
    wrapped = middleware(policy)
    sleeping = asyncio.ensure_future(wrapped(request(), Server(OVERLOADED)))
    await asyncio.sleep(5.0)

    await wrapped(request(), Server(OVERLOADED))
    with pytest.raises(CircuitOpenError) as caught:
        await sleeping

    assert asyncio.get_running_loop().time() == 5.0
    assert ["overloaded"] == [attempt.cause for attempt in caught.value.attempts]


async def test_quota_opens_the_breaker_for_everybody() -> None:
    """
    Once an account has run dry, waiting calls fail at once and new ones are not sent, until a probe a minute later.
    """
    wrapped = middleware()
    waiting = asyncio.ensure_future(wrapped(request(), Server((503, {"Retry-After": "100"}, b""))))
    await asyncio.sleep(1.0)
    server = Server(QUOTA, OK)

    assert (await wrapped(request(), server)).status == 429
    with pytest.raises(CircuitOpenError, match="no balance or quota left") as caught:
        await waiting
    assert caught.value.cause == "quota"
    with pytest.raises(CircuitOpenError):
        await wrapped(request(), server)
    assert len(server.times) == 1

    # Another key is another account; and the balance may be asked for.
    assert (await wrapped(request(key="Bearer sk-another0123456789"), Server(OK))).status == 200
    assert (await wrapped(request(method="GET", body=None), Server(OK))).status == 200
    await asyncio.sleep(60.0)
    assert (await wrapped(request(), server)).status == 200
    assert (await wrapped(request(), server)).status == 200


async def test_quota_while_a_long_answer_arrives() -> None:
    """
    A reply to a request sent before the money ran out does not close the breaker.
    """
    wrapped = middleware()
    long = asyncio.ensure_future(wrapped(request(), Server(OK, delay=10.0)))
    await asyncio.sleep(1.0)
    await wrapped(request(), Server(QUOTA))

    assert (await long).status == 200
    with pytest.raises(CircuitOpenError):
        await wrapped(request(), Server(OK))


def test_middleware_over_several_loops() -> None:
    """
    What was learnt on a loop that is gone, with its clock, binds nobody on the next.
    """
    wrapped = middleware()

    async def spend() -> None:
        await asyncio.sleep(1_000)
        await wrapped(request(), Server(QUOTA))

    async def again() -> int:
        return (await wrapped(request(), Server(OK))).status

    from kimi_async.testing.clock import run

    run(spend())
    assert run(again()) == 200


async def test_middleware_forgets_idle_organisations() -> None:
    """
    A client that meets a new key with every call remembers a bounded number of them.
    """
    wrapped = middleware()

    for n in range(600):
        await wrapped(request(key=f"Bearer sk-{n:016}"), Server(OK))

    assert len(wrapped._organisations) <= 256


def test_budget_over_two_loops() -> None:
    """
    A waiter on one loop is woken by a success on another, in another thread; one whose loop is gone takes nothing.
    """
    import threading

    budget = RetryBudget(14)
    budget.spend(14)
    waiting = threading.Event()
    granted: list[int] = []

    def elsewhere() -> None:
        async def wait() -> None:
            task = asyncio.ensure_future(budget.spend_within(14, 30))
            await asyncio.sleep(0)
            waiting.set()
            granted.append(await task)

        asyncio.run(wait())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert waiting.wait(10)

    async def succeed() -> None:
        budget.deposit(14)

    asyncio.run(succeed())
    thread.join(10)

    assert granted == [14]
    assert budget.available == 0


# --- everything at once -----------------------------------------------------------------------------------------------

ANY_STEP = st.sampled_from(
    [
        OK,
        RPM,
        OVERLOADED,
        ERROR_500,
        QUOTA,
        (400, {}, b""),
        (503, {"Retry-After": "3"}, b""),
        (429, {"Retry-After": "500"}, b""),
        (500, {"x-should-retry": "false"}, b""),
        (404, {"x-should-retry": "true"}, b""),
        (502, {}, b"<html>"),
        "refused",
        "stale",
        "timeout",
        "local",
        "hangs",
        "not accepted",
    ]
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.lists(ANY_STEP, min_size=1, max_size=6), st.floats(0, 3)), min_size=1, max_size=6),
    st.integers(0, 3),
    st.none() | st.floats(0.5, 60),
    st.none() | st.floats(0.1, 200),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 28, 500]),
    st.integers(0, 2**32),
)
def test_middleware_whatever_happens(
    calls: list[tuple[list[Any], float]],
    max_retries: int,
    deadline: float | None,
    cancel_after: float | None,
    limiter: bool,
    alive: bool,
    budget: int,
    seed: int,
) -> None:
    """
    Whatever servers answer to calls that run together, each ends: with a reply or one of our errors, within its retries,
    with a history that is true, every reply closed and nothing left behind.
    """
    from kimi_async.testing.clock import run

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wrapped = RetryMiddleware(
            RetryPolicy(alive_for=30.0, overload_threshold=2, overload_patience=10.0, budget=budget),
            limiter=Limiter(alive) if limiter else None,
            dice=random.Random(seed).random,
        )
        servers: list[Server] = []

        async def one(steps: list[Any], delay: float) -> tuple[Request, Server, Any]:
            sent = 0

            async def serve(asked: Request) -> Response:
                nonlocal sent
                # After its script every server answers well, or only refuses for ever.
                step = steps[sent] if sent < len(steps) else (OK if seed % 2 else (400, {}, b""))
                sent += 1
                await asyncio.sleep(delay)
                if step == "refused":
                    raise refused()
                if step == "stale":
                    raise refused(reused=True)
                if step == "timeout":
                    raise APITimeoutError()
                if step == "local":
                    raise RateLimitWaitError("ours")
                if step == "hangs":
                    await asyncio.sleep(100)
                    step = OK
                if step == "not accepted":
                    asked.extensions["bad"] = True
                    step = OK
                status, headers, data = step
                server.open += 1
                response = Response(status, Headers(headers), request=asked, body=data)
                response.on_close(server._closed)
                return response

            async def accept(response: Response) -> None:
                if response.request.extensions.pop("bad", False):
                    raise APIResponseValidationError(response, None)
                await response.read()

            server = Server(serve)
            servers.append(server)
            asked = request(
                accept=accept,
                max_retries=max_retries,
                deadline=None if deadline is None else loop.time() + deadline,
            )
            try:
                return asked, server, await wrapped(asked, server)
            except KimiError as error:
                return asked, server, error

        tasks = [asyncio.ensure_future(one(steps, delay)) for steps, delay in calls]
        if cancel_after is not None:
            loop.call_later(cancel_after, tasks[0].cancel)
        ended = await asyncio.gather(*tasks, return_exceptions=True)

        assert [0] * len(servers) == [server.open for server in servers]
        assert {0} == {org.active for org in wrapped._organisations.values()}
        assert not any(org.sleepers for org in wrapped._organisations.values())
        assert 0 <= wrapped.budget.available <= budget
        for outcome in ended:
            if isinstance(outcome, asyncio.CancelledError):
                continue
            assert isinstance(outcome, tuple)
            asked, server, reply = outcome
            history = asked.history
            assert sorted(one.number for one in history) == [one.number for one in history]
            free = ("rate_limit", "overloaded", "unavailable", "connection")
            assert len([one for one in history if one.cause not in free]) <= max_retries
            if not isinstance(reply, RateLimitWaitError | CircuitOpenError):
                assert len(server.times) == len(history) + 1
            if isinstance(reply, APIConnectionError):
                assert reply.attempts == tuple(history)
            if deadline is not None and server.times:
                assert server.times[-1] <= asked.deadline + 1e-6  # type: ignore[operator]

    run(main())


# --- what is told -----------------------------------------------------------------------------------------------------


async def test_hooks_are_told_in_order() -> None:
    """
    Each failure, each decision and the end are told, with cause, reason and wait.
    """
    seen: list[Event] = []
    server = Server(ERROR_500)

    await middleware(watcher=Observer([seen.append]))(request(max_retries=1), server)

    assert ["AttemptFailed", "RetryScheduled", "AttemptFailed", "CallFailed"] == [
        type(e).__name__ for e in seen
    ]
    first, scheduled, _, last = seen
    assert isinstance(first, AttemptFailed)
    assert (1, "server", 500) == (first.attempt.number, first.attempt.cause, first.attempt.status)
    assert isinstance(scheduled, RetryScheduled)
    assert ("server: retry 1 of 1", 0.5, False) == (scheduled.reason, scheduled.wait, scheduled.requeued)
    assert isinstance(last, CallFailed)
    assert ("all 1 retries are used", 2, 0.5) == (last.reason, last.attempts, last.elapsed)


async def test_hooks_that_raise() -> None:
    """
    What a hook raises changes nothing: the call is repeated, and works.
    """

    def hook(_: Event) -> None:
        raise ZeroDivisionError

    assert 200 == (await middleware(watcher=Observer([hook]))(request(), Server(ERROR_500, OK))).status


async def test_status_error_keeps_its_class() -> None:
    """
    An error raised in place of a reply is raised again as it was.
    """
    error = APIStatusError.make("x", status=404, headers={}, request=None, body=None, kind="not_found")

    with pytest.raises(APIStatusError) as caught:
        await middleware()(request(), Server(error))

    assert caught.value is error
