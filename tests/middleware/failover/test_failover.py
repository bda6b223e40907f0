"""
A call over several hosts: two simulated Kimis, with scripted deaths.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import (
    APIConnectionError,
    APIStatusError,
    AsyncKimi,
    BadRequestError,
    ConfigurationError,
    Failover,
    FailoverTarget,
    InternalServerError,
    QuotaExceededError,
    ResumePolicy,
)
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport import Request

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
JSON = {"content-type": "application/json"}


pytestmark = pytest.mark.virtual_clock


class Server:
    """One host: its models, and what it answers now."""

    def __init__(self, name: str, *models: str) -> None:
        self.name = name
        self.models = models
        self.asked: list[dict[str, Any]] = []
        self.accepted = 0
        self.trouble: Reply | Exception | None = None
        self.delay = 0.0

    async def __call__(self, request: Request) -> Reply:
        if request.path.endswith("/models"):
            return Reply(
                200, JSON, json.dumps({"object": "list", "data": [{"id": one} for one in self.models]})
            )
        body = request.json()
        self.asked.append(body)
        await asyncio.sleep(self.delay)
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if self.trouble is not None:
            return self.trouble
        self.accepted += 1
        if body.get("stream"):
            return Reply(200, {"content-type": "text/event-stream"}, self.stream())
        answer = {"role": "assistant", "content": f"from {self.name}"}
        whole = {
            "id": "c",
            "model": body["model"],
            "choices": [{"index": 0, "message": answer, "finish_reason": "stop"}],
        }
        return Reply(200, JSON, json.dumps(whole))

    async def stream(self) -> AsyncIterator[bytes]:
        for delta, finish in (({"content": f"from {self.name}"}, None), ({}, "stop")):
            event = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            yield b"data: " + json.dumps(event).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"


def error(status: int, kind: str, message: str = "no") -> Reply:
    return Reply(status, JSON, json.dumps({"error": {"message": message, "type": kind}}))


QUOTA = error(429, "exceeded_current_quota_error")
TPD = error(
    429,
    "rate_limit_reached_error",
    "request reached organization TPD rate limit, current: 1500001, limit: 1500000",
)
OVERLOADED = error(429, "engine_overloaded_error")
UNAVAILABLE = error(503, "server_unavailable")
REVOKED = error(401, "invalid_authentication_error")
WRONG = error(400, "invalid_request_error")
MODERATED = error(400, "content_filter")
TOO_LONG = error(400, "invalid_request_error", "Your request exceeded model token limit: 262144")
DEAD = ConnectionRefusedError("nobody there")


def hosts(**options: Any) -> tuple[AsyncKimi, Server, Server]:
    first, second = Server("first", "kimi-k3", "kimi-k2.6"), Server("second", "moonshotai/kimi-k3")
    other = AsyncKimi(api_key="sk-two", provider="openrouter", transport=MemoryTransport(second))
    fallback = Failover([other], **options)
    client = AsyncKimi(
        api_key="sk-one",
        provider="moonshot",
        transport=MemoryTransport(first),
        fallback=fallback,
        max_retries=0,
    )
    return client, first, second


async def ask(client: AsyncKimi, **options: Any) -> Any:
    return await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, **options)


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (QUOTA, "quota"),
        (TPD, "tpd"),
        (OVERLOADED, "overloaded"),
        (UNAVAILABLE, "unavailable"),
        (REVOKED, "auth"),
        (DEAD, "connection"),
    ],
    ids=["quota", "tpd", "overloaded", "unavailable", "revoked", "dead"],
)
async def test_failover_goes_on_by_cause(trouble: Any, cause: str):
    """
    What another host may do better goes on to it, under its own id of the model; the answer says who gave it and why.
    """
    client, first, second = hosts()
    first.trouble = trouble
    async with client:
        completion = await ask(client)

    assert "from second" == completion.choices[0].message.content
    assert "openrouter" == completion.host
    assert [("moonshot", cause)] == [(one.host, one.cause) for one in completion.attempts]
    assert (1, ["moonshotai/kimi-k3"]) == (len(first.asked), [body["model"] for body in second.asked])


@pytest.mark.parametrize("trouble", [WRONG, MODERATED, TOO_LONG], ids=["wrong", "moderated", "too long"])
async def test_failover_stays_where_every_host_would_say_the_same(trouble: Reply):
    """
    A wrong request, moderation and an overflow are the caller's to mend: nobody else is asked.
    """
    client, first, second = hosts()
    first.trouble = trouble
    async with client:
        with pytest.raises(BadRequestError):
            await ask(client)

    assert [] == second.asked


async def test_failover_overflow_goes_to_the_model_with_the_larger_window():
    """
    Where the caller names a larger model, an overflow is sent again with it, at the first host first.
    """
    client, first, _ = hosts(longer={"kimi-k2.6": "kimi-k3"})

    async def answer(request: Request) -> Reply:
        if request.path.endswith("completions") and request.json()["model"] == "kimi-k2.6":
            return TOO_LONG
        return await first(request)

    client._stack._transport = MemoryTransport(answer)
    async with client:
        completion = await client.chat.completions.create(model="kimi-k2.6", messages=MESSAGES)

    assert ("kimi-k3", "moonshot") == (completion.model, completion.host)


async def test_failover_first_host_is_preferred_again_when_it_is_well():
    """
    A host that failed is not asked by every call; once it answers it is the first again, within seconds.
    """
    client, first, _second = hosts()
    first.trouble = QUOTA
    async with client:
        told = [(await ask(client)).host for _ in range(5)]
        assert ["openrouter"] * 5 == told
        assert 1 == len(first.asked)

        first.trouble = None
        await asyncio.sleep(5.1)
        assert "moonshot" == (await ask(client)).host


async def test_failover_last_error_tells_what_failed_before():
    """
    Where nobody can answer, the last host's error is raised, with the attempts at the others.
    """
    client, first, second = hosts()
    first.trouble, second.trouble = QUOTA, error(500, "server_error")
    async with client:
        with pytest.raises(InternalServerError) as caught:
            await ask(client)

    assert [("moonshot", "quota")] == [(one.host, one.cause) for one in caught.value.attempts]


async def test_failover_model_that_a_host_does_not_have_is_never_asked_for():
    """
    An id is not guessed: the host without the model is passed over, and the error says so.
    """
    client, first, second = hosts()
    first.trouble = QUOTA
    async with client:
        with pytest.raises(
            QuotaExceededError, match=r"openrouter was not asked: it has no model 'kimi-k2.6'"
        ):
            await client.chat.completions.create(model="kimi-k2.6", messages=MESSAGES)

    assert [] == second.asked


async def test_failover_what_a_host_cannot_take_is_known_before():
    """
    `$web_search` and a partial message stay with the official host.
    """
    client, first, second = hosts()
    first.trouble = OVERLOADED
    async with client:
        for more in (
            {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
            {"prefix": "Once"},
        ):
            with pytest.raises(APIStatusError, match="openrouter was not asked"):
                await ask(client, **more)

    assert [] == second.asked


async def test_failover_stream_until_its_first_event():
    """
    A stream that fails before its first event comes from the next host, whole.
    """
    client, first, second = hosts()

    async def silent() -> AsyncIterator[bytes]:
        yield b": comment\n\n"
        raise ConnectionResetError

    first.trouble = Reply(200, {"content-type": "text/event-stream"}, silent())
    async with client:
        stream = await ask(client, stream=True)
        async with stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert "from second" == text
    assert 1 == second.accepted


async def test_failover_stream_goes_on_at_a_host_that_continues_messages():
    """
    After its first event a stream goes over by `resume=`, where the other host continues a partial message.
    """
    first, second = Server("first", "kimi-k3"), Server("second", "kimi-k3")

    async def cut() -> AsyncIterator[bytes]:
        yield b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"It was "},"finish_reason":null}]}\n\n'
        first.trouble = DEAD
        raise ConnectionResetError

    first.trouble = Reply(200, {"content-type": "text/event-stream"}, cut())
    other = AsyncKimi(api_key="sk-two", provider="moonshot-cn", transport=MemoryTransport(second))
    client = AsyncKimi(
        api_key="sk-one",
        provider="moonshot",
        transport=MemoryTransport(first),
        fallback=[other],
        max_retries=0,
    )
    async with client:
        stream = await ask(client, stream=True, resume=ResumePolicy())
        async with stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert "It was from second" == text
    assert {"role": "assistant", "content": "It was ", "partial": True} == second.asked[0]["messages"][-1]


async def test_failover_stream_that_no_other_host_continues_says_so():
    """
    Where the other host is not known to continue a message, the stream ends with what arrived and the reason.
    """
    client, first, second = hosts()

    async def cut() -> AsyncIterator[bytes]:
        yield b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"It was "},"finish_reason":null}]}\n\n'
        first.trouble = DEAD
        raise ConnectionResetError

    first.trouble = Reply(200, {"content-type": "text/event-stream"}, cut())
    async with client:
        stream = await ask(client, stream=True, resume=ResumePolicy(max_attempts=1))
        async with stream:
            with pytest.raises(APIConnectionError) as caught:
                async for _ in stream:
                    pass

    assert "openrouter was not asked: the request continues a message" in repr(caught.value.__cause__) + str(
        caught.value
    )
    assert caught.value.partial is not None
    assert ([], "It was ") == (second.asked, caught.value.partial.choices[0].message.content)


async def test_failover_reasoning_goes_under_the_names_of_each_host():
    """
    Earlier reasoning goes back under the name that the host reads.
    """
    client, first, second = hosts()
    first.trouble = OVERLOADED
    messages = [*MESSAGES, {"role": "assistant", "content": "a", "reasoning_content": "because"}, *MESSAGES]
    async with client:
        await client.chat.completions.create(model="kimi-k3", messages=messages)

    assert ["because"] == [
        message["reasoning"] for message in second.asked[0]["messages"] if "reasoning" in message
    ]


async def test_failover_by_weight():
    """
    Calls are spread in proportion to the weights.
    """
    client, _first, _second = hosts(order="weight", weight=3)
    async with client:
        told = [(await ask(client)).host for _ in range(8)]

    assert 6 == told.count("moonshot")
    assert 2 == told.count("openrouter")


async def test_failover_to_who_is_free():
    """
    A limiter that would hold the request back is passed by while another would not.
    """
    first, second = Server("first", "kimi-k3"), Server("second", "moonshotai/kimi-k3")
    other = AsyncKimi(api_key="sk-two", provider="openrouter", transport=MemoryTransport(second))
    client = AsyncKimi(
        api_key="sk-one",
        provider="moonshot",
        limits={"rpm": 1},
        transport=MemoryTransport(first),
        fallback=Failover([other], order="free"),
    )
    async with client:
        told = [(await ask(client)).host for _ in range(3)]

    assert ["moonshot", "openrouter", "openrouter"] == told


async def test_failover_hedge_takes_the_first_answer_and_cancels_the_other():
    """
    With `hedge_after` a host that is silent for too long gets company; who answers first wins.
    """
    client, first, second = hosts(hedge_after=2.0)
    first.delay = 60.0
    loop = asyncio.get_running_loop()
    async with client:
        began = loop.time()
        completion = await ask(client)

        assert ("openrouter", 2.0) == (completion.host, pytest.approx(loop.time() - began, abs=0.01))
        first.delay = 1.0
        assert "moonshot" == (await ask(client)).host
    assert (1, 1) == (first.accepted, second.accepted)


async def test_failover_map_and_tools_and_parse_work_through_it():
    """
    Whatever asks for a chat goes over the hosts.
    """
    client, first, _second = hosts()
    first.trouble = UNAVAILABLE
    async with client:
        async with client.map(["a", "b"], model="kimi-k3") as results:
            told = [result.completion.host async for result in results if result.completion]
        run = await client.chat.completions.run_tools(model="kimi-k3", messages=MESSAGES, tools=[])
        async with client.chat.completions.stream(model="kimi-k3", messages=MESSAGES) as stream:
            text = await stream.get_final_text()

    assert ["openrouter", "openrouter"] == told
    assert ("from second", "from second") == (run.text, text)


async def test_failover_thousand_calls_while_the_first_host_dies_and_recovers():
    """
    A thousand calls, the first host killed, overloaded, out of quota and well again: each answered, none accepted twice.
    """
    client, first, second = hosts()

    async def script() -> None:
        for trouble in (DEAD, None, OVERLOADED, None, QUOTA, UNAVAILABLE, None):
            await asyncio.sleep(7.0)
            first.trouble = trouble

    async def one(number: int) -> str:
        await asyncio.sleep(number * 0.06)
        return str((await ask(client)).host)

    async with client:
        driver = asyncio.ensure_future(script())
        told = await asyncio.gather(*(one(number) for number in range(1_000)))
        await driver

    assert 1_000 == first.accepted + second.accepted
    assert 1_000 == len(told)
    assert ["moonshot"] * 50 == told[-50:]


@pytest.mark.parametrize(
    ("fallback", "told"),
    [
        ([], "empty"),
        ("openrouter", "list of clients"),
        ([17], "must hold clients"),
    ],
)
async def test_fallback_is_checked_when_given(fallback: Any, told: str):
    """
    What cannot be gone on to is refused at construction.
    """
    with pytest.raises(ConfigurationError, match=told):
        AsyncKimi(api_key="sk-one", fallback=fallback)


@pytest.mark.parametrize("options", [{"order": "random"}, {"hedge_after": 0}])
async def test_failover_options_are_checked_when_given(options: dict[str, Any]):
    """
    A misspelt order or a hedge without patience is an error at once.
    """
    async with AsyncKimi(api_key="sk-two") as other:
        with pytest.raises(ConfigurationError):
            Failover([other], **options)
        with pytest.raises(ConfigurationError, match="weight"):
            Failover([FailoverTarget(client=other, weight=0)])


async def test_fallback_is_closed_with_its_client():
    """
    Clients that stand by are closed with the one they stand by for.
    """
    client, _, _ = hosts()
    other = client._fallback._hosts[1].client  # type: ignore[union-attr]

    await client.close()

    assert other.is_closed()
