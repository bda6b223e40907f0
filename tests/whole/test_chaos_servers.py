"""
Against servers that break on purpose and were written by others.

First the shapes of their faults, without them: always run. Then llmock (a package of the Python index), which watches every attempt
and its timing and gives a verdict on the client; skipped where it is not installed. tests/README.md has the commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import (
    APIConnectionError,
    AsyncKimi,
    AuthenticationError,
    BadRequestError,
    ContextLengthExceededError,
    IncompleteStreamError,
    InternalServerError,
    KimiError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTooLargeError,
    ResumePolicy,
    StreamStalledError,
    UnprocessableEntityError,
)
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.testing.clock import run
from kimi_async.transport.exchange import Request

QUESTION: list[Any] = [{"role": "user", "content": "What did the rivers keep?"}]
ANSWER = ["Rivers ", "remember ", "the ", "mountains."]

# --- the shapes ------------------------------------------------------------------------------------------------------------

HEAD = '{"id":"chatcmpl-%d","object":"chat.completion.chunk","created":1795000000,"model":"kimi-k3","system_fingerprint":null,'


def llmock_chunk(number: int, delta: str, finish: str = "null") -> bytes:
    """An event as llmock 0.2.2 writes it: every optional field is there, as null."""
    choice = '{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}' % (delta, finish)  # noqa: UP031
    return f'data: {HEAD % number}"choices":[{choice}]}}\n\n'.encode()


def llmock_events(number: int) -> list[bytes]:
    return [
        llmock_chunk(number, '{"role":"assistant","content":""}'),
        *(llmock_chunk(number, f'{{"content":"{each}"}}') for each in ANSWER),
        llmock_chunk(number, "{}", '"stop"'),
        b"data: [DONE]\n\n",
    ]


def corrupted(event: bytes) -> bytes:
    """Its JSON cut in half, its framing whole: llmock's `corrupt`."""
    payload = event.removeprefix(b"data: ").rstrip(b"\n")
    return b"data: " + payload[: len(payload) // 2] + b"\n\n"


class Broken:
    """A server whose first replies break: after `at` events, in the way that `fault` says."""

    def __init__(self, fault: str, at: int, times: int = 1) -> None:
        self.fault, self.at, self.times = fault, at, times
        self.transport = MemoryTransport(self)

    async def __call__(self, request: Request) -> Reply:
        return Reply(headers={"content-type": "text/event-stream; charset=utf-8"}, body=self.body())

    async def body(self) -> AsyncIterator[bytes]:
        number = len(self.transport.requests)
        events = llmock_events(number)
        if number > self.times:
            for each in events:
                yield each
            return
        for each in events[: self.at]:
            yield each
        if self.fault == "disconnect":
            raise ConnectionResetError(104, "Connection reset by peer")
        if self.fault == "error":
            yield b'data: {"error":{"message":"The engine is currently overloaded","type":"engine_overloaded_error"}}\n\n'
        if self.fault == "corrupt":
            yield corrupted(events[self.at])
            for each in events[self.at + 1 :]:
                yield each

    def client(self, **options: Any) -> AsyncKimi:
        return AsyncKimi(api_key="sk-test", advice=False, transport=self.transport, **options)


async def told(client: AsyncKimi, **options: Any) -> tuple[str, set[str]]:
    stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True, **options)
    text, ids = "", set[str]()
    async with stream:
        async for each in stream:
            ids.add(each.id)
            text += each.choices[0].delta.content or ""
    return text, ids


# Before its first event a stream is begun anew by itself; behind it, with `resume=`.
BEGUN_ANEW: list[Any] = [
    pytest.param(0, None, id="first"),
    pytest.param(1, ResumePolicy(), id="behind the role"),
]


@pytest.mark.parametrize(("at", "resume"), BEGUN_ANEW)
@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt", "error"])
def test_stream_broken_before_its_text_begun_anew(fault: str, at: int, resume: ResumePolicy | None) -> None:
    """An answer that had not begun is asked for again; the caller sees one whole answer."""

    async def main() -> None:
        server = Broken(fault, at)
        async with server.client() as client:
            text, ids = await told(client, resume=resume)

        assert "".join(ANSWER) == text
        assert 1 == len(ids)
        assert 0 == server.transport.open

    run(main())


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt"])
def test_stream_broken_before_its_text_every_time(fault: str) -> None:
    """The retries are not without end, and the error is the stream's own, with the attempts before it."""

    async def main() -> None:
        server = Broken(fault, 0, times=9)
        async with server.client() as client:
            with pytest.raises(IncompleteStreamError) as caught:
                await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)

        assert 3 == len(server.transport.requests)
        assert [1, 2] == [each.number for each in caught.value.attempts][:2]
        assert caught.value.partial is None
        assert 0 == server.transport.open

    run(main())


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt"])
def test_stream_broken_in_its_text_raises(fault: str) -> None:
    """Text that was handed out is never asked for again behind the caller's back: the error has it."""

    async def main() -> None:
        server = Broken(fault, 3)
        async with server.client() as client:
            with pytest.raises(IncompleteStreamError) as caught:
                await told(client)

        assert 1 == len(server.transport.requests)
        assert "Rivers remember " == caught.value.partial.choices[0].message.content
        assert 3 == caught.value.chunks
        assert 0 == server.transport.open

    run(main())


def test_stream_of_nothing_but_empty_chunks_is_handed_over() -> None:
    """
    A server that sends many empty chunks does not keep its caller waiting for the stream, and none of them is lost.
    """

    async def main() -> None:
        empty = llmock_chunk(1, '{"content":""}')

        async def body() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield empty
            await asyncio.sleep(100)
            for each in llmock_events(1)[1:]:
                yield each

        transport = MemoryTransport(lambda request: _answer(body()))
        async with AsyncKimi(api_key="sk-test", advice=False, transport=transport) as client:
            loop = asyncio.get_running_loop()
            began = loop.time()
            stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
            waited = loop.time() - began
            chunks = [each async for each in stream]

        assert waited < 1
        assert 40 + len(ANSWER) + 1 == len(chunks)

    run(main())


async def _answer(body: AsyncIterator[bytes]) -> Reply:
    return Reply(headers={"content-type": "text/event-stream"}, body=body)


# --- llmock ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Any:
    """llmock's own fixture: a server of its own thread, emptied for this test."""
    pytest.importorskip("llmock", reason="needs llmock; see tests/README.md")
    return request.getfixturevalue("llmock")


async def findings(chaos: Any) -> list[str]:
    """What llmock finds wrong with the client, warnings included."""
    verdict = await asyncio.to_thread(chaos.verdict)
    return [each.code for each in verdict.findings]


def kimi(chaos: Any, **options: Any) -> AsyncKimi:
    return AsyncKimi(base_url=chaos.base_url(), api_key="sk-test", advice=False, **options)


async def asked(client: AsyncKimi, stream: bool, **options: Any) -> str:
    if stream:
        return (await told(client, **options))[0]
    completion = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, **options)
    assert "stop" == completion.choices[0].finish_reason
    return completion.choices[0].message.content or ""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (413, RequestTooLargeError),
        (422, UnprocessableEntityError),
    ],
)
async def test_llmock_what_no_repetition_mends(
    chaos: Any, status: int, kind: type[KimiError], stream: bool
) -> None:
    """Asked once, and its own class."""
    chaos.fail(status)
    async with kimi(chaos) as client:
        with pytest.raises(kind):
            await asked(client, stream)

    assert [] == await findings(chaos)
    assert 1 == len(chaos.requests)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 504, 529])
async def test_llmock_what_a_repetition_mends(chaos: Any, status: int, stream: bool) -> None:
    """Repeated once, after a wait, and answered."""
    chaos.fail(status)
    async with kimi(chaos) as client:
        assert await asked(client, stream)

    assert [] == await findings(chaos)
    assert 2 == len(chaos.requests)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_llmock_retry_after_is_waited(chaos: Any, stream: bool) -> None:
    """Two refusals with a wait of a broken second each."""
    chaos.rate_limit(times=2, retry_after=0.5)
    async with kimi(chaos) as client:
        assert await asked(client, stream)

    assert [] == await findings(chaos)
    assert 3 == len(chaos.requests)


@pytest.mark.parametrize(("status", "kind"), [(500, InternalServerError), (429, RateLimitError)])
async def test_llmock_outage_is_no_storm(chaos: Any, status: int, kind: type[KimiError]) -> None:
    """A service that stays down is asked three times, with growing waits."""
    chaos.outage(status=status)
    async with kimi(chaos) as client:
        with pytest.raises(kind):
            await asked(client, stream=False)

    assert [] == await findings(chaos)
    assert 3 == len(chaos.requests)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_llmock_context_overflow_is_told(chaos: Any, stream: bool) -> None:
    """OpenAI's words for too long a prompt have the same class as Kimi's."""
    chaos.context_overflow()
    async with kimi(chaos) as client:
        with pytest.raises(ContextLengthExceededError):
            await asked(client, stream)

    assert [] == await findings(chaos)


@pytest.mark.parametrize(
    ("fault", "at", "resume"),
    [
        ("disconnect", 0, None),
        ("truncate", 0, None),
        ("corrupt", 0, None),
        # Behind the role is where llmock breaks streams by default. A corrupt event there is mended as well, but llmock grades
        # it before it has seen us go.
        ("disconnect", 1, ResumePolicy()),
        ("truncate", 1, ResumePolicy()),
    ],
)
async def test_llmock_stream_broken_before_its_text(
    chaos: Any, fault: str, at: int, resume: ResumePolicy | None
) -> None:
    """Mended without the caller's doing."""
    getattr(chaos, fault)(after_chunks=at)
    async with kimi(chaos) as client:
        assert await asked(client, stream=True, resume=resume)

    assert [] == await findings(chaos)
    assert 2 == len(chaos.requests)


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt"])
async def test_llmock_stream_broken_in_its_text(chaos: Any, fault: str) -> None:
    """
    One class says it, so that an application that repeats what lost its connection passes; with part of an answer in hand,
    that is its own decision.
    """
    getattr(chaos, fault)(after_chunks=3)
    chaos.pace(20)
    async with kimi(chaos) as client:
        with pytest.raises(APIConnectionError) as caught:
            await asked(client, stream=True)
        # This waits until the server has seen us go: only what comes after is a repetition in its eyes.
        await findings(chaos)
        assert await asked(client, stream=True)

    assert isinstance(caught.value, IncompleteStreamError)
    assert 2 == len(caught.value.partial.choices[0].message.content.split())
    assert [] == await findings(chaos)


async def test_llmock_stall_has_a_bound(chaos: Any) -> None:
    """A stream that falls silent ends with what had come, when its time is up."""
    chaos.stall(after_chunks=3, seconds=30)
    async with kimi(chaos, timeout=0.5) as client:
        with pytest.raises(StreamStalledError) as caught:
            await asked(client, stream=True)

    assert caught.value.partial.choices[0].message.content
    assert [] == await findings(chaos)


async def test_llmock_stall_before_the_first_event(chaos: Any) -> None:
    """Silence before the answer begins is mended by asking again."""
    chaos.stall(after_chunks=0, seconds=30)
    async with kimi(chaos, timeout=0.5) as client:
        assert await asked(client, stream=True)

    assert [] == await findings(chaos)


async def test_llmock_many_at_once_under_a_quota(chaos: Any) -> None:
    """
    Thirty calls at once for twenty places: those refused wait as long as they are told, and all are answered.
    """
    chaos.limits(rpm=600)
    async with kimi(chaos) as client:
        texts = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="kimi-k3", messages=[{"role": "user", "content": f"Number {i}?"}]
                )
                for i in range(30)
            )
        )

    assert all(each.choices[0].message.content for each in texts)
    assert [] == await findings(chaos)
