"""
The key goes into one header, and nowhere else: no text, repr, log, pickle or traceback shows it.
"""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from rich.console import Console
from rich.traceback import Traceback

from kimi_async import AsyncKimi, AuthenticationError, KimiError, Timeout
from kimi_async.middleware.events import Event
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request, Response
from support.raw_server import COMPLETION, HELLO, RawServer, chunk, chunked, event, head, reply, sends

# Globals: a local variable of a test would be found in the test's own frame.
KEY = "sk-Zx9secretsecretsecretsecret0000secretsecretsecret9f2c"
LONG_KEY = "sk-" + "Zx9secret" * 30
ACCOUNT = "org-0123456789abcdef0123456789abcdef"
HIDDEN = ("Zx9secret", "0000secret", ACCOUNT)
QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


def shown(error: BaseException, *, prettily: bool) -> Iterator[tuple[str, str]]:
    """
    Everything that a debugger, a crash reporter or a pretty traceback could print of an error, with where it was found.
    """
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        name = type(each).__name__
        yield f"str({name})", str(each)
        yield f"repr({name})", repr(each)
        for attribute, value in vars(each).items():
            yield f"{name}.{attribute}", f"{value!r} {getattr(value, 'text', '')}"
        for frame in frames(each.__traceback__):
            if frame.f_code.co_filename == __file__:
                continue  # the caller's own
            where = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
            for local, value in list(frame.f_locals.items()):
                try:
                    yield f"{where} local {local}", repr(value)
                except Exception:
                    continue  # half-made objects
        pending += [link for link in (each.__cause__, each.__context__) if link is not None]
    yield "traceback", "".join(traceback.format_exception(error))
    if not prettily:
        return
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    console = Console(file=io.StringIO(), width=200)
    console.print(Traceback.from_exception(type(error), error, tb, show_locals=True))
    assert isinstance(console.file, io.StringIO)
    yield "rich", console.file.getvalue()


def frames(tb: TracebackType | None) -> Iterator[FrameType]:
    while tb is not None:
        yield tb.tb_frame
        tb = tb.tb_next


def assert_hidden(error: BaseException, *, prettily: bool = True) -> None:
    found = [
        where for where, text in shown(error, prettily=prettily) if any(secret in text for secret in HIDDEN)
    ]
    assert [] == found
    if isinstance(error, KimiError):
        for data in (pickle.dumps(error), pickle.dumps(copy.deepcopy(error))):
            assert not any(secret.encode() in data for secret in HIDDEN)


def client_at(base_url: str = "http://127.0.0.1:9/v1", **options: Any) -> AsyncKimi:
    options.setdefault("api_key", KEY)
    options.setdefault("max_retries", 0)
    options.setdefault("timeout", Timeout(connect=0.2, read=0.2, first_token=0.2, idle=0.1))
    return AsyncKimi(base_url=base_url, **options)


async def ask(client: AsyncKimi, **options: Any) -> None:
    options = {"model": "kimi-k3", "messages": QUESTION, **options}
    async with client:
        answer: Any = await client.chat.completions.create(**options)
        if options.get("stream"):
            async for _ in answer:
                pass


def says(
    *data: bytes, stream: bool = False, ends: bool = False, **options: Any
) -> Callable[..., Awaitable[None]]:
    async def play(**more: Any) -> None:
        script = sends(*data)
        if ends:

            async def script(conversation: Any) -> None:
                await conversation.request()
                await conversation.send(*data)

        async with RawServer(script) as server:
            await ask(client_at(server.base_url, **options, **more), stream=stream)

    return play


async def silent() -> None:
    async def script(conversation: Any) -> None:
        await conversation.gone()

    async with RawServer(script) as server:
        await ask(client_at(server.base_url))


async def silent_tls() -> None:
    async def script(conversation: Any) -> None:
        await conversation.gone()

    async with RawServer(script) as server:
        await ask(client_at(server.base_url.replace("http:", "https:")))


async def own_headers() -> None:
    async with RawServer(sends(reply({"error": {"message": f"no: {KEY}"}}, 403, f"X-Echo: {KEY}"))) as server:
        await ask(
            client_at(server.base_url, api_key="sk-other-0000000000"),
            extra_headers={"X-Auth-Token": KEY, "api-key": KEY},
        )


async def own_default_headers() -> None:
    AsyncKimi(api_key="sk-other-0000000000", default_headers={"X-Goog-Api-Key": KEY, "a\nb": "c"})


async def proxy_password() -> None:
    await ask(client_at(proxy=f"http://me:{KEY}@127.0.0.1:9"))


async def bad_proxy_password() -> None:
    client_at(proxy=f"socks5://me:{KEY}@127.0.0.1:9")


async def refused() -> None:
    await ask(client_at())


async def cancelled(by_proxy: str = "", **options: Any) -> None:
    reached = asyncio.Event()

    async def script(conversation: Any) -> None:
        await conversation.request()
        reached.set()
        await conversation.gone()

    async with RawServer(script) as server:
        if by_proxy:
            options = {**options, "proxy": f"http://me:{KEY}@127.0.0.1:{server.port}"}
        client = client_at(f"{by_proxy}/v1" if by_proxy else server.base_url, timeout=5, **options)
        task = asyncio.ensure_future(ask(client))
        await reached.wait()
        task.cancel()
        await task


async def middleware_breaks() -> None:
    async def layer(request: Request, send: Any) -> Response:
        response = await send(request)
        raise ZeroDivisionError(response.status)

    async def handler(request: Request) -> Reply:
        return Reply(body=b"{}")

    await ask(client_at(transport=MemoryTransport(handler), middleware=[layer]))


async def transport_breaks() -> None:
    class Broken:
        async def send(self, request: Request) -> Response:
            headers = request.headers
            raise LookupError(f"{request} {headers}")

    await ask(client_at(transport=Broken()))


async def own_session_closed() -> None:
    session = aiohttp.ClientSession()
    client = client_at(http_client=session)
    _ = client.chat
    await session.close()
    await ask(client)


async def bad_key() -> None:
    client_at(api_key=KEY + "\n")


async def bad_key_in_options() -> None:
    client_at(api_key="sk-other-0000000000").with_options(api_key=KEY + "\r\nX: y")


async def bad_key_set() -> None:
    client_at(api_key="sk-other-0000000000").api_key = KEY + " "


async def bad_key_from_a_function() -> None:
    async def give() -> str:
        return KEY + "\n"

    await ask(client_at(api_key=give))


async def bad_key_beside_a_bad_url() -> None:
    AsyncKimi(api_key=KEY, base_url="no url", default_headers={"a\nb": "c"})


async def long_key() -> None:
    await ask(client_at(api_key=LONG_KEY))


async def closed() -> None:
    client = client_at()
    await client.close()
    await client.models.list()


async def wrong_argument() -> None:
    await ask(client_at(), temperature="hot")


async def wrong_header() -> None:
    await ask(client_at(), extra_headers={"X-Evil": "a\r\nAuthorization: b"})


ECHO = {"error": {"message": f"Incorrect API key provided: {KEY} of {ACCOUNT}<ak-0123456789abcdefghij>", "type": "incorrect_api_key_error"}}  # fmt: skip
ACCOUNT_HEADERS = (
    f"Msh-Org-Id: {ACCOUNT}",
    f"Msh-Uid: {ACCOUNT}",
    f"Set-Cookie: id={ACCOUNT}",
    f"X-Echo: {KEY}",
)

CASES: dict[str, Callable[[], Awaitable[None]]] = {
    "a 401 that repeats the key": says(reply(ECHO, 401, *ACCOUNT_HEADERS)),
    "a 500 in text that repeats the key": says(reply(f"bad key {KEY} of {ACCOUNT}", 500)),
    "an event that repeats the key": says(head(), chunked(HELLO + event(ECHO)), stream=True),
    "a first event that repeats the key": says(head(), chunked(event(ECHO)), stream=True),
    "an event that is not JSON": says(head(200, *ACCOUNT_HEADERS), chunked(HELLO + event(b"oops")), stream=True),
    "an error in the choice": says(reply({**COMPLETION, "choices": [{"finish_reason": "error", "error": {"code": 500}}]})),
    "a truncated stream": says(head(200, *ACCOUNT_HEADERS), chunked(HELLO), stream=True, ends=True),
    "a stalled stream": says(head(200, *ACCOUNT_HEADERS), chunked(HELLO), stream=True),
    "a reply that is not JSON": says(reply(b"<html>")),
    "a reply of another shape": says(reply(b"[]")),
    "a bad status line": says(b"HTTP/1.1 oops\r\n\r\n", ends=True),
    "a bad header": says(b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 40_000 + b"\r\n\r\n", ends=True),
    "a bad chunk size": says(head(), b"zz\r\n", ends=True, stream=True),
    "a body cut short": says(head(kind="application/json", framing="99"), b"{", ends=True),
    "a redirect": says(reply(b"", 307, "Location: http://127.0.0.1:9/")),
    "finish_reason error": says(head(), chunked(HELLO + event(chunk(finish="error"))), stream=True),
    "silence": silent,
    "silence in TLS": silent_tls,
    "a refused connection": refused,
    "keys in headers of the caller's": own_headers,
    "keys in default headers beside a bad one": own_default_headers,
    "a proxy that is not there": proxy_password,
    "a proxy of another kind": bad_proxy_password,
    "a cancelled call": cancelled,
    "a cancelled call by a proxy": partial(cancelled, "http://host.test"),
    "a cancelled call through a proxy": partial(cancelled, "https://host.test"),
    "a cancelled call with a key in its query": partial(cancelled, default_query={"key": KEY}),
    "middleware that breaks": middleware_breaks,
    "a transport that breaks": transport_breaks,
    "a session that was closed": own_session_closed,
    "a key with a line break": bad_key,
    "a key with a line break in with_options": bad_key_in_options,
    "a key with a blank, set later": bad_key_set,
    "a function that gives a key with a line break": bad_key_from_a_function,
    "a bad URL beside the key": bad_key_beside_a_bad_url,
    "a key longer than printers show": long_key,
    "a closed client": closed,
    "a wrong argument": wrong_argument,
    "a header with a line break": wrong_header,
}  # fmt: skip


# rich takes most of a second to lay out a traceback, so only some; `shown` looks at every local of the others all the same.
PRETTILY = (
    "a 401 that repeats the key",
    "a stalled stream",
    "a refused connection",
    "a key longer than printers show",
)


@pytest.mark.parametrize("name", CASES)
async def test_error_hides_the_key(name: str, caplog: pytest.LogCaptureFixture):
    """
    Whatever goes wrong, and wherever one looks: in the error, its causes, the locals of every frame, the log, a pickle.
    """
    caplog.set_level(logging.DEBUG)
    try:
        await CASES[name]()
    except (Exception, asyncio.CancelledError) as error:
        raised: BaseException = error
    else:
        raise AssertionError("nothing was raised")

    assert_hidden(raised, prettily=name in PRETTILY)
    assert not any(secret in caplog.text for secret in HIDDEN)


async def test_error_hides_a_key_of_any_form_that_the_server_repeats():
    """
    Keys of other hosts do not look like Kimi's: what was sent as a key is taken out of body and headers, whatever it is.
    """
    key = "Zx9secret+of/another=form0000secret"
    said = {"error": {"message": f"no such key: {key}", key: [key]}}
    async with RawServer(sends(reply(said, 401, f"X-Echo: Bearer {key}"))) as server:
        with pytest.raises(AuthenticationError) as caught:
            await ask(client_at(server.base_url, api_key=key))

    assert_hidden(caught.value)
    assert "no such key: …" in str(caught.value)
    assert "no such key: …" == caught.value.response.json()["error"]["message"]


# Of no form that could be known, and with characters that pages, URLs and PHP's JSON spell in other ways.
ODD_KEY = "Zx9secret+of/another=form0000secret"
NAMED = {"message": "no", "type": ODD_KEY, "code": ODD_KEY, "param": ODD_KEY, "request_id": ODD_KEY}
ECHOES: dict[str, Callable[..., Awaitable[None]]] = {
    "in every field": says(reply({"error": NAMED}, 401)),
    "in every field, repeated": says(reply({"error": NAMED}, 500), max_retries=1),
    "in a refusal of status 200": says(reply({"error": NAMED})),
    "in an event": says(head(), chunked(HELLO + event({"error": NAMED})), stream=True),
    "in an event that is no chunk": says(head(), chunked(event(ODD_KEY.encode())), stream=True),
    "in a reply that is not JSON": says(reply(f"oops {ODD_KEY}")),
    "in a reply of another shape": says(reply({"choices": ODD_KEY})),
    "in the request id": says(head(401, f"X-Request-Id: {ODD_KEY}", framing="0").replace(b"Msh-R", b"X-R")),
    "with slashes escaped": says(reply(json.dumps({"error": ODD_KEY}).replace("/", "\\/"), 401)),
    "with letters escaped": says(reply(json.dumps({"error": ODD_KEY}).replace("Z", "\\u005a"), 401)),
    "in a page": says(reply(f"<title>{ODD_KEY}</title>".replace("+", "&#43;"), 401)),
    "in a link": says(reply(f"<a href='/?key={quote(ODD_KEY, safe='')}'>", 401)),
    "in the status line": says(f"HTTP/1.1 oops {ODD_KEY}\r\n\r\n".encode(), ends=True),
    "in a header that is none": says(f"HTTP/1.1 200 OK\r\nX bad {ODD_KEY}\r\n\r\n".encode(), ends=True),
    "in a header that is too long": says(f"HTTP/1.1 200 OK\r\nX: {ODD_KEY * 999}\r\n\r\n".encode(), ends=True),
    "in a trailer": says(head(), chunked(HELLO), f"0\r\nX bad {ODD_KEY}\r\n\r\n".encode(), stream=True, ends=True),
    "in a chunk's size": says(head(), f"{ODD_KEY}\r\n".encode(), stream=True, ends=True),
    "in a redirect": says(reply(b"", 307, f"Location: http://127.0.0.1:9/?key={ODD_KEY}")),
    "in a redirect to nowhere": says(reply(b"", 307, f"Location: http://[{ODD_KEY}")),
}  # fmt: skip


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("given", ["api_key", "default_query"])
async def test_error_hides_a_key_of_any_form_wherever_the_server_repeats_it(
    name: str, given: str, caplog: pytest.LogCaptureFixture
):
    """
    In any field, header, trailer or line, and however it is spelt there: not in the error, its attempts, the locals of the
    frames, the log at debug level, what hooks are told. Also a key that is sent in the query.
    """
    caplog.set_level(logging.DEBUG)
    told: list[Event] = []
    sent: dict[str, Any] = {"api_key": ODD_KEY} if given == "api_key" else {"default_query": {"key": ODD_KEY}}
    with pytest.raises(KimiError) as caught:
        await ECHOES[name](hooks=[told.append], **sent)

    assert_hidden(caught.value, prettily=False)
    assert not any(secret in repr(told) for secret in HIDDEN)
    assert not any(secret in caplog.text for secret in HIDDEN)


GIVEN: dict[str, dict[str, Any]] = {
    "a password in the address": {"base_url": f"http://me:{KEY}@host.test/v1"},
    "a password in the address, without a scheme": {"base_url": f"me:{KEY}@host.test/v1"},
    "a password with a slash in the address": {"base_url": f"http://me:a/{KEY}@host.test/v1"},
    "a key in the address's query": {"base_url": f"htp://host.test/v1?key={KEY}"},
    "a key as bytes": {"api_key": KEY.encode()},
    "a key in a list": {"api_key": [KEY]},
    "keys under another name": {"api_keys": [KEY]},
    "a key where it has no meaning": {"webhook_secret": KEY},
    "headers as text": {"default_headers": f"api-key: {KEY}"},
    "headers as pairs": {"default_headers": [("api-key", KEY)]},
    "a header in bytes": {"default_headers": {"api-key": KEY.encode()}},
    "a query as text": {"default_query": f"key={KEY}"},
    "a query in bytes": {"default_query": {"key": KEY.encode()}},
    "a proxy in bytes": {"proxy": f"http://me:{KEY}@host.test:1".encode()},
    "a proxy's password with a slash": {"proxy": f"http://me:a/{KEY}@host.test:1"},
    "a shared quota's password": {"shared": f"rediss:me:{KEY}@host.test"},
}


@pytest.mark.parametrize("name", GIVEN)
def test_refused_argument_hides_the_key(name: str):
    """
    What is wrong with an argument that holds a secret is told without it, and no frame shows it.
    """
    with pytest.raises((KimiError, TypeError)) as caught:
        AsyncKimi(**{"api_key": "sk-other-0000000000", **GIVEN[name]})

    assert_hidden(caught.value, prettily=False)


OWN: dict[str, Any] = {"extra_headers": {"api-key": KEY}, "extra_query": {"key": KEY}}
CALLS: dict[str, Callable[[AsyncKimi], Awaitable[object]]] = {
    "chat": lambda c: c.chat.completions.create(model="m", messages=QUESTION, **OWN),
    "chat, parsed": lambda c: c.chat.completions.parse(model="m", messages=QUESTION, **OWN),
    "chat, raw": lambda c: c.chat.completions.with_raw_response.create(model="m", messages=QUESTION, **OWN),
    "a chat's events": lambda c: c.chat.completions.stream(model="m", messages=QUESTION, **OWN).__aenter__(),
    "tools": lambda c: c.chat.completions.run_tools(model="m", messages=QUESTION, tools=[], **OWN),
    "files": lambda c: c.files.list(**OWN),
    "a file": lambda c: c.files.content("x", **OWN),
    "an upload": lambda c: c.files.create(file=("a.txt", b"x"), purpose="file-extract", **OWN),
    "models": lambda c: c.models.list(**OWN),
    "models, raw": lambda c: c.models.with_raw_response.list(**OWN),
    "a model": lambda c: c.models.retrieve("x", **OWN),
    "a batch": lambda c: c.batches.retrieve("x", **OWN),
    "tokens": lambda c: c.tokenizers.estimate_token_count(model="m", messages=QUESTION, **OWN),
    "the balance": lambda c: c.users.me.balance(**OWN),
    "a path": lambda c: c.post("/x", body={}, **OWN),
    "a path with options": lambda c: c.get("/x", options={"headers": {"api-key": KEY}, "params": {"key": KEY}}),
    "a request": lambda c: c.build_request("GET", "x y", **OWN),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
async def test_refused_call_hides_the_key_in_its_own_headers_and_query(name: str):
    """
    Whichever method it was given to, no frame on the way to the refusal shows it.
    """
    async with (
        RawServer(sends(reply({"error": {"message": "no"}}, 400))) as server,
        client_at(server.base_url, api_key="sk-other-0000000000") as client,
    ):
        with pytest.raises(KimiError) as caught:
            await CALLS[name](client)

    assert_hidden(caught.value, prettily=False)


async def test_error_hides_a_key_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    """
    A key from the environment that cannot be sent is refused without being shown, also when it ends in a newline.
    """
    monkeypatch.setenv("MOONSHOT_API_KEY", KEY[:20] + "\n" + KEY[20:])
    with pytest.raises(KimiError) as caught:
        AsyncKimi()

    assert_hidden(caught.value)


async def test_repr_hides_the_key():
    """Clients, requests, headers, responses and streams print without it."""
    seen: list[Request] = []

    async def handler(request: Request) -> Reply:
        seen.append(request)
        return Reply(body=event(chunk({"content": "x"}, "stop")), headers={"Set-Cookie": KEY})

    client = client_at(transport=MemoryTransport(handler))
    async with await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True
    ) as stream:
        things = [
            client,
            client.with_options(max_retries=1),
            client._config,
            client.default_headers,
            seen[0],
            seen[0].headers,
            dict(seen[0].headers),
            seen[0].copy(),
            seen[0].info(),
            stream,
            stream.response,
            stream.response.headers,
            stream.response.info(),
            client.limiter,
            client.chat.completions,
            vars(client),
            vars(client._stack),
        ]

    assert f"Bearer {KEY}" == seen[0].headers["authorization"]
    for thing in things:
        assert not any(secret in repr(thing) for secret in HIDDEN)
        assert not any(secret in str(thing) for secret in HIDDEN)


async def test_log_hides_the_key(caplog: pytest.LogCaptureFixture):
    """At debug level too, across a failing, repeated, streamed call."""
    caplog.set_level(logging.DEBUG)
    async with RawServer(sends(head(200, *ACCOUNT_HEADERS), chunked(event(ECHO)))) as server:
        with pytest.raises(KimiError):
            await ask(client_at(server.base_url, max_retries=1), stream=True)

    assert not any(secret in caplog.text for secret in HIDDEN)
