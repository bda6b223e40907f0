"""
The session pool: phases before a reply, loops, forks, life and death.
"""

# ruff: noqa: SIM117 (a server and its client read better one inside the other)

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from kimi_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncKimi,
    ClientClosedError,
    ConfigurationError,
    IncompleteStreamError,
    KimiError,
    RetryPolicy,
    Timeout,
)
from kimi_async.errors import ProxyError
from kimi_async.transport.aiohttp_pool import SessionPool
from kimi_async.transport.exchange import Headers, Request
from support.raw_server import (
    COMPLETION,
    END,
    HELLO,
    WHOLE,
    Conversation,
    RawServer,
    chunked,
    head,
    reply,
    sends,
)

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]
KEY = "sk-test-0123456789abcdef"


def client_at(base_url: str, **options: Any) -> AsyncKimi:
    options.setdefault("timeout", Timeout(connect=2, read=2, first_token=2, idle=2))
    if "retry" not in options:
        options.setdefault("max_retries", 0)
    return AsyncKimi(api_key=KEY, base_url=base_url, **options)


SOON = Timeout(connect=0.2, read=2, first_token=2, idle=2)
"""For those whom nobody answers."""


async def failure(client: AsyncKimi) -> APIConnectionError:
    with pytest.raises(APIConnectionError) as caught:
        await client.models.list()
    await client.close()
    return caught.value


async def gone(conversation: Conversation) -> None:
    await conversation.gone()


# --- what goes out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [-(32 << 10), 0, 1, 256 << 10, 3 << 20])
async def test_large_body_arrives_whole(beyond: int):
    """
    A body around and beyond the size that goes out in one piece: every byte in its place, also when it is sent again.
    """
    text = "".join(f"{number:07d} " for number in range(((1 << 20) + beyond) // 8))

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(reply("{}", 500, "Retry-After: 0"))
        await conversation.request()
        await conversation.send(reply(COMPLETION))

    async with (
        RawServer(script) as server,
        client_at(server.base_url, retry=RetryPolicy(max_retries=1, base=0.001)) as client,
    ):
        await client.chat.completions.create(model="kimi-k3", messages=[{"role": "user", "content": text}])

    assert [text, text] == [asked.json()["messages"][0]["content"] for asked in server.requests]


# --- phases --------------------------------------------------------------------------------------------------------------


async def test_refused():
    """
    Nobody listens: told at once, with phase and host.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await failure(client_at(f"http://127.0.0.1:{port}/v1"))

    assert ("connect", False) == (error.phase, error.reused_connection)
    assert "127.0.0.1" in str(error)
    assert "ConnectionRefusedError" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


async def test_connect_unanswered():
    """
    A host that answers no SYN: the phase is named, and the bound that ended it.
    """
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        queued = [socket.socket() for _ in range(4)]
        try:
            for each in queued:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            error = await failure(client_at(f"http://127.0.0.1:{full.getsockname()[1]}/v1", timeout=SOON))
        finally:
            for each in queued:
                each.close()

    assert isinstance(error, APITimeoutError)
    assert "connect" == error.phase
    assert "Timeout.connect = 0.2" in str(error)


async def test_tls_unanswered():
    """
    TCP stands and TLS does not come: the phase is `tls`.
    """
    async with RawServer(gone) as server:
        error = await failure(client_at(server.base_url.replace("http:", "https:"), timeout=SOON))
        await server.quiet()

    assert isinstance(error, APITimeoutError)
    assert "tls" == error.phase
    assert "TLS" in str(error)


async def test_tls_not_spoken():
    """
    A server that answers TLS with plain text.
    """

    async def script(conversation: Conversation) -> None:
        await conversation.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await conversation.gone()

    async with RawServer(script) as server:
        error = await failure(client_at(server.base_url.replace("http:", "https:")))

    assert "tls" == error.phase


async def test_name_unknown(monkeypatch: pytest.MonkeyPatch):
    """
    A name that does not resolve: phase `dns`.
    """

    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    error = await failure(client_at("http://api.example/v1"))

    assert "dns" == error.phase
    assert "api.example" in str(error)


async def test_name_unanswered(monkeypatch: pytest.MonkeyPatch):
    """
    A name server that is silent: phase `dns`, within `Timeout.connect`.
    """

    async def silent(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent)
    error = await failure(client_at("http://api.example/v1", timeout=SOON))

    assert isinstance(error, APITimeoutError)
    assert "dns" == error.phase


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_certificate_unknown(server_context: ssl.SSLContext):
    """
    TLS is verified unless told otherwise; a certificate that nobody signed ends the call, before the key is sent.
    """
    async with RawServer(sends(reply(COMPLETION)), ssl=server_context) as server:
        error = await failure(client_at(server.base_url))

        assert "tls" == error.phase
        assert "certificate" in str(error)
        assert [] == server.requests


async def test_certificate_known(authority: trustme.CA, server_context: ssl.SSLContext):
    """
    An `ssl.SSLContext` of the caller's is used; streams over TLS keep their connection.
    """
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with RawServer(sends(head(), chunked(WHOLE), END), ssl=server_context) as server:
        async with client_at(server.base_url, ssl=context) as client:
            for _ in range(3):
                async with await client.chat.completions.create(
                    model="kimi-k3", messages=QUESTION, stream=True
                ) as stream:
                    assert 4 == len([each async for each in stream])
        assert 1 == server.connections


async def test_certificate_unchecked(server_context: ssl.SSLContext):
    """
    `ssl=False` accepts any certificate.
    """
    async with RawServer(sends(reply(COMPLETION)), ssl=server_context) as server:
        async with client_at(server.base_url, ssl=False) as client:
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)


async def test_gather_over_tls(server_context: ssl.SSLContext):
    """
    A stream that is read for its end is read seldom over TLS too, and gives its connection back to be read.
    """
    pieces = [b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'] * 30

    async def script(conversation: Conversation) -> None:
        while await conversation.request():
            await conversation.send(head(), chunked(HELLO))
            for piece in pieces:
                await asyncio.sleep(0.01)
                await conversation.send(chunked(piece))
            await conversation.send(chunked(WHOLE), END)

    async with RawServer(script, ssl=server_context) as server:
        async with client_at(server.base_url, ssl=False) as client:
            for _ in range(2):
                async with client.chat.completions.stream(model="kimi-k3", messages=QUESTION) as stream:
                    reads = counted_reads(server.base_url)
                    text = await stream.get_final_text()
                assert "x" * 30 in text
                assert len(reads) < 20
        assert 1 == server.connections


def counted_reads(base_url: str) -> list[int]:
    """How much each read of the sockets to this server brings from now on."""
    sizes: list[int] = []
    for each in gc.get_objects():
        if isinstance(each, asyncio.BufferedProtocol) and is_transport_to(
            getattr(each, "_transport", None), base_url
        ):
            protocol: Any = each
            inner = type(protocol).buffer_updated

            def noted(size: int, protocol: Any = protocol, inner: Any = inner) -> None:
                sizes.append(size)
                inner(protocol, size)

            protocol.buffer_updated = noted
    return sizes


# --- what reached us comes first ------------------------------------------------------------------------------------------


async def test_data_and_reset_in_one_turn():
    """
    aiohttp raises what it has stored before it hands out what it has buffered. On a busy loop, data and reset come in one turn;
    the data goes to the user first.
    """

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head())
        await conversation.gone()

    async with RawServer(script) as server, client_at(server.base_url) as client:
        client.with_options()
        pool = client._stack.transport
        assert isinstance(pool, SessionPool)
        request = Request("GET", server.base_url + "/x", headers=Headers())
        response = await pool.send(request)
        content = response.reader.__self__._content  # type: ignore[attr-defined]
        content.feed_data(b"last words")
        content.set_exception(ConnectionResetError("reset"))

        assert b"last words" == await response.readany()
        with pytest.raises(APIConnectionError):
            await response.readany()
        response.close()


async def test_stream_data_and_reset_in_one_turn():
    """
    The same through the whole client: chunks first, then the error with the partial answer.
    """
    ready = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head(), chunked(HELLO[:-9]))
        await ready.wait()
        await conversation.send(chunked(HELLO[-9:]))
        conversation.reset()

    async with RawServer(script) as server, client_at(server.base_url) as client:
        stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
        got = [await anext(stream), await anext(stream)]
        ready.set()
        await server.quiet()  # both are in the kernel by now
        with pytest.raises(IncompleteStreamError) as caught:
            async for each in stream:
                got.append(each)

        assert ["", "Hel", "lo"] == [each.choices[0].delta.content for each in got]
        assert "Hello" == caught.value.partial.choices[0].message.content


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "reply"])
async def test_decompression_bomb(streamed: bool):
    """
    A small gzip body that unpacks to 64 MiB costs a bounded amount of memory.
    """
    bomb = gzip.compress((b"data: " if streamed else b'{"x": "') + b"x" * (64 << 20), 1)
    kind = "text/event-stream" if streamed else "application/json"
    script = sends(head(200, "Content-Encoding: gzip", kind=kind), chunked(bomb), END)
    options = {"max_event_size": 1 << 20, "max_response_size": 1 << 20}
    async with RawServer(script) as server, client_at(server.base_url, **options) as client:
        tracemalloc.start()
        try:
            with pytest.raises(KimiError):
                await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=streamed)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 8 << 20


# --- life and death -----------------------------------------------------------------------------------------------------------


async def test_close_with_streams_open():
    """
    Closing the client ends open streams: their readers are told, and get what had arrived.
    """
    async with RawServer(sends(head(), chunked(HELLO))) as server:
        client = client_at(server.base_url)
        stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
        got = [await anext(stream) for _ in range(3)]
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(IncompleteStreamError) as caught:
            await reading
        await server.quiet()

        assert 3 == len(got) == caught.value.chunks
        assert "Hello" == caught.value.partial.choices[0].message.content
        await stream.close()


async def test_close_with_a_request_under_way():
    """
    A call that waits for its reply when the client is closed fails, and says why.
    """
    async with RawServer(gone) as server:
        client = client_at(server.base_url)
        waiting = asyncio.ensure_future(_listed(client))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(KimiError, match="closed"):
            await waiting
        await server.quiet()


async def _listed(client: AsyncKimi) -> Any:
    return await client.models.list()


async def test_closed_client():
    """
    A closed client, and every view of it, says so before anything is sent.
    """
    client = client_at("http://127.0.0.1:9/v1")
    view = client.with_options(max_retries=1)
    await client.close()
    await client.close()

    assert client.is_closed()
    assert view.is_closed()
    for each in (client, view):
        with pytest.raises(ClientClosedError):
            await each.chat.completions.create(model="kimi-k3", messages=QUESTION)
        with pytest.raises(ClientClosedError):
            await each.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)


def in_a_server(script: Any) -> Iterator[str]:
    """
    A raw server on a thread and a loop of its own.
    """
    started: list[str] = []
    up = threading.Event()
    stop: list[Any] = []

    async def main() -> None:
        async with RawServer(script) as server:
            started.append(server.base_url)
            done = asyncio.Event()
            stop.append((asyncio.get_running_loop(), done))
            up.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    up.wait(5)
    yield started[0]
    loop, done = stop[0]
    loop.call_soon_threadsafe(done.set)
    thread.join(5)


@pytest.fixture
def neighbouring() -> Iterator[str]:
    yield from in_a_server(sends(head(), chunked(WHOLE), END))


async def _ask(client: AsyncKimi) -> int:
    async with await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True
    ) as stream:
        return len([each async for each in stream])


def test_two_loops_one_after_another(neighbouring: str):
    """
    One client, several loops: each gets connections of its own; a loop that is gone takes its own along.
    """
    client = client_at(neighbouring)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert 4 == asyncio.run(_ask(client))
        asyncio.run(client.close())
        gc.collect()


def test_two_loops_at_once(neighbouring: str):
    """
    Two threads, two loops, one client.
    """
    client = client_at(neighbouring)
    answers: list[int] = []

    async def several() -> None:
        for _ in range(10):
            answers.append(await _ask(client))

    threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert [4] * 20 == answers
    asyncio.run(client.close())


def test_loop_closed_without_closing_the_client():
    """
    Forgetting to close is untidy, and not an error: nothing is printed that a user could not understand.
    """
    program = """
        import asyncio, sys
        sys.path.insert(0, {tests!r})
        from support.raw_server import *
        from kimi_async import AsyncKimi
        async def main():
            async with RawServer(sends(reply(COMPLETION))) as server:
                client = AsyncKimi(api_key="sk-test", base_url=server.base_url)
                await client.chat.completions.create(model="kimi-k3", messages=[{{"role": "user", "content": "x"}}])
        asyncio.run(main())
        print("done")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program).format(tests=str(Path(__file__).parents[1]))],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert "done\n" == ran.stdout
    assert "Traceback" not in ran.stderr
    assert 0 == ran.returncode


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork():
    """
    A client that has spoken may be used in a forked child: fresh connections there, the parent's untouched.
    """
    program = """
        import asyncio, os, sys, threading
        sys.path.insert(0, {tests!r})
        from support.raw_server import *
        from kimi_async import AsyncKimi
        import socket, subprocess

        answer = reply(COMPLETION)
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():  # a child of its own, so that the client's process has one thread
            seen = 0
            import select
            connections = {{}}
            while True:
                ready, _, _ = select.select([listener, *connections], [], [], 20)
                if not ready:
                    os._exit(1)
                for each in ready:
                    if each is listener:
                        connections[listener.accept()[0]] = b""
                    else:
                        try:
                            data = each.recv(65536)
                        except OSError:
                            data = b""
                        if not data:
                            connections.pop(each)
                            each.close()
                        elif b"messages" in data:
                            each.sendall(answer)

        server = os.fork()
        if server == 0:
            serve()
        client = AsyncKimi(api_key="sk-test", base_url="http://127.0.0.1:%d/v1" % listener.getsockname()[1])

        async def ask():
            answer = await client.chat.completions.create(model="kimi-k3", messages=[{{"role": "user", "content": "x"}}])
            return answer.choices[0].message.content

        with asyncio.Runner() as runner:
            assert runner.run(ask()) == "Hello"
            child = os.fork()
            if child == 0:
                # A forked child inherits a running-looking loop; a sane program makes a new one.
                asyncio.events._set_running_loop(None)
                loop = asyncio.new_event_loop()
                ok = loop.run_until_complete(asyncio.wait_for(ask(), 5)) == "Hello"
                loop.run_until_complete(client.close())
                os._exit(0 if ok else 3)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
            assert runner.run(ask()) == "Hello"
            runner.run(client.close())
        os.kill(server, 9)
        listener.close()
        print("done")
    """
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            textwrap.dedent(program).format(tests=str(Path(__file__).parents[1])),
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert ("done\n", "") == (ran.stdout, ran.stderr)


async def test_session_of_the_caller():
    """
    A session passed as `http_client` is used, and stays the caller's to close.
    """
    async with RawServer(sends(reply(COMPLETION))) as server:
        async with aiohttp.ClientSession() as session:
            async with client_at(server.base_url, http_client=session) as client:
                await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
            assert not session.closed

            client = client_at(server.base_url, http_client=session)
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
        with pytest.raises(ClientClosedError, match="http_client"):
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
        await client.close()


@pytest.mark.parametrize("whose", ["ours", "the caller's"])
async def test_gate_stops_reading(whose: str):
    """
    A connection is not read while the gate is shut, be the session ours or the caller's, and is read again once it is open.
    """

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head(), chunked(HELLO))
        await conversation.gone()

    async with RawServer(script) as server, aiohttp.ClientSession() as session:
        client = client_at(server.base_url, **({} if whose == "ours" else {"http_client": session}))
        async with client:
            stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
            [transport] = [each for each in gc.get_objects() if is_transport_to(each, server.base_url)]
            reading = [transport.is_reading()]
            for on in (False, True):
                stream.response.gate(on)
                reading.append(transport.is_reading())
            await stream.close()

    assert [True, False, True] == reading


def is_transport_to(each: Any, base_url: str) -> bool:
    if not isinstance(each, asyncio.Transport) or each.is_closing():
        return False
    peer = each.get_extra_info("peername")
    return peer is not None and f":{peer[1]}/" in base_url


def test_session_of_another_loop(neighbouring: str):
    """
    A caller's session in a loop that is not its own: a clear error, no hang.
    """

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        session = first.run(make())
        client = client_at(neighbouring, http_client=session)
        with pytest.raises(ConfigurationError, match="another event loop"):
            second.run(_ask(client))
        first.run(session.close())


async def test_redirect_not_followed_where_not_wanted():
    """
    `follow_redirects=False` makes a redirect the error of its status; otherwise one within the origin is followed.
    """
    async with RawServer(sends(reply(b"", 307, "Location: /v1/other"))) as server:
        async with client_at(server.base_url) as client:
            with pytest.raises(APIStatusError) as caught:
                await client.get("/x", options={"follow_redirects": False})

        assert (307, 1) == (caught.value.status_code, len(server.requests))


async def test_proxy_unreachable():
    """
    A proxy that is not there is named as such.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await failure(client_at("http://api.example/v1", proxy=f"http://127.0.0.1:{port}"))

    assert "proxy" in str(error)
    assert "connect" == error.phase


@pytest.mark.parametrize("base_url", ["http://api.example/v1", "https://api.example/v1"])
async def test_proxy_that_wants_a_password(base_url: str):
    """
    407 is the proxy's word, not the host's: in plain HTTP and when it is asked for a tunnel. Nothing is tried again.
    """
    async with RawServer(sends(reply(b"", 407, 'Proxy-Authenticate: Basic realm="x"'))) as server:
        proxy = f"http://me:hidden@127.0.0.1:{server.port}"
        error = await failure(client_at(base_url, proxy=proxy, max_retries=3))

        assert isinstance(error, ProxyError)
        assert "407" in str(error)
        assert "hidden" not in f"{error} {error!r} {vars(error)}"
        assert 1 == len(server.requests)


@pytest.mark.parametrize(("status", "kind"), [(403, ProxyError), (503, APIConnectionError)])
async def test_proxy_that_refuses_a_tunnel(status: int, kind: type[APIConnectionError]):
    """
    A refusal for good is told from one that may pass.
    """
    async with RawServer(sends(reply(b"", status))) as server:
        error = await failure(
            client_at("https://api.example/v1", proxy=f"http://127.0.0.1:{server.port}", max_retries=0)
        )

    assert kind is type(error)
    assert kind.retryable is error.retryable
    assert f"the proxy answered {status}" in str(error)


async def test_proxy_of_socks_in_the_environment_is_sent_nothing(monkeypatch: pytest.MonkeyPatch):
    """
    Spoken to as an HTTP proxy it would get key and prompt in clear.
    """
    async with RawServer(sends(reply(COMPLETION))) as proxy:
        monkeypatch.setenv("all_proxy", f"socks5://127.0.0.1:{proxy.port}")
        async with client_at("http://api.example/v1") as client:
            with pytest.raises(ConfigurationError, match="all_proxy"):
                await client.chat.completions.create(model="kimi-k3", messages=QUESTION)

        assert 0 == proxy.connections


async def test_proxy_is_used():
    """
    `proxy=` sends the request there, with the whole URL.
    """
    async with RawServer(sends(reply(COMPLETION))) as server:
        async with client_at("http://api.example/v1", proxy=f"http://127.0.0.1:{server.port}") as client:
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)

        assert "POST http://api.example/v1/chat/completions HTTP/1.1" == server.requests[0].line


async def test_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    """
    HTTP_PROXY is obeyed, NO_PROXY too, and neither with `trust_env=False`.
    """
    async with RawServer(sends(reply(COMPLETION))) as proxy, RawServer(sends(reply(COMPLETION))) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        async with client_at(server.base_url) as client:
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
        assert (1, 0) == (len(proxy.requests), len(server.requests))
        async with client_at(server.base_url, trust_env=False) as client:
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with client_at(server.base_url) as client:
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)

        assert (1, 2) == (len(proxy.requests), len(server.requests))


async def test_deadline_of_headers_while_connecting_leaves_nothing():
    """
    A cancelled connection attempt leaves no socket: the server sees it go.
    """
    async with RawServer(gone) as server:
        async with client_at(server.base_url.replace("http:", "https:"), timeout=5) as client:
            waiting = asyncio.ensure_future(_listed(client))
            async with asyncio.timeout(5):
                while not server.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await server.quiet()
