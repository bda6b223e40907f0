"""
What hooks are told, what the log says, and what neither may say.
"""

import asyncio
import io
import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_async.client import AsyncKimi
from kimi_async.errors import Attempt
from kimi_async.middleware.events import (
    AttemptFailed,
    CallFailed,
    Event,
    LimiterWaited,
    Observer,
    RequestStarted,
    ResponseFinished,
    RetryScheduled,
    TelemetryMiddleware,
    headers_shown,
    observer,
    setup_logging,
)
from kimi_async.testing.memory_transport import MemoryTransport, Reply
from kimi_async.transport.exchange import Headers, Request, Response

KEY = "sk-0123456789abcdefghijklmnop"
ORG = "org-0123456789abcdef0123456789abcdef"
AK = "ak-f1v2a3l4u5e6s7h8i9d0"


pytestmark = pytest.mark.virtual_clock


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """The package's logger, put back as it was."""
    logger = logging.getLogger("kimi_async")
    level, handlers, propagate = logger.level, list(logger.handlers), logger.propagate
    try:
        yield logger
    finally:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


def request(**options: Any) -> Request:
    options.setdefault("body", b'{"model":"kimi-k3","messages":[]}')
    return Request(
        "POST",
        "https://user:secret@api.example.test/v1/chat/completions?token=hidden",
        headers=Headers({"Authorization": f"Bearer {KEY}"}),
        **options,
    )


EVENTS: list[Event] = [
    RequestStarted(call=1, method="POST", url="u", stream=True, size=10, priority=0, max_retries=2, deadline=None),
    AttemptFailed(
        call=1,
        method="POST",
        url="u",
        attempt=Attempt(1, "rate_limit", 429, "rate_limit_reached_error", f"Your account {ORG}<{AK}> is slow", 0.0, 0.25),
    ),
    RetryScheduled(call=1, method="POST", url="u", attempt=1, cause="server", reason="server: 1", wait=0.5, requeued=False),
    RetryScheduled(call=1, method="POST", url="u", attempt=1, cause="rate_limit", reason="turn", wait=0.0, requeued=True),
    CallFailed(call=1, method="POST", url="u", cause="server", reason="all 2 retries are used", attempts=3, elapsed=1.5),
    LimiterWaited(call=1, method="POST", url="u", wait=2.5, reason="rpm"),
    ResponseFinished(
        call=1,
        method="POST",
        url="u",
        status=200,
        request_id="r-1",
        attempts=1,
        headers_after=0.1,
        elapsed=0.2,
        bytes_received=1_234,
        usage={"prompt_tokens": 3, "completion_tokens": 4},
    ),
]  # fmt: skip

LINES = [
    "DEBUG call 1 POST u begins: 10 bytes, stream",
    "INFO call 1 POST u attempt 1 failed after 0.250 s: rate_limit: 429 Your account org-…<ak-…> is slow "
    "(rate_limit_reached_error)",
    "INFO call 1 POST u will be sent again in 0.500 s: server: 1",
    "INFO call 1 POST u will be sent again when the limiter admits it: turn",
    "WARNING call 1 POST u failed after 3 attempt(s) in 1.500 s: server: all 2 retries are used",
    "DEBUG call 1 POST u waited 2.500 s for our limiter (rpm)",
    "INFO call 1 POST u 200 in 0.200 s, request r-1, 1,234 bytes, 3 + 4 tokens",
]


@pytest.mark.parametrize(("event", "line"), list(zip(EVENTS, LINES, strict=True)))
def test_log_line(event: Event, line: str, log: logging.Logger) -> None:
    """
    Each event is one line, at its level, without account ids.
    """
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)

    Observer()(event)

    assert f"{line}\n" == stream.getvalue()


def test_log_line_cannot_be_forged(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """
    A server's text neither begins a line of its own nor steers the terminal.
    """
    log.setLevel(logging.DEBUG)
    attempt = Attempt(1, "server", 500, None, "a\r\nERROR forged\x1b[2J\u2028b\x9bc", 0.0, 0.0)

    Observer()(AttemptFailed(call=0, method="POST", url="u", attempt=attempt))

    assert "server: 500 a ERROR forged [2J b c" in caplog.messages[0]


@pytest.mark.parametrize("event", EVENTS)
def test_event_is_frozen_and_pickles(event: Event) -> None:
    """
    An event can be kept, compared and handed to another process, and not be changed.
    """
    assert event == pickle.loads(pickle.dumps(event))
    with pytest.raises(AttributeError):
        event.call = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("word", "level"),
    [
        ("debug", logging.DEBUG),
        ("DEBUG", logging.DEBUG),
        (" info ", logging.INFO),
        ("warning", logging.WARNING),
        ("warn", logging.WARNING),
        ("error", logging.ERROR),
        ("1", logging.DEBUG),
        ("verbose", logging.INFO),
        ("", None),
        ("off", None),
    ],
)
def test_setup_logging_level(word: str, level: int | None, log: logging.Logger, capsys: Any) -> None:
    """
    KIMI_LOG sets the level; a word that is none means info and says so; silence is the default.
    """
    before = len(log.handlers)

    assert level == setup_logging({"KIMI_LOG": word})

    assert (before if level is None else before + 1) == len(log.handlers)
    assert ("is not a level" in capsys.readouterr().err) is (word == "verbose")


def test_setup_logging_without_variable(log: logging.Logger) -> None:
    """
    Without the variable nothing is touched.
    """
    before = list(log.handlers)

    assert setup_logging({}) is None
    assert before == log.handlers


def test_setup_logging_twice(log: logging.Logger) -> None:
    """
    Many clients make one handler.
    """
    before = len(log.handlers)

    setup_logging({"KIMI_LOG": "info"})
    setup_logging({"KIMI_LOG": "debug"})

    assert before + 1 == len(log.handlers)
    assert logging.DEBUG == log.level


def test_setup_logging_redacts_what_others_log(log: logging.Logger, capsys: Any) -> None:
    """
    Our handler takes secrets out of whatever comes through it, tracebacks included.
    """
    setup_logging({"KIMI_LOG": "debug"})
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        log.exception("Authorization: Bearer %s of %s", KEY, ORG)

    text = capsys.readouterr().err
    assert "ValueError: bad key sk-…" in text
    assert KEY[3:] not in text
    assert ORG[4:] not in text


def test_headers_shown_hides_secrets() -> None:
    """
    Keys, cookies and account ids are masked; the tier, which a log needs, is not.
    """
    shown = headers_shown(
        Headers(
            {
                "Authorization": f"Bearer {KEY}",
                "Set-Cookie": "a=b",
                "Msh-Uid": "u1",
                "Msh-Org-Id": ORG,
                "Msh-Project-Id": "proj-1",
                "Msh-Gid": "enterprise-tier-5",
                "Msh-Request-Id": "e1c6b6b8",
                "X-Echo": f"key={KEY}",
                "X-Long": "x" * 1_000,
            }
        )
    )

    assert {"…"} == {
        shown[name] for name in ("Authorization", "Set-Cookie", "Msh-Uid", "Msh-Org-Id", "Msh-Project-Id")
    }
    assert (shown["Msh-Gid"], shown["Msh-Request-Id"]) == ("enterprise-tier-5", "e1c6b6b8")
    assert shown["X-Echo"] == "key=sk-…"
    assert len(shown["X-Long"]) == 200
    assert headers_shown({"msh-gid": "g-1234"}) == {"msh-gid": "…"}


def test_observer_is_absent_where_nobody_watches(log: logging.Logger) -> None:
    """
    Without hook and log there is no observer to call.
    """
    log.setLevel(logging.WARNING)
    assert observer([]) is None
    assert observer([print]) is not None
    log.setLevel(logging.INFO)
    assert observer([]) is not None


async def test_middleware_tells_of_a_reply() -> None:
    """
    Beginning and end of a call are told, with times of the loop, and the usage of a reply that was read.
    """
    seen: list[Event] = []

    async def send(asked: Request) -> Response:
        await asyncio.sleep(1.5)
        body = b'{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4}}'
        response = Response(200, Headers({"Msh-Request-Id": "r-1"}), request=asked, body=body)
        await response.read()
        return response

    await TelemetryMiddleware(Observer([seen.append]))(
        request(priority=2, deadline=99.0, max_retries=1), send
    )

    started, finished = seen
    assert isinstance(started, RequestStarted)
    assert (started.method, started.url) == ("POST", "https://api.example.test/v1/chat/completions")
    assert (False, 33, 2, 1, 99.0) == (
        started.stream, started.size, started.priority, started.max_retries, started.deadline,
    )  # fmt: skip
    assert isinstance(finished, ResponseFinished)
    assert started.call == finished.call > 0
    assert (200, "r-1", 1, 1.5, 1.5) == (
        finished.status, finished.request_id, finished.attempts, finished.headers_after, finished.elapsed,
    )  # fmt: skip
    assert finished.usage == {"prompt_tokens": 3, "completion_tokens": 4}


async def test_middleware_tells_of_a_stream_when_it_is_closed() -> None:
    """
    A stream ends when it is closed, not when it begins; its usage is what the decoder left.
    """
    seen: list[Event] = []

    async def send(asked: Request) -> Response:
        async def reader() -> bytes:
            return b""

        return Response(200, request=asked, reader=reader)

    response = await TelemetryMiddleware(Observer([seen.append]))(request(stream=True), send)
    assert len(seen) == 1
    await asyncio.sleep(7.0)
    response.usage = "counted"
    response.close()
    response.close()

    assert len(seen) == 2
    finished = seen[1]
    assert isinstance(finished, ResponseFinished)
    assert ("counted", 0.0, 7.0) == (finished.usage, finished.headers_after, finished.elapsed)


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[1]", b'{"usage":null}', b'{"usage":7}', b"[" * 100_000]
)
async def test_middleware_reply_without_usage(body: bytes) -> None:
    """
    A reply that counts nothing, or is no JSON, has no usage to tell.
    """
    seen: list[Event] = []

    async def send(asked: Request) -> Response:
        response = Response(200, request=asked, body=body)
        await response.read()
        return response

    await TelemetryMiddleware(Observer([seen.append]))(request(), send)

    finished = seen[-1]
    assert isinstance(finished, ResponseFinished)
    assert finished.usage is None


async def test_middleware_debug_log_holds_no_secret(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The most talkative log shows headers without the key, and neither prompt nor answer.
    """
    log.setLevel(logging.DEBUG)

    async def send(asked: Request) -> Response:
        response = Response(
            200, Headers({"Msh-Uid": "u-777", "Server": "x"}), request=asked, body=b'"the answer"'
        )
        await response.read()
        return response

    await TelemetryMiddleware(Observer())(request(body=b'"the prompt"'), send)

    text = caplog.text
    assert "'Server': 'x'" in text
    for secret in (KEY, KEY[3:], "u-777", "the prompt", "the answer", "secret@", "hidden"):
        assert secret not in text


@pytest.mark.parametrize("raised", [ZeroDivisionError, asyncio.CancelledError])
async def test_middleware_hook_that_raises(
    raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """
    What a hook raises is logged once, with its name, and the answer that was paid for comes all the same; also where it looked at
    the result of a task that was cancelled.
    """
    told: list[Event] = []

    def hook(event: Event) -> None:
        told.append(event)
        raise raised

    async def send(asked: Request) -> Response:
        return Response(200, {}, request=asked, body=b"{}")

    response = await TelemetryMiddleware(Observer([hook]))(request(), send)
    await response.read()

    assert 200 == response.status
    assert 2 == len(told)
    assert 1 == caplog.text.count("test_middleware_hook_that_raises.<locals>.hook raised")


async def test_client_hooks_that_raise_for_many_keys(caplog: pytest.LogCaptureFixture) -> None:
    """
    Each hook is complained of once, whatever its name and however many keys the client is used with.
    """

    async def handler(asked: Request) -> Reply:
        return Reply(body=b"{}", headers={"Content-Type": "application/json"})

    hooks = [lambda event: 1 / 0, lambda event: 1 / 0]
    async with AsyncKimi(api_key=KEY, transport=MemoryTransport(handler), hooks=hooks) as client:
        for number in range(3):
            await client.with_options(api_key=f"sk-{number}").get("/models", cast_to=object)

    assert 2 == caplog.text.count("<lambda> raised")
