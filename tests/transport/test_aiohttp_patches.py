"""
What is mended in aiohttp is taken where it fits, and left where it does not.
"""

from typing import Any

import aiohttp
import pytest
from aiohttp import http_writer
from yarl import URL

from kimi_async.transport import aiohttp_patches
from kimi_async.transport.aiohttp_patches import Straight, straight
from support.raw_server import COMPLETION, Conversation, RawServer, reply


async def test_straight_fits_installed_aiohttp() -> None:
    """
    With the aiohttp that is installed small requests go straight to the connector.
    """
    async with aiohttp.ClientSession() as session:
        assert isinstance(straight(session, 8190), Straight)


async def test_straight_left_out_where_reply_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A release whose replies are made of other things keeps its own way of sending.
    """
    monkeypatch.setattr(aiohttp_patches, "_PARAMETERS", ["self", "something_else"])
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
        async with await sender.post(url, headers, b"{}", aiohttp.ClientTimeout()) as ours:
            assert body == await ours.read()
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
