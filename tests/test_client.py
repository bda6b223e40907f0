"""
The client before anything is sent: arguments, views, paths; and raw calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import msgspec
import openai
import pydantic
import pytest

from kimi_async import (
    NOT_GIVEN,
    APIResponseValidationError,
    AsyncKimi,
    ClientClosedError,
    ConfigurationError,
    KimiError,
    NotFoundError,
    Timeout,
    omit,
)
from kimi_async.middleware.rate_limit import AdmissionController
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request, Response, TransportSettings

KEY = "sk-test-0123456789abcdef"
QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]
ANSWER = (
    b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
)


class Wire(MemoryTransport):
    """
    Answers everything alike and remembers what was asked.
    """

    def __init__(self, body: bytes = ANSWER, status: int = 200, **headers: str) -> None:
        async def handler(request: Request) -> Reply:
            return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

        super().__init__(handler)

    @property
    def last(self) -> Request:
        return self.requests[-1]


class OneLayer:
    async def __call__(self, request: Request, send: Any) -> Response:
        raise NotImplementedError


def client_on(wire: Wire, **options: Any) -> AsyncKimi:
    options.setdefault("api_key", KEY)
    options.setdefault("max_retries", 0)
    return AsyncKimi(transport=wire, **options)


# --- construction ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"api_key": None}, "MOONSHOT_API_KEY or KIMI_API_KEY"),
        ({"api_key": ""}, "blank"),
        ({"api_key": "  "}, "blank"),
        ({"api_key": 17}, "string"),
        ({"api_key": "sk-a\n"}, "line break"),
        ({"api_key": "sk-a b"}, "blank"),
        ({"api_key": "sk-é"}, "character"),
        ({"base_url": ""}, "http"),
        ({"base_url": "api.moonshot.ai/v1"}, "https:// missing"),
        ({"base_url": "ftp://host/v1"}, "http"),
        ({"base_url": "http://"}, "http"),
        ({"base_url": "http://host:99999/v1"}, "not a URL"),
        ({"base_url": "http://ho st/v1"}, "http"),
        ({"base_url": "http://host/v1\r\nX: y"}, "http"),
        ({"base_url": "http://user:pass@host/v1"}, "user name"),
        ({"base_url": "http://host/v1?key=1"}, "query"),
        ({"base_url": "http://[::1/v1"}, "URL"),
        ({"base_url": 17}, "http"),
        ({"max_retries": None}, "max_retries"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"timeout": -1}, "above 0"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": float("nan")}, "above 0"),
        ({"timeout": "10"}, "number of seconds"),
        ({"timeout": True}, "number of seconds"),
        ({"default_headers": {"a b": "c"}}, "header name"),
        ({"default_headers": {"a": "b\r\nc: d"}}, "line break"),
        ({"default_headers": {"a": "é"}}, "ASCII"),
        ({"default_headers": "a: b"}, "mapping"),
        ({"default_query": "a=b"}, "mapping"),
        pytest.param({"http_client": object()}, "aiohttp.ClientSession", id="http_client"),
        pytest.param({"transport": object()}, "send", id="transport"),
        ({"middleware": [17]}, "middleware"),
        ({"max_event_size": 0}, "max_event_size"),
        ({"max_response_size": -5}, "max_response_size"),
        ({"max_error_size": "1"}, "max_error_size"),
        ({"max_header_size": 1.5}, "max_header_size"),
        ({"unknown": 1}, "unknown"),
        ({"api_keys": KEY}, "did you mean 'api_key'"),
        ({"max_retry": 3}, "did you mean 'max_retries'"),
        ({"webhook_secret": "x"}, "webhook_secret has no effect"),
        ({"websocket_base_url": "wss://x"}, "realtime"),
        ({"_strict_response_validation": True}, "leniently"),
        ({"retry": 3}, "max_retries=3"),
        ({"retry": True}, "max_retries=1"),
        ({"retry": "often"}, "RetryPolicy"),
        ({"limits": "tier9"}, "tier9"),
        ({"limits": 5}, r"RateLimits\(concurrency=5\)"),
        ({"limits": True}, "RateLimits"),
        ({"limiter": 5}, "AdmissionController"),
        ({"hooks": 5}, "hooks"),
        ({"hooks": "print"}, "hooks"),
        ({"hooks": [None]}, "hooks"),
        pytest.param({"hooks": [anyio.sleep]}, "sleep is async", id="async hook"),
        pytest.param({"hooks": lambda: None}, "with an event", id="hook that takes nothing"),
        pytest.param({"hooks": [Response]}, "Response is a class", id="hook that is a class"),
        pytest.param(
            {"middleware": [lambda _: None]}, r"with \(request, send\)", id="middleware that takes one"
        ),
        pytest.param({"middleware": [OneLayer]}, "OneLayer is a class", id="middleware that is a class"),
        pytest.param({"transport": MemoryTransport}, "class MemoryTransport", id="transport that is a class"),
        pytest.param(
            {"http_client": aiohttp.ClientSession}, "class ClientSession", id="session that is a class"
        ),
        pytest.param({"limiter": AdmissionController}, "AdmissionController", id="limiter that is a class"),
        ({"ssl": "ca.pem"}, "cafile='ca.pem'"),
        ({"ssl": 0}, "ssl must be"),
        ({"trust_env": "no"}, "trust_env must be True or False"),
        ({"advice": 1}, "advice must be True or False"),
        ({"middleware": "retry"}, "middleware"),
        ({"provider": 5}, "provider"),
        ({"proxy": "foo"}, "http://foo:3128"),
        ({"proxy": "socks5://127.0.0.1:1"}, "SOCKS"),
        ({"proxy": 7890}, "proxy"),
        pytest.param({"http_client": TransportSettings(proxy="socks5://h:1")}, "SOCKS", id="settings"),
        ({"organization": "a\r\nb"}, "organization"),
        ({"project": "a\nb"}, "project"),
        ({"project": 5}, "project"),
        ({"default_headers": {"Host": "x"}}, "Host"),
    ],
    ids=str,
)
def test_bad_argument(options: dict[str, Any], told: str):
    """
    What cannot work is refused at construction, in words that say what and how.
    """
    with pytest.raises((ConfigurationError, TypeError, ValueError), match=told):
        AsyncKimi(**{"api_key": KEY, **options})


def test_one_hook_and_one_middleware_need_no_list():
    """
    What can only mean one thing is understood.
    """

    async def tag(request: Request, send: Any) -> Response:
        request.headers["X-Team"] = "a"
        response: Response = await send(request)
        return response

    told: list[Any] = []
    wire = Wire()

    async def main() -> None:
        async with client_on(wire, hooks=told.append, middleware=tag) as client:
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)

    asyncio.run(main())

    assert "a" == wire.last.headers["X-Team"]
    assert told


def test_names_of_openai_without_effect_may_be_none():
    """
    Programs that pass on their own defaults for them are not stopped.
    """
    AsyncKimi(api_key=KEY, webhook_secret=None, websocket_base_url=None, _strict_response_validation=False)


def test_half_made_client_has_a_repr():
    """
    A debugger that prints it while its construction fails must not fail as well.
    """
    assert "not made" in repr(AsyncKimi.__new__(AsyncKimi))


async def test_options_set_on_the_client_hold_for_its_later_calls():
    """
    As with AsyncOpenAI; and checked as at construction.
    """
    wire = Wire()
    async with client_on(wire) as client:
        client.timeout = 7
        client.max_retries = 4
        client.organization = "o"
        client.project = "p"
        await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
        client.organization = None
        with pytest.raises(ValueError, match="max_retries"):
            client.max_retries = -1
        with pytest.raises(ConfigurationError, match="project"):
            client.project = "a\nb"

        assert (7, 4) == (wire.last.timeout.read, wire.last.max_retries)
        assert ("o", "p") == (wire.last.headers["OpenAI-Organization"], wire.last.headers["OpenAI-Project"])
        assert (4, None, "p") == (client.max_retries, client.organization, client.project)


def test_httpx_client_refused_by_name():
    """
    Code that comes from OpenAI's SDK is told what to pass instead.
    """
    httpx = pytest.importorskip("httpx")
    with pytest.raises(TypeError, match=r"aiohttp\.ClientSession"):
        AsyncKimi(api_key=KEY, http_client=httpx.AsyncClient())


def test_transport_and_session_exclude_each_other():
    """
    One or the other.
    """

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(ConfigurationError, match="not both"):
                AsyncKimi(api_key=KEY, http_client=session, transport=Wire())

    asyncio.run(main())


def test_construction_needs_no_loop():
    """
    A client may be made at import time.
    """
    client = AsyncKimi(api_key=KEY)

    assert "https://api.moonshot.ai/v1/" == client.base_url
    assert KEY == client.api_key
    assert not client.is_closed()


# --- raw calls ------------------------------------------------------------------------------------------------------------


class Colour(pydantic.BaseModel):
    name: str
    shades: list[int] = []


async def test_raw_call_into_a_pydantic_model():
    """
    `cast_to=` takes models of pydantic, as AsyncOpenAI does; what does not fit is an error that shows the body.
    """
    client = client_on(Wire(b'{"name":"red","shades":[1,2]}'))

    assert Colour(name="red", shades=[1, 2]) == await client.get("/colour", cast_to=Colour)
    with pytest.raises(APIResponseValidationError, match="not a Colour") as caught:
        await client_on(Wire(b'{"shades":[1]}')).get("/colour", cast_to=Colour)
    assert '{"shades":[1]}' == caught.value.body


async def test_raw_call_into_a_model_of_openai_s():
    """
    Also where the host leaves out what openai's types require, as its own client does.
    """
    from openai.types.chat import ChatCompletion

    client = client_on(Wire())
    completion = await client.post("/chat/completions", cast_to=ChatCompletion, body={"model": "kimi-k3"})

    assert isinstance(completion, ChatCompletion)
    assert "Hi" == completion.choices[0].message.content


async def test_raw_call_options_obeyed():
    """
    All that AsyncOpenAI takes in `options=`, and no other.
    """
    wire = Wire()
    client = client_on(wire)
    await client.post(
        "/x",
        body={"a": 1},
        options={
            "headers": {"X": "1"},
            "params": {"q": 2},
            "extra_json": {"b": 2},
            "timeout": 7,
            "max_retries": 5,
            "idempotency_key": "k-1",
            "follow_redirects": False,
        },
    )
    request = wire.last

    assert {"a": 1, "b": 2} == request.json()
    assert ("1", "k-1", 7, 5) == (
        request.headers["X"],
        request.headers["Idempotency-Key"],
        request.timeout.read,
        request.max_retries,
    )
    assert request.url.endswith("/x?q=2")
    with pytest.raises(TypeError, match="did you mean 'max_retries'"):
        await client.get("/x", options={"max_retry": 1})
    with pytest.raises(TypeError, match="max_retries"):
        await client.get("/x", options={"max_retries": None})
    assert 1 == len(wire.requests)


# --- bad calls: nothing is sent -----------------------------------------------------------------------------------------------

BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": []}, "messages is empty"),
    "a string for messages": ({"messages": "hi"}, "not one str"),
    "one message for messages": ({"messages": {"role": "user", "content": "x"}}, "not one dict"),
    "None for messages": ({"messages": None}, "messages"),
    "a number for messages": ({"messages": 17}, "messages"),
    "a string among messages": ({"messages": [{"role": "user", "content": "x"}, "hi"]}, r"messages\[1\]"),
    "None among messages": ({"messages": [None]}, r"messages\[0\]"),
    "a number for model": ({"model": 17}, "model"),
    "None for model": ({"model": None}, "model"),
    "an empty model": ({"model": ""}, "model is empty"),
    "a blank model": ({"model": "  "}, "model is empty"),
    "an unknown keyword": ({"temprature": 1}, "temperature"),
    "a string for temperature": ({"temperature": "hot"}, "temperature"),
    "a bool for max_tokens": ({"max_tokens": True}, "max_tokens"),
    "a float for max_completion_tokens": ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    "a string for n": ({"n": "2"}, "n must be"),
    "a number for stop": ({"stop": 17}, "stop"),
    "a dict for tools": ({"tools": {"type": "function"}}, "tools"),
    "a string for tools": ({"tools": "search"}, "tools"),
    "a number for tools": ({"tools": 5}, "not one int"),
    "a string for thinking": ({"thinking": "on"}, "thinking"),
    "a string for stream": ({"stream": "yes"}, "stream"),
    "a list for extra_body": ({"extra_body": [1]}, "extra_body"),
    "a number for resume": ({"stream": True, "resume": 3}, r"ResumePolicy\(max_attempts=3\)"),
    "a string for resume": ({"stream": True, "resume": "yes"}, "ResumePolicy"),
    "a surrogate in a header": ({"extra_headers": {"a": "\ud800"}}, "ASCII"),
    "a list for extra_headers": ({"extra_headers": ["a"]}, "extra_headers|headers"),
    "a number as a header's name": ({"extra_headers": {1: "a"}}, "header"),
    "a header with a line break": ({"extra_headers": {"a": "b\r\nc: d"}}, "line break"),
    "a header's name with a colon": ({"extra_headers": {"a:b": "c"}}, "header name"),
    "a list for extra_query": ({"extra_query": ["a"]}, "query"),
    "a timeout below zero": ({"timeout": -1}, "above 0"),
    "a string for timeout": ({"timeout": "1"}, "timeout"),
    "half a character in a message": ({"messages": [{"role": "user", "content": "\ud83c"}]}, "surrogate"),
    "an object in a message": ({"messages": [{"role": "user", "content": object()}]}, "object"),
    "bytes among messages": ({"messages": [b"x"]}, r"messages\[0\]"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
@pytest.mark.parametrize("stream", [False, True], ids=["reply", "stream"])
async def test_bad_call(name: str, stream: bool):
    """
    A wrong argument is an error of its own, and nothing is sent.
    """
    options, told = BAD_CALLS[name]
    wire = Wire()
    client = client_on(wire)
    with pytest.raises((TypeError, ValueError), match=told):
        await client.chat.completions.create(
            **{"model": "kimi-k3", "messages": QUESTION, "stream": stream, **options}
        )

    assert [] == wire.requests
    assert 0 == client.limiter.stats().in_flight


PATHS: list[tuple[Callable[[AsyncKimi], Any], str]] = [
    (lambda c: c.models.retrieve(""), "non-empty"),
    (lambda c: c.models.retrieve("  "), "non-empty"),
    (lambda c: c.models.retrieve(".."), "non-empty"),
    (lambda c: c.models.retrieve("."), "non-empty"),
    (lambda c: c.models.retrieve(None), "string"),
    (lambda c: c.models.retrieve("a\ud800"), "surrogate"),
    (lambda c: c.get("/models", extra_query={"a": "\ud800"}), "surrogate"),
    (lambda c: c.get("/models", extra_query={"\ud800": "a"}), "surrogate"),
    (lambda c: c.get("/models", extra_headers={"Content-Length": "5"}), "Content-Length"),
    (lambda c: c.get("/models", options={"headers": {"Transfer-Encoding": "chunked"}}), "Transfer-Encoding"),
    (lambda c: c.get("/files/../../admin"), "climbs"),
    (lambda c: c.get("../admin"), "climbs"),
    (lambda c: c.get("/a/%2e%2e/b"), "climbs"),
    (lambda c: c.get("/a/.%2E/b"), "climbs"),
    (lambda c: c.get("/a\\..\\..\\b"), "cannot stand"),
    (lambda c: c.get("http://evil.example/v1/models"), "base_url"),
    (lambda c: c.get("https://api.moonshot.ai.evil.example/v1"), "base_url"),
    (lambda c: c.get("https://api.moonshot.ai@evil.example/v1"), "base_url"),
    (lambda c: c.get("/models HTTP/1.1\r\nX-Evil: 1\r\n\r\n"), "cannot stand"),
    (lambda c: c.get("/models\nX"), "cannot stand"),
    (lambda c: c.get("/a b"), "cannot stand"),
    (lambda c: c.get(17), "path"),
    (lambda c: c.get("/models", unknown=1), "unknown"),
    (lambda c: c.post("/x", body={"a": object()}), "object"),
]


@pytest.mark.parametrize("number", range(len(PATHS)))
async def test_bad_path(number: int):
    """
    Neither ids nor paths lead out of the address, to another host, or into the request's head.
    """
    call, told = PATHS[number]
    wire = Wire()
    with pytest.raises((TypeError, ValueError), match=told):
        await call(client_on(wire))

    assert [] == wire.requests


@pytest.mark.parametrize(
    ("id", "path"),
    [
        ("kimi-k3", "/v1/models/kimi-k3"),
        ("moonshotai/kimi-k3", "/v1/models/moonshotai%2Fkimi-k3"),
        ("../../admin", "/v1/models/..%2F..%2Fadmin"),
        ("a?b=c#d", "/v1/models/a%3Fb%3Dc%23d"),
        ("a\r\nb", "/v1/models/a%0D%0Ab"),
        ("%2e%2e", "/v1/models/%252e%252e"),
        ("é", "/v1/models/%C3%A9"),
    ],
)
async def test_id_is_one_segment(id: str, path: str):
    """
    An id is encoded into its place in the path, whatever is in it.
    """
    wire = Wire(b'{"id": "x", "object": "model"}')
    await client_on(wire).models.retrieve(id)

    assert path == wire.last.path
    assert wire.last.url.startswith("https://api.moonshot.ai/v1/models/")


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_close_cancelled_closes_all_the_same(how: str):
    """
    A cancelled closing goes to its end, that of those who stand by included; then the cancellation goes on.
    """
    waiting, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryTransport):
        async def aclose(self) -> None:
            waiting.set()
            await go_on.wait()
            await super().aclose()

    async def nothing(asked: Request) -> Reply:
        raise AssertionError

    first, second = Slow(nothing), Slow(nothing)
    other = AsyncKimi(api_key="sk-other", transport=second)
    client = AsyncKimi(api_key="sk-test", transport=first, fallback=[other])
    scope = anyio.CancelScope()

    async def leave() -> None:
        with scope:
            await client.close()

    task = asyncio.ensure_future(leave())
    await waiting.wait()
    cancel = task.cancel if how == "task" else scope.cancel
    cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    held = not task.done()
    go_on.set()
    await asyncio.wait([task])

    assert (held, first.closed, second.closed) == (True, True, True)
    assert task.cancelled() if how == "task" else scope.cancelled_caught


async def test_closed_client_sends_nothing():
    """
    Also raw calls, also from views; closing twice is fine.
    """
    wire = Wire()
    client = client_on(wire)
    async with client:
        pass
    await client.close()
    for each in (client, client.with_options(timeout=1)):
        for call in (
            lambda c=each: c.get("/models"),
            lambda c=each: c.models.retrieve("a"),
            lambda c=each: c.users.me.balance(),
            lambda c=each: c.tokenizers.estimate_token_count(model="a", messages=QUESTION),
            lambda c=each: c.chat.completions.create(model="a", messages=QUESTION, stream=True),
        ):
            with pytest.raises(ClientClosedError):
                await call()

    assert [] == wire.requests
    assert wire.closed
    assert "closed" in repr(client)


# --- what is sent -------------------------------------------------------------------------------------------------------------


async def test_nothing_is_defaulted():
    """
    What is not given is not sent: Kimi refuses most sampling parameters.
    """
    wire = Wire()
    await client_on(wire).chat.completions.create(
        model="kimi-k3", messages=QUESTION, temperature=NOT_GIVEN, top_p=omit, stop=None
    )

    assert {"model": "kimi-k3", "messages": QUESTION, "stop": None} == wire.last.json()
    assert "POST" == wire.last.method


async def test_extra_fields_headers_and_query():
    """
    `extra_body` is merged over the named fields, headers may be replaced or removed, query values are encoded.
    """
    wire = Wire()
    client = client_on(wire, default_headers={"X-A": "1", "X-B": "2"}, default_query={"q": "d", "z": 1})
    await client.chat.completions.create(
        model="kimi-k3",
        messages=QUESTION,
        temperature=1,
        extra_body={"temperature": 1.0, "new": {"a": 1}},
        extra_headers={"x-a": "9", "X-B": omit, "X-C": "3"},
        extra_query={"q": ["x", "y&z"], "t": True, "none": None},
    )
    request = wire.last

    assert 1.0 == request.json()["temperature"]
    assert b'"temperature":1.0' in request.body
    assert {"a": 1} == request.json()["new"]
    assert ("9", None, "3") == tuple(request.headers.get(name) for name in ("X-A", "X-B", "X-C"))
    assert request.url.endswith("/chat/completions?q=x&q=y%26z&z=1&t=true")


async def test_messages_from_anywhere():
    """
    Dicts, reply objects, other libraries' models and generators of them are messages.
    """

    class Foreign:
        def model_dump(self, **_: Any) -> dict[str, Any]:
            return {"role": "user", "content": "foreign"}

    wire = Wire()
    client = client_on(wire)
    completion = await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
    messages: Any = (m for m in (*QUESTION, completion.choices[0].message, Foreign()))
    await client.chat.completions.create(model="kimi-k3", messages=messages)

    assert [
        *QUESTION,
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "foreign"},
    ] == wire.last.json()["messages"]


async def test_key_from_a_function():
    """
    An async function is asked before every attempt, so that a key that expired meanwhile is not sent again.
    """
    keys = iter(["sk-first-0000000000", "sk-second-000000000", "sk-third-0000000000"])

    async def give() -> str:
        return next(keys)

    sent: list[str] = []

    async def handler(request: Request) -> Reply:
        sent.append(request.headers["Authorization"])
        return Reply(200 if len(sent) > 1 else 500, {"Retry-After": "0"}, ANSWER)

    client = AsyncKimi(api_key=give, transport=MemoryTransport(handler), max_retries=1)
    for _ in range(2):
        await client.get("/models")

    assert ["Bearer sk-first-0000000000", "Bearer sk-second-000000000", "Bearer sk-third-0000000000"] == sent
    assert "" == client.api_key


async def test_key_from_a_function_that_is_not_async():
    """
    It is asked alike; what is no key is refused in our words, and not shown.
    """
    wire = Wire()
    await client_on(wire, api_key=lambda: "sk-plain-0000000000").get("/models")

    assert "Bearer sk-plain-0000000000" == wire.last.headers["Authorization"]
    with pytest.raises(
        ConfigurationError, match="what the api_key function returns must be a string, not bytes"
    ):
        await client_on(wire, api_key=lambda: b"sk-plain-0000000000").get("/models")


async def test_key_from_a_function_gives_way_to_the_caller_s_header():
    """
    Who names another key for one call, or none, is not overruled.
    """

    async def give() -> str:
        raise AssertionError("asked")

    wire = Wire()
    client = client_on(wire, api_key=give)
    await client.get("/models", extra_headers={"authorization": "Bearer own"})
    await client.get("/models", extra_headers={"Authorization": omit})

    assert ["Bearer own", None] == [request.headers.get("Authorization") for request in wire.requests]


@pytest.mark.parametrize("sentinel", [openai.NOT_GIVEN, openai.omit], ids=["NOT_GIVEN", "omit"])
async def test_sentinels_of_openai_s_are_understood(sentinel: Any):
    """
    Frameworks pass openai's own objects for what their user did not say: wherever ours may stand, theirs may.
    """
    wire = Wire(Retry_After="0")
    client = client_on(wire, default_headers={"A": "1"})
    view = client.with_options(max_retries=sentinel, timeout=sentinel)
    await view.chat.completions.create(
        model="kimi-k3",
        messages=QUESTION,
        stream=sentinel,
        temperature=sentinel,
        tools=sentinel,
        response_format=sentinel,
        max_tokens=5,
        timeout=sentinel,
        extra_body=sentinel,
        unheard_of=sentinel,
    )

    assert {"model": "kimi-k3", "messages": QUESTION, "max_tokens": 5} == wire.last.json()
    assert client.timeout == wire.last.timeout


async def test_omit_of_openai_s_takes_a_header_away():
    """
    As with its own client.
    """
    wire = Wire()
    client = client_on(wire, default_headers={"A": "1", "B": "2"})
    await client.get("/models", extra_headers={"A": openai.omit, "B": openai.not_given})

    assert ("A" in wire.last.headers, "2") == (False, wire.last.headers.get("B"))


async def test_views_share_and_differ():
    """
    A view has options of its own and the client's everything else.
    """
    wire = Wire()
    client = client_on(wire, default_headers={"A": "1"}, default_query={"a": 1})
    view = client.with_options(
        timeout=5,
        max_retries=7,
        default_headers={"B": "2"},
        default_query={"b": 2},
        base_url="http://other/v2",
    )
    await view.get("/x")
    request = wire.last

    assert (5, 7, "http://other/v2/x?a=1&b=2") == (request.timeout.read, request.max_retries, request.url)
    assert ("1", "2") == (request.headers["A"], request.headers["B"])
    assert 0 == client.max_retries
    replaced = client.copy(set_default_headers={"C": "3"}, set_default_query={})
    await replaced.get("/x")
    assert (None, "3") == (wire.last.headers.get("A"), wire.last.headers["C"])
    assert wire.last.url.endswith("/x")
    for both in (
        {"default_headers": {}, "set_default_headers": {}},
        {"default_query": {}, "set_default_query": {}},
    ):
        with pytest.raises(ValueError, match="mutually exclusive"):
            client.with_options(**both)
    with pytest.raises(ConfigurationError, match="fail_fast"):
        client.with_options(mode="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="0 or more; got -5"):
        client.with_options(cost=-5)


async def test_base_url_and_key_may_be_set():
    """
    Settable, and checked, as in the OpenAI SDK.
    """
    wire = Wire()
    client = client_on(wire)
    await client.get("/x")
    client.base_url = "http://other/v1"
    client.api_key = "sk-other-0123456789"
    await client.get("/x")

    assert "http://other/v1/x" == wire.last.url
    assert "Bearer sk-other-0123456789" == wire.last.headers["Authorization"]
    with pytest.raises(ConfigurationError):
        client.base_url = "nowhere"


async def test_endpoint_that_provider_lacks_is_refused_also_after_raw_call():
    """
    A raw call may go where the provider has nothing that we know of; the method for it is refused as before.
    """
    wire = Wire()
    client = client_on(wire, provider="api365")
    await client.get("files")

    with pytest.raises(ConfigurationError, match="files"):
        await client.files.list()
    assert 1 == len(wire.requests)


async def test_raw_calls():
    """
    Each method, with a body of any kind, decoded as asked.
    """

    class Thing(msgspec.Struct):
        name: str

    wire = Wire(b'{"name": "a", "more": 1}')
    client = client_on(wire)

    assert {"name": "a", "more": 1} == await client.get("/thing")
    assert Thing("a") == await client.post("/thing", cast_to=Thing, body={"x": NOT_GIVEN, "y": None})
    assert {"y": None} == wire.last.json()
    assert '{"name": "a", "more": 1}' == await client.put("/thing", cast_to=str, body=[1])
    assert [1] == wire.last.json()
    assert b'{"name": "a", "more": 1}' == await client.patch("/thing", cast_to=bytes, body=Thing("b"))
    assert {"name": "b"} == wire.last.json()
    assert await client.delete("/thing", cast_to=type(None)) is None
    assert wire.last.body is None
    assert "Content-Type" not in wire.last.headers
    response = await client.post("/thing", cast_to=Response, content=b"raw", options={"headers": {"X": "1"}})
    assert (200, "1", b"raw") == (response.status, wire.last.headers["X"], wire.last.body)
    whole = await client.get("https://api.moonshot.ai/v1/thing?x=1", extra_query={"y": 2})
    assert "a" == whole["name"]
    assert "https://api.moonshot.ai/v1/thing?x=1&y=2" == wire.last.url


async def test_raw_call_refused():
    """
    A refusal is an error also where the reply itself was asked for.
    """
    wire = Wire(b'{"error": {"message": "no such thing", "type": "resource_not_found_error"}}', 404)
    with pytest.raises(NotFoundError, match="no such thing"):
        await client_on(wire).get("/thing", cast_to=Response)


async def test_timeouts_of_others_are_understood():
    """
    Numbers, None, aiohttp's and httpx's.
    """
    wire = Wire()
    client = client_on(wire)
    httpx = pytest.importorskip("httpx")
    for given, expected in (
        (3, Timeout(3, 3, 3, 3, 3)),
        (None, Timeout(None, None, None, None, None)),
        (float("inf"), Timeout(None, None, None, None, None)),
        (Timeout(idle=1), Timeout(idle=1)),
        (httpx.Timeout(5, connect=1), Timeout(1, 5, 5, 5, 5)),
        (aiohttp.ClientTimeout(total=9, sock_connect=1, sock_read=2), Timeout(1, 2, 2, 2, 2, 9)),
    ):
        await client.get("/x", timeout=given)
        assert expected == wire.last.timeout


async def test_request_id_of_a_reply():
    """
    Where Kimi puts it, and where gateways do.
    """
    for name in ("Msh_Request_Id", "X_Request_Id", "X_Msh_Trace_Id", "X_Trace_Id", "X_Generation_Id"):
        completion = await client_on(Wire(**{name: "rid-1"})).chat.completions.create(
            model="kimi-k3", messages=QUESTION
        )
        assert "rid-1" == completion._request_id


async def test_middleware_order():
    """
    Per-call layers are outermost, in order; the others run once an attempt, in order.
    """
    seen: list[str] = []

    def layer(name: str, per_call: bool) -> Any:
        class Layer:
            async def __call__(self, request: Request, send: Any) -> Response:
                seen.append(name)
                return await send(request)

        made = Layer()
        made.per_call = per_call  # type: ignore[attr-defined]
        return made

    wire = Wire()
    layers = [layer("c", False), layer("a", True), layer("d", False), layer("b", True)]
    await client_on(wire, middleware=layers).get("/x")

    assert ["a", "b", "c", "d"] == seen


async def test_error_of_a_call_is_ours():
    """
    Everything raised on purpose is a KimiError, and configuration errors are ValueErrors too.
    """
    assert issubclass(ConfigurationError, KimiError)
    assert issubclass(ConfigurationError, ValueError)


async def test_send_takes_any_request_through_the_chain():
    """
    A request that the client built goes through retries and comes back as a reply of whatever status, to be read.
    """
    statuses = iter((500, 200, 404))

    async def answer(_: Request) -> Reply:
        return Reply(next(statuses), {"retry-after-ms": "1"}, b'{"a": 1}')

    async with AsyncKimi(api_key=KEY, transport=MemoryTransport(answer)) as client:
        good = await client.send(await client.build_request("POST", "/new/thing", b"{}"))
        bad = await client.send(await client.build_request("GET", "new/thing"))

        assert (200, b'{"a": 1}', 1) == (good.status, await good.read(), len(good.request.history))
        assert (404, 1) == (bad.status, (await bad.read()).count(b"1"))
        assert "https://api.moonshot.ai/v1/new/thing" == bad.url


async def test_build_request_refuses_what_leaves_the_base_url():
    """
    The key goes to `base_url` and nowhere else; a misspelt option is named.
    """
    async with AsyncKimi(api_key=KEY) as client:
        with pytest.raises(ConfigurationError, match="is not at"):
            await client.build_request("GET", "https://example.com/v1/models")
        with pytest.raises(TypeError, match="'timeout'"):
            await client.build_request("GET", "models", tiemout=3)  # type: ignore[call-arg]


async def test_call_reads_the_reply_of_a_middleware_that_answers_itself():
    """
    A middleware that never asks the server may answer: its reply is read as any other.
    """

    class Cached:
        per_call = True

        async def __call__(self, request: Request, send: object) -> Response:
            return Response(200, {}, request=request, body=b'{"object": "list", "data": [{"id": "kimi-k3"}]}')

    async with AsyncKimi(api_key=KEY, middleware=[Cached()], transport=MemoryTransport(never)) as client:
        page = await client.models.list()

    assert ["kimi-k3"] == [model.id for model in page.data]


async def never(_: Request) -> Reply:
    raise AssertionError("asked")


@pytest.mark.parametrize("name", ["responses", "messages", "embeddings", "images"])
def test_resource_of_another_client_says_what_to_use(name: str):
    """
    What AsyncOpenAI has and this has not is told with the way there is; to `hasattr` it is simply not there.
    """
    client = client_on(Wire())

    assert not hasattr(client, name)
    with pytest.raises(AttributeError, match=r"client\.(post|chat)"):
        getattr(client, name)
    with pytest.raises(AttributeError, match="'AsyncKimi' object has no attribute 'chats'"):
        _ = client.chats  # type: ignore[attr-defined]
