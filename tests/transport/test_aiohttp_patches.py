"""
What is mended in aiohttp is taken where it fits, and left where it does not.
"""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import http_writer
from yarl import URL

from kimi_async.transport import aiohttp_patches
from kimi_async.transport.aiohttp_patches import Reply, Straight, straight
from kimi_async.transport.aiohttp_pool import SessionPool
from support.raw_server import COMPLETION, Conversation, RawServer, chunked, head, reply


async def test_straight_fits_installed_aiohttp() -> None:
    """
    With the aiohttp that is installed small requests go straight to the connector.
    """
    async with aiohttp.ClientSession() as session:
        assert isinstance(straight(session, 8190), Straight)


async def test_straight_left_out_where_connector_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A release whose connector is asked in other words keeps its own way of sending.
    """
    monkeypatch.setattr(aiohttp.TCPConnector, "connect", lambda self, something_else: None)
    async with aiohttp.ClientSession() as session:
        assert straight(session, 8190) is None


async def test_straight_left_out_where_headers_are_written_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A release without the function that writes headers keeps its own way of sending.
    """
    monkeypatch.delattr(http_writer, "_serialize_headers")
    async with aiohttp.ClientSession() as session:
        assert straight(session, 8190) is None


async def test_straight_sends_what_a_session_sends() -> None:
    """
    The same line, headers and body as by `ClientSession.post`, also with headers in place of its own.
    """
    headers = {
        "Content-Type": "application/json",
        "Authorization": "Bearer sk-test",
        "accept": "text/event-stream",
    }

    async def script(conversation: Conversation) -> None:
        while await conversation.request():
            await conversation.send(reply(COMPLETION))

    async with RawServer(script) as server, aiohttp.ClientSession() as session:
        url = URL(f"{server.base_url}/chat/completions?a=%20b")
        sender = straight(session, 8190)
        assert sender is not None
        async with session.post(url, data=b"{}", headers=headers) as theirs:
            body = await theirs.read()
        ours = await sender.post(url, headers, b"{}", aiohttp.ClientTimeout())
        assert body == await ours.content.read()
        ours.release()
        assert 1 == server.connections
        one, other = server.requests

    assert (one.line, one.headers, one.body) == (other.line, other.headers, other.body)


async def test_straight_refuses_a_header_with_line_break() -> None:
    """
    Nothing is sent of a header that would become two, and the connection is not used again.
    """

    async def script(conversation: Conversation) -> None:
        assert await conversation.request() is None

    async with RawServer(script) as server, aiohttp.ClientSession() as session:
        sender = straight(session, 8190)
        assert sender is not None
        with pytest.raises(ValueError, match="header"):
            await sender.post(URL(server.base_url), {"A": "b\r\nC: d"}, b"", aiohttp.ClientTimeout())
        await server.quiet()

    assert [] == server.requests


class Asking:
    """
    Asks a server over one pool, and counts the connections that its connector has idle and in use.
    """

    def __init__(self, server: RawServer, sender: Straight, connector: Any) -> None:
        self.server = server
        self._sender = sender
        self._connector = connector

    async def ask(self) -> Reply:
        return await self._sender.post(URL(self.server.base_url), {}, b"{}", aiohttp.ClientTimeout())

    @property
    def connections(self) -> tuple[int, int]:
        idle = sum(len(each) for each in self._connector._conns.values())
        return idle, len(self._connector._acquired)

    def close_idle(self) -> None:
        for idle in self._connector._conns.values():
            idle[0][0].transport.close()


@asynccontextmanager
async def asking(*replies: bytes) -> AsyncIterator[Asking]:
    """Who asks a server that gives these replies, one a request, whatever the connection."""
    left = list(replies)

    async def script(conversation: Conversation) -> None:
        while await conversation.request():
            await conversation.send(left.pop(0))

    pool = SessionPool()
    session = pool.session()
    sender = straight(session, 8190)
    assert sender is not None
    async with RawServer(script) as server:
        yield Asking(server, sender, session.connector)
        await pool.aclose()


async def test_reply_gives_connection_back_when_its_body_has_come() -> None:
    """
    A connection can be used again once the body is here, whether or not anybody has read it; to release the reply then, or to
    close it, does nothing to a connection that others may have by now.
    """
    async with asking(reply(COMPLETION), reply("two")) as to:
        one = await to.ask()
        assert (1, 0) == to.connections
        two = await to.ask()
        one.close()
        two.release()

        assert (1, 0) == to.connections
        assert 1 == to.server.connections


async def test_reply_under_way_closes_its_connection() -> None:
    """
    A reply that is closed before its end takes its connection with it, and cannot be read any more.
    """
    async with asking(head() + chunked(b"one"), reply("two")) as to:
        one = await to.ask()
        assert (0, 1) == to.connections
        one.close()

        assert (0, 0) == to.connections
        with pytest.raises(aiohttp.ClientConnectionError):
            await one.content.readany()
        (await to.ask()).release()
        assert 2 == to.server.connections


async def test_reply_released_cannot_be_read() -> None:
    """
    What is given back is nobody's, its body included.
    """
    async with asking(reply("one")) as to:
        one = await to.ask()
        one.release()

        with pytest.raises(aiohttp.ClientConnectionError):
            await one.content.read()


async def test_reply_begins_after_informational_heads() -> None:
    """
    Early hints and their like are passed over.
    """
    async with asking(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply("one")) as to:
        one = await to.ask()

        assert (200, "Whatever") == (one.status, one.reason)
        assert b"one" == await one.content.read()


async def test_straight_passes_over_connections_that_are_gone() -> None:
    """
    What the server has closed while it was idle is not written on.
    """
    async with asking(reply("one"), reply("two")) as to:
        (await to.ask()).release()
        to.close_idle()
        (await to.ask()).release()

        assert 2 == to.server.connections


def test_connection_closes_without_private_body() -> None:
    """
    A release whose connection names its body otherwise is closed all the same.
    """

    class Other(aiohttp_patches.Connection):
        def __getattribute__(self, name: str) -> Any:
            if name == "_payload":
                raise AttributeError(name)
            return super().__getattribute__(name)

    other = object.__new__(Other)

    other._tell_reader()  # pyright: ignore[reportPrivateUsage]


class Socket(asyncio.Transport):
    """
    A transport that notes whether it is being read.
    """

    read = True
    kept = b""
    protocol: Any = None

    def _read_ready(self) -> None:
        data, self.kept = self.kept, b""
        if data:
            self.protocol.data_received(data)

    def pause_reading(self) -> None:
        self.read = False

    def resume_reading(self) -> None:
        self.read = True

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Foreign(asyncio.Transport):
    """
    One of another loop's.
    """

    def is_closing(self) -> bool:
        return False


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def coded(*payloads: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in payloads)


async def told(*packets: bytes) -> tuple[Any, Any, Socket]:
    """A connection that has had these packets, the body that it reads, and its socket."""
    connection: Any = aiohttp_patches.Connection(asyncio.get_running_loop())
    socket = Socket()
    socket.protocol = connection
    connection.connection_made(socket)
    connection.begin()
    connection.set_response_params()
    for packet in packets:
        connection.data_received(packet)
    return connection, (await connection.read())[1], socket


@pytest.mark.parametrize("cut", range(len(HEAD), len(HEAD) + 32))
async def test_chunks_of_packet_are_one_read(cut: int) -> None:
    """
    However a body was cut on its way, all of it arrives, and the connection can be used again.
    """
    raw = HEAD + coded(b"one, ", b"two, ", b"three") + LAST

    connection, body, _ = await told(raw[:cut], raw[cut:])

    assert b"one, two, three" == await body.read()
    assert not connection.should_close


async def test_chunks_do_not_reach_the_parser() -> None:
    """
    With the aiohttp that is installed the chunks of one packet are one piece for the reader.
    """
    _, body, _ = await told(HEAD, coded(b"one", b"two"))

    assert (b"onetwo", False) == await body.readchunk()


async def test_reading_asks_for_less_than_what_is_mapped_anew() -> None:
    """
    glibc maps 128 KiB and more anew for each read, however little has come.
    """

    async with asking(head() + chunked(b"one")) as to:
        answer = await to.ask()

        assert 32 << 10 <= answer.protocol.transport.max_size < 128 << 10
        answer.close()


async def test_parser_goes_on_where_chunks_are_no_longer_plain() -> None:
    """
    A chunk with an extension, and trailers, are read by aiohttp's parser, which knows nothing of what came before.
    """
    odd = b"3;name=value\r\ntwo\r\n"

    connection, body, _ = await told(
        HEAD + coded(b"one"), odd, coded(b"three") + b"0\r\nX-Trailer: x\r\n\r\n"
    )

    assert b"onetwothree" == await body.read()
    assert not connection.should_close


@pytest.mark.parametrize("packets", [(b"zz\r\n",), (b"3\r\ntwo!!\r\n",), (b"3\r\ntw", b"o!!\r\n")])
async def test_nonsense_in_body_reaches_reader(packets: tuple[bytes, ...]) -> None:
    """
    What is no chunk ends the body with an error, after what was good.
    """
    _, body, _ = await told(HEAD + coded(b"one"), *packets)

    assert isinstance(body.exception(), aiohttp.ClientPayloadError)


async def test_compressed_body_is_aiohttps() -> None:
    """
    A body that has to be decompressed goes through aiohttp's parser.
    """
    head = HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n"

    _, body, _ = await told(head, coded(gzip.compress(b"one")) + LAST)

    assert b"one" == await body.read()


async def test_held_connection_is_not_taken_up_by_reading() -> None:
    """
    While a stream lets what comes gather, reading what is here already does not start the socket again.
    """
    connection, body, socket = await told(HEAD, coded(b"one"))
    connection.hold(True)

    assert b"one" == await body.readany()
    assert not socket.read

    connection.hold(False)

    assert socket.read


async def test_reading_of_flowing_connection_asks_nothing_of_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only what was stopped is taken up: aiohttp itself parses nothing anew at every read.
    """
    connection, body, _ = await told(reply("one"))
    monkeypatch.setattr(connection, "data_received", None)

    assert b"one" == await body.read()


async def test_held_connection_is_read_once_by_a_sip() -> None:
    """
    What has come is read without the loop's watching the socket; a connection that is not held is left to the loop.
    """
    connection, body, socket = await told(HEAD, coded(b"one"))
    assert b"one" == await body.readany()

    socket.kept = coded(b"two")
    connection.sip()
    assert 0 == body.total_bytes - 3

    connection.hold(True)
    connection.sip()
    assert b"two" == body.read_nowait()
    connection.sip()
    assert b"" == body.read_nowait()
    assert not socket.read


@pytest.mark.parametrize("tls", [False, True])
async def test_sip_over_a_foreign_transport(tls: bool) -> None:
    """
    Over a transport that is not asyncio's own the socket itself is read, unless there is TLS in it; an end is left to the loop.
    """
    connection, body, _ = await told(HEAD, coded(b"one"))
    connection.hold(True)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection.transport = Foreign({"socket": ours, "sslcontext": True if tls else None})
        sizes: list[int] = []
        for act in (lambda: None, lambda: theirs.send(coded(b"two")), theirs.close):
            act()
            connection.sip()
            sizes.append(body.total_bytes)

    assert ([3, 3, 3] if tls else [3, 6, 6]) == sizes
    assert not body.is_eof()


async def test_sip_without_a_socket() -> None:
    """
    Where there is none nothing is read.
    """
    connection, body, _ = await told(HEAD, coded(b"one"))
    connection.hold(True)
    connection.transport = Foreign()

    connection.sip()

    assert 3 == body.total_bytes


async def test_hold_stops_the_socket_under_tls() -> None:
    """
    Under TLS it is the socket that is stopped, not only what comes out of it; and a connection that is closed can say goodbye.
    """
    connection, _, socket = await told(HEAD, coded(b"one"))
    above: Any = Socket()
    above._ssl_protocol = SimpleNamespace(_transport=socket)
    connection.transport = above

    connection.hold(True)
    assert (True, False) == (above.read, socket.read)

    connection.close()
    assert socket.read


async def test_full_buffer_stops_socket_until_read() -> None:
    """
    A reader that does not come stops the server, and starts it again when it comes; not while the connection is held.
    """
    connection, body, socket = await told(HEAD, coded(b"x" * 100_000), coded(b"x" * 1_000_000))
    assert not socket.read

    connection.hold(True)
    connection.hold(False)
    assert not socket.read

    assert 1_100_000 == len(await body.readany())
    assert socket.read


async def test_next_exchange_begins_unheld() -> None:
    """
    A connection that comes out of the pool is as good as new.
    """
    connection, body, _ = await told(HEAD, coded(b"one") + LAST)
    connection.hold(True)
    assert b"one" == await body.read()

    connection.begin()
    connection.set_response_params()
    connection.data_received(HEAD + coded(b"two") + LAST)

    assert not connection.held
    assert b"two" == await (await connection.read())[1].read()
