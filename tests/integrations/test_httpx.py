"""
httpx and httpx2 over this client: whose key goes where, who repeats, who keeps time, and who closes what.
"""

# ruff: noqa: SIM117 - first the client, then what stands on it
import asyncio
import io
import json
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from kimi_async import AsyncKimi, ClientClosedError, ConfigurationError
from kimi_async.integrations.httpx import KimiTransport, httpx_client, httpx_module
from kimi_async.testing import KimiService, KimiSimulator, MemoryTransport, Reply, in_memory
from kimi_async.testing.faults import Drop, FaultPlan, Stall
from kimi_async.testing.simulator.chat_model import ToolCall, Turn
from kimi_async.testing.simulator.replies import Pace
from kimi_async.testing.simulator.server_limits import ServerLimits

BASE = "http://kimi.test/v1"
QUESTION: dict[str, Any] = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hello"}]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


pytestmark = pytest.mark.virtual_clock


@pytest.fixture(params=["httpx", "httpx2"])
def httpx(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param, reason=f"{request.param} is not installed")


@pytest.fixture
def service() -> KimiService:
    return KimiService()


@pytest.fixture
async def client(service: KimiService) -> AsyncIterator[AsyncKimi]:
    async with AsyncKimi(base_url=BASE, api_key=service.api_key, transport=in_memory(service)) as client:
        yield client


@pytest.fixture
async def http(client: AsyncKimi, httpx: ModuleType) -> AsyncIterator[Any]:
    async with httpx_client(client, httpx) as http:
        yield http


def sent(client: AsyncKimi) -> list[Any]:
    """The requests that left a client over a memory transport."""
    return client._stack.transport.requests  # type: ignore[attr-defined]


def answering(*replies: Reply | Exception) -> tuple[AsyncKimi, MemoryTransport]:
    """A client whose requests get these replies, the last again and again."""
    left = list(replies)

    async def handler(request: Any) -> Reply:
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    transport = MemoryTransport(handler)
    return AsyncKimi(base_url=BASE, api_key="sk-ours-0123456789", transport=transport), transport


# --- what goes out --------------------------------------------------------------------------------------------------


async def test_request_goes_with_our_key_and_what_its_author_added(http: Any, client: AsyncKimi) -> None:
    """The key is ours whatever the SDK above was given; other headers, query and body are the SDK's."""
    reply = await http.post(
        "chat/completions?trace=1", json=QUESTION, headers={"Authorization": "Bearer theirs", "X-Own": "1"}
    )

    assert 200 == reply.status_code
    assert QUESTION["model"] == reply.json()["model"]
    request = sent(client)[0]
    assert "http://kimi.test/v1/chat/completions?trace=1" == request.url
    assert f"Bearer {client.api_key}" == request.headers["Authorization"]
    assert "1" == request.headers["X-Own"]
    assert QUESTION == request.json()


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.test/v1/models",
        "https://kimi.test/v1/models",
        "http://kimi.test:8080/v1/models",
        "http://kimi.test.evil.test/v1/models",
        "http://kimi.test@evil.test/v1/models",
    ],
)
@pytest.mark.parametrize("theirs", [None, "Bearer sk-ours-0123456789"])
async def test_key_goes_to_our_origin_only(httpx: Any, url: str, theirs: str | None) -> None:
    """A request to any other origin goes without our key, even where the SDK above had been given it."""
    client, transport = answering(Reply(body=b"{}"))
    headers = {} if theirs is None else {"Authorization": theirs}

    async with client, httpx_client(client, httpx) as http:
        assert 200 == (await http.get(url, headers=headers)).status_code

    assert "sk-ours" not in str(dict(transport.requests[0].headers))


async def test_key_of_a_function_goes_to_our_origin_only(httpx: Any) -> None:
    """Where a function gives the key, nothing that looks like one goes elsewhere."""

    async def key() -> str:
        return "sk-fresh-0123456789"

    _, transport = answering(Reply(body=b"{}"))
    async with AsyncKimi(base_url=BASE, api_key=key, transport=transport) as client:
        async with httpx_client(client, httpx) as http:
            await http.get("models")
            await http.get("http://elsewhere.test/", headers={"Authorization": "Bearer sk-fresh-0123456789"})

    assert "Bearer sk-fresh-0123456789" == transport.requests[0].headers["Authorization"]
    assert "Authorization" not in transport.requests[1].headers


async def test_default_port_is_our_origin(httpx: Any) -> None:
    """A port that httpx leaves out of the address is the same address."""
    client, transport = answering(Reply(body=b"{}"))
    view = client.with_options(base_url="http://kimi.test:80/v1")
    async with client, httpx_client(view, httpx) as http:
        await http.get("models")

    assert "Bearer sk-ours-0123456789" == transport.requests[0].headers["Authorization"]


# --- who repeats ----------------------------------------------------------------------------------------------------


async def test_refusal_says_not_to_repeat_it(httpx: Any) -> None:
    """A refusal comes after our retries, as the server's own reply, and tells SDKs above to leave it at that."""
    body = b'{"error": {"message": "busy", "type": "server_unavailable"}}'
    client, transport = answering(Reply(503, {"Retry-After": "1", "X-Own": "1"}, body))
    async with client, httpx_client(client, httpx) as http:
        reply = await http.post("chat/completions", json=QUESTION)

    assert (503, body) == (reply.status_code, reply.content)
    assert ("false", "1") == (reply.headers["x-should-retry"], reply.headers["x-own"])
    assert 3 == len(transport.requests)


async def test_good_reply_says_nothing_about_repeating(http: Any) -> None:
    """Only refusals carry the word."""
    reply = await http.get("models")

    assert "x-should-retry" not in reply.headers


async def test_limits_hold_for_forty_calls(httpx: Any) -> None:
    """Forty calls at once through a limit of three are all answered, and none is refused."""
    service = KimiService(limits=ServerLimits(concurrency=3), pace=Pace(first_token=0.2))
    transport = in_memory(service)
    from kimi_async import RateLimits

    limits = RateLimits(concurrency=3)
    async with (
        AsyncKimi(base_url=BASE, api_key=service.api_key, transport=transport, limits=limits) as client,
        httpx_client(client, httpx) as http,
    ):
        replies = await asyncio.gather(*[http.post("chat/completions", json=QUESTION) for _ in range(40)])

    assert {200} == {reply.status_code for reply in replies}
    assert 0 == sum(service.rejected.values())


async def test_limits_are_shared_half_and_half_with_native_calls(httpx: Any) -> None:
    """Native calls and calls through httpx wait in one queue: together they never exceed the limit."""
    from kimi_async import RateLimits

    service = KimiService(limits=ServerLimits(concurrency=4), pace=Pace(first_token=0.2))
    limits = RateLimits(concurrency=4)
    async with (
        AsyncKimi(
            base_url=BASE, api_key=service.api_key, transport=in_memory(service), limits=limits
        ) as client,
        httpx_client(client, httpx) as http,
    ):
        native = [client.chat.completions.create(**QUESTION) for _ in range(20)]
        foreign = [http.post("chat/completions", json=QUESTION) for _ in range(20)]
        mixed = [each for pair in zip(native, foreign, strict=True) for each in pair]
        answers = await asyncio.gather(*mixed)

    assert 40 == len(answers)
    assert 0 == sum(service.rejected.values())


async def test_nothing_sent_comes_as_the_refusal_it_stands_for(httpx: Any) -> None:
    """After the account is known to be empty, a call that is not even sent looks as the server's 429 would."""
    body = b'{"error": {"message": "no balance", "type": "exceeded_current_quota_error"}}'
    client, transport = answering(Reply(429, {}, body))
    async with client, httpx_client(client, httpx) as http:
        first = await http.post("chat/completions", json=QUESTION)
        second = await http.post("chat/completions", json=QUESTION)

    assert 1 == len(transport.requests)
    assert (429, 429) == (first.status_code, second.status_code)
    assert "exceeded_current_quota_error" == second.json()["error"]["type"]
    assert "false" == second.headers["x-should-retry"]


# --- streams --------------------------------------------------------------------------------------------------------


async def test_stream_passes_bytes_on_as_they_were(httpx: Any) -> None:
    """Comments, unknown fields and odd spacing arrive as the server wrote them, packet by packet."""
    packets = [
        b': hello\n\ndata: {"id":"1","choices":[{"index":0,"delta":{"content":"Ri"}}],"own":1}\n\n',
        b'data:{"id":"1","choices":[{"index":0,"delta":{"content":"ver"},"finish_reason":"stop"}]}\r\n\r\n',
        b"data: [DONE]\n\n",
    ]
    client, _ = answering(Reply(headers={"Content-Type": "text/event-stream"}, body=list(packets)))
    async with client, httpx_client(client, httpx) as http:
        async with http.stream("POST", "chat/completions", json={**QUESTION, "stream": True}) as reply:
            got = [data async for data in reply.aiter_raw()]

    assert b"".join(packets) == b"".join(got)
    assert len(got) >= 2


async def test_error_before_anything_was_handed_out_is_repeated(httpx: Any) -> None:
    """What a failed attempt had brought is forgotten: only the good attempt's bytes are handed out."""
    events = {"Content-Type": "text/event-stream"}
    good = b'data: {"id":"2","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    bad = b': waiting\n\ndata: {"error": {"message": "overloaded", "type": "engine_overloaded_error"}}\n\n'
    client, transport = answering(
        Reply(headers=events, body=[bad]), ConnectionResetError("gone"), Reply(headers=events, body=[good])
    )
    async with client, httpx_client(client, httpx) as http:
        async with http.stream("POST", "chat/completions", json={**QUESTION, "stream": True}) as reply:
            assert good == await reply.aread()

    assert 3 == len(transport.requests)


async def test_error_event_for_ever_is_a_refusal(httpx: Any) -> None:
    """A stream that begins with an error at every attempt becomes a reply of that error's status."""
    bad = b'data: {"error": {"message": "overloaded", "type": "engine_overloaded_error"}}\n\n'
    client, _transport = answering(Reply(headers={"Content-Type": "text/event-stream"}, body=[bad]))
    async with client, httpx_client(client, httpx) as http:
        reply = await http.post("chat/completions", json={**QUESTION, "stream": True})

    assert 429 == reply.status_code
    assert "overloaded" == reply.json()["error"]["message"]


@pytest.mark.parametrize("after", [3, 10])
async def test_truncated_stream_is_an_error_after_what_arrived(
    service: KimiService, http: Any, httpx: Any, after: int
) -> None:
    """What had arrived is handed out, then comes the error, as often as it is asked for."""
    service.faults = FaultPlan([Drop(after_events=after, how="fin")])
    got = b""

    async with http.stream("POST", "chat/completions", json={**QUESTION, "stream": True}) as reply:
        with pytest.raises(httpx.RemoteProtocolError, match=r"before \[DONE\]|ended") as caught:
            async for data in reply.aiter_raw():
                got += data

    assert after == got.count(b"data: ")
    assert "IncompleteStreamError" == type(caught.value.__cause__).__name__


async def test_silence_is_measured_by_our_clocks(service: KimiService, httpx: Any) -> None:
    """httpx's own default of five seconds does not cut a silence; `Timeout.idle` does, and says so."""
    service.faults = FaultPlan([Stall(after_events=3, seconds=200), Stall(after_events=3, seconds=400)])
    transport = in_memory(service)
    async with AsyncKimi(base_url=BASE, api_key=service.api_key, transport=transport) as client:
        async with httpx.AsyncClient(transport=KimiTransport(client), base_url=BASE) as http:
            reply = await http.post("chat/completions", json={**QUESTION, "stream": True})
            assert b"[DONE]" in reply.content
            with pytest.raises(httpx.ReadTimeout, match=r"Timeout\.idle"):
                await http.post("chat/completions", json={**QUESTION, "stream": True})


async def test_timeout_that_was_asked_for_is_obeyed(service: KimiService, http: Any, httpx: Any) -> None:
    """A timeout passed with one request bounds that request."""
    service.pace = Pace(first_token=100)
    began = asyncio.get_running_loop().time()

    with pytest.raises(httpx.ReadTimeout):
        await http.post("chat/completions", json={**QUESTION, "stream": True}, timeout=3)

    assert (
        asyncio.get_running_loop().time() - began < 30
    )  # three attempts of three seconds, and the waits between


async def test_closing_a_stream_early_frees_its_slot(client: AsyncKimi, http: Any) -> None:
    """Leaving a stream midway gives back the connection and the slot."""
    async with http.stream("POST", "chat/completions", json={**QUESTION, "stream": True}) as reply:
        async for _ in reply.aiter_raw():
            break
        assert 1 == client.limiter.stats().in_flight

    assert 0 == client.limiter.stats().in_flight
    assert 0 == client._stack.transport.open  # type: ignore[attr-defined]


async def test_whole_reply_to_a_stream_is_passed_on(httpx: Any) -> None:
    """A server that answers a stream request with one JSON body is heard."""
    body = b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
    client, _ = answering(Reply(headers={"Content-Type": "application/json"}, body=[body]))
    async with client, httpx_client(client, httpx) as http:
        reply = await http.post("chat/completions", json={**QUESTION, "stream": True})

    assert json.loads(body) == reply.json()


# --- whole replies, files -------------------------------------------------------------------------------------------


async def test_reply_without_choices_is_repeated(httpx: Any) -> None:
    """A completion that is none is as little accepted here as natively."""
    good = b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"own":{"a":1}}'
    client, transport = answering(Reply(body=b"<html>"), Reply(body=good))
    async with client, httpx_client(client, httpx) as http:
        reply = await http.post("chat/completions", json=QUESTION)

    assert good == reply.content
    assert 2 == len(transport.requests)


async def test_upload_streams_and_is_repeated(httpx: Any) -> None:
    """A form with a file is sent piece by piece with its length, and whole again at the second attempt."""
    seen: list[bytes] = []

    async def handler(request: Any) -> Reply:
        seen.append(b"".join([data async for data in request.body]))
        return Reply(503 if len(seen) == 1 else 200, body=b"{}")

    transport = MemoryTransport(handler)
    async with AsyncKimi(base_url=BASE, api_key="sk-test", transport=transport) as client:
        async with httpx_client(client, httpx) as http:
            file = io.BytesIO(b"x" * 1_000_000)
            reply = await http.post("files", files={"file": ("a.txt", file)}, data={"purpose": "batch"})

    assert 200 == reply.status_code
    assert seen[0] == seen[1]
    assert len(seen[0]) == transport.requests[0].body.length > 1_000_000
    assert transport.requests[0].headers["Content-Type"].startswith("multipart/form-data; boundary=")


async def test_upload_that_can_be_read_once_is_sent_once(httpx: Any) -> None:
    """A body from a generator cannot be repeated, and is not."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    seen: list[bytes] = []

    async def handler(request: Any) -> Reply:
        seen.append(b"".join([data async for data in request.body]))
        return Reply(503, body=b"{}")

    async with AsyncKimi(base_url=BASE, api_key="sk-test", transport=MemoryTransport(handler)) as client:
        async with httpx_client(client, httpx) as http:
            reply = await http.post("files", content=pieces())

    assert 503 == reply.status_code
    assert [b"onetwo"] == seen


async def test_file_content_comes_piece_by_piece(httpx: Any) -> None:
    """A download is not held in memory."""
    given = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(100):
            given += 1
            yield b"x" * 1000

    client, _ = answering(Reply(body=pieces()))
    async with client, httpx_client(client, httpx) as http:
        async with http.stream("GET", "files/abc/content") as reply:
            async for _ in reply.aiter_raw():
                break
            assert given < 5


async def test_compressed_reply_is_not_decompressed_twice(httpx: Any) -> None:
    """aiohttp has taken the compression off; headers that speak of it are gone."""
    client, _ = answering(Reply(headers={"Content-Encoding": "gzip", "Content-Length": "7"}, body=b'{"a":1}'))
    async with client, httpx_client(client, httpx) as http:
        reply = await http.get("models")

    assert {"a": 1} == reply.json()
    assert "content-encoding" not in reply.headers


# --- errors, life ---------------------------------------------------------------------------------------------------


async def test_connection_error_is_httpx_s_own(httpx: Any) -> None:
    """No reply becomes httpx's error, with ours as its cause."""
    client, _transport = answering(ConnectionResetError("gone"))
    async with client, httpx_client(client, httpx) as http:
        with pytest.raises(httpx.TransportError) as caught:
            await http.get("models")

    assert "APIConnectionError" == type(caught.value.__cause__).__name__
    assert "models" in str(caught.value.request.url)


async def test_closing_leaves_the_client_open(client: AsyncKimi, httpx: Any) -> None:
    """An httpx client that closes takes nothing with it."""
    async with httpx_client(client, httpx):
        pass
    async with KimiTransport(client):
        pass

    assert (await client.chat.completions.create(**QUESTION)).choices


async def test_closed_client_says_so(client: AsyncKimi, http: Any) -> None:
    """After the client was closed its transport gives the client's own clear error."""
    await client.close()

    with pytest.raises(ClientClosedError):
        await http.get("models")


def test_transport_is_one_of_the_module_s_own(httpx: Any) -> None:
    """httpx, and a type check against it, take the transport for theirs."""
    transport = KimiTransport(AsyncKimi(api_key="sk-secret-0123456789"))

    assert isinstance(transport, httpx.AsyncBaseTransport)
    assert isinstance(transport, httpx.BaseTransport)
    assert isinstance(transport, KimiTransport)
    assert type(transport) is type(KimiTransport(transport.client))
    assert "0123456789" not in repr(transport)


async def test_one_transport_serves_both_modules(client: AsyncKimi) -> None:
    """Whoever asks gets replies and errors of their own kind, in whatever order they were imported."""
    first, second = pytest.importorskip("httpx"), pytest.importorskip("httpx2")
    transport = KimiTransport(client)
    for httpx in (first, second):
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            reply = await http.post("chat/completions", json={**QUESTION, "stream": True})
            assert isinstance(reply, httpx.Response)
            assert reply.content.endswith(b"data: [DONE]\n\n")


def test_missing_module_is_named() -> None:
    """A module that is not installed is named, with what to install."""
    with pytest.raises(ConfigurationError, match=r"no_such_httpx is not installed"):
        httpx_module("no_such_httpx")


def test_something_else_as_client_is_refused() -> None:
    """The client comes first, and must be one."""
    with pytest.raises(TypeError, match="client must be an AsyncKimi, not str"):
        KimiTransport("sk-secret")  # type: ignore[arg-type]


# --- reasoning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_put_back(
    service: KimiService, client: AsyncKimi, http: Any, stream: bool
) -> None:
    """An answer with tool calls that comes back without its reasoning gets it again, streamed or not."""
    call = ToolCall("get_weather:0", "get_weather", '{"city": "Beijing"}')
    service.queue.extend([Turn("", "Look first.", (call,)), Turn("Sunny.")])
    question = {**QUESTION, "tools": TOOLS, "stream": stream}
    await http.post("chat/completions", json=question)
    messages = [
        *QUESTION["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call.wire()]},
        {"role": "tool", "tool_call_id": "get_weather:0", "content": "sunny"},
    ]

    reply = await http.post("chat/completions", json={**question, "messages": messages})

    assert 200 == reply.status_code
    assert "Look first." == sent(client)[1].json()["messages"][1]["reasoning_content"]


async def test_request_with_huge_numbers_passes(httpx: Any) -> None:
    """A whole number of any length reaches the server as it was, reasoning put back or not."""
    number = 123456789012345678901234567890
    call = {"id": "f:0", "type": "function", "function": {"name": "f", "arguments": f'{{"n": {number}}}'}}
    answer = {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [call]}
    reply = {
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": answer, "finish_reason": "tool_calls"}],
    }  # fmt: skip
    client, transport = answering(Reply(body=json.dumps(reply)))
    asked = {**QUESTION, "metadata": {"n": number}}
    messages = [*QUESTION["messages"], {"role": "assistant", "content": "", "tool_calls": [call]}]
    async with client, httpx_client(client, httpx) as http:
        await http.post("chat/completions", json=asked)
        await http.post("chat/completions", json={**asked, "messages": messages})

    sent = json.loads(transport.requests[1].body)
    assert number == sent["metadata"]["n"]
    assert "Hm." == sent["messages"][1]["reasoning_content"]


async def test_reasoning_is_not_put_back_where_it_was_not_asked_for(
    service: KimiService, client: AsyncKimi, httpx: Any
) -> None:
    """`keep_reasoning=False` sends what the framework says."""
    call = ToolCall("get_weather:0", "get_weather", "{}")
    service.queue.extend([Turn("", "Look first.", (call,))])
    messages = [*QUESTION["messages"], {"role": "assistant", "content": "", "tool_calls": [call.wire()]}]
    async with httpx_client(client, httpx, keep_reasoning=False) as http:
        await http.post("chat/completions", json={**QUESTION, "tools": TOOLS})
        await http.post("chat/completions", json={**QUESTION, "messages": messages, "tools": TOOLS})

    assert "reasoning_content" not in sent(client)[1].json()["messages"][1]


async def test_reasoning_is_not_shared_between_clients(
    service: KimiService, client: AsyncKimi, httpx: Any
) -> None:
    """What one client saw, a view for another tenant does not know; a second transport of the same client does."""
    call = ToolCall("get_weather:0", "get_weather", "{}")
    service.queue.extend([Turn("", "Look first.", (call,))])
    messages = [*QUESTION["messages"], {"role": "assistant", "content": "", "tool_calls": [call.wire()]}]
    follow_up = {**QUESTION, "messages": messages, "tools": TOOLS}
    async with httpx_client(client, httpx) as http:
        await http.post("chat/completions", json={**QUESTION, "tools": TOOLS})
    for view in (client.with_options(), client):
        async with httpx_client(view, httpx) as http:
            await http.post("chat/completions", json=follow_up)

    answers = [request.json()["messages"][1] for request in sent(client)[1:]]
    assert "reasoning_content" not in answers[0]
    assert "Look first." == answers[1]["reasoning_content"]


# --- blocking -------------------------------------------------------------------------------------------------------


def test_blocking_client(httpx: Any) -> None:
    """Blocking code in a plain thread gets replies, streams and errors from the same client."""
    with KimiSimulator().in_thread() as sim:
        client = AsyncKimi(base_url=sim.base_url, api_key=sim.api_key)
        with httpx.Client(transport=KimiTransport(client), base_url=client.base_url) as http:
            assert 200 == http.post("chat/completions", json=QUESTION).status_code
            with http.stream("POST", "chat/completions", json={**QUESTION, "stream": True}) as reply:
                assert b"".join(reply.iter_raw()).endswith(b"data: [DONE]\n\n")
            with http.stream("POST", "chat/completions", json={**QUESTION, "stream": True}) as reply:
                next(reply.iter_raw())
            assert 404 == http.get("nothing/here").status_code
            uploaded = http.post(
                "files",
                files={"file": ("a.txt", io.BytesIO(b"x" * 100_000))},
                data={"purpose": "file-extract"},
            )
            assert 100_000 == uploaded.json()["bytes"]
        from kimi_async.integrations.blocking import blocking

        blocking(client.close())
