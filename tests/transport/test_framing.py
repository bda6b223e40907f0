"""
What only the connection may say of a message.
"""

from __future__ import annotations

from typing import Any

import pytest

from kimi_async import AsyncKimi, ConfigurationError
from kimi_async.providers import Provider
from kimi_async.transport.exchange import Request, Response
from kimi_async.transport.framing import check_framing
from support.raw_server import COMPLETION, RawServer, reply, sends

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


@pytest.mark.parametrize(
    "name", ["Transfer-Encoding", "transfer_encoding", "TE", "Connection", "HOST", "upgrade"]
)
def test_check_framing(name: str):
    """
    However it is spelt; others pass, and the one that is excepted.
    """
    check_framing(["Accept", "X-Host", "Content-Length"], but="content-length")
    with pytest.raises(ConfigurationError, match=f"header {name} cannot be set"):
        check_framing(["Accept", name])


@pytest.mark.parametrize("name", ["Transfer-Encoding", "Host", "Connection"])
@pytest.mark.parametrize("per_call", [False, True])
async def test_framing_by_a_middleware_is_refused(name: str, per_call: bool):
    """
    A middleware that passes on what a service's own callers sent makes no ambiguous message of it.
    """

    class Relays:
        def __init__(self) -> None:
            self.per_call = per_call

        async def __call__(self, request: Request, send: Any) -> Response:
            request.headers[name] = "chunked"
            response: Response = await send(request)
            return response

    async with (
        RawServer(sends(reply(COMPLETION))) as server,
        AsyncKimi(api_key="sk-test", base_url=server.base_url, middleware=[Relays()]) as client,
    ):
        with pytest.raises(ConfigurationError, match=name):
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)

        assert [] == server.requests


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
async def test_framing_of_a_request_that_is_sent_as_it_is(method: str):
    """
    `send` refuses what says how the message is framed; its length is that of its body, whatever was written there.
    """
    async with (
        RawServer(sends(reply({}))) as server,
        AsyncKimi(api_key="sk-test", base_url=server.base_url, max_retries=0) as client,
    ):
        body = None if method == "GET" else b"{}"
        request = await client.build_request(method, "x", body)
        request.headers["Transfer-Encoding"] = "chunked"
        with pytest.raises(ConfigurationError, match="Transfer-Encoding"):
            await client.send(request)
        del request.headers["Transfer-Encoding"]
        request.headers["Content-Length"] = "999"
        async with await client.send(request):
            pass

        assert [None if body is None else "2"] == [
            asked.headers.get("content-length") for asked in server.requests
        ]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET /y HTTP/1.1\r\nX: y", "x", {}),
        ("GET", "x HTTP/1.1\r\nX: y", {}),
        ("GET", "x", {"X": "a\r\nTransfer-Encoding: chunked"}),
        ("GET", "x", {"X\r\nY": "a"}),
    ],
)
async def test_request_that_would_be_two_is_refused(method: str, path: str, headers: dict[str, str]):
    """
    A blank or line break in its method, address or headers: nothing is sent, and it is not taken for a fault of the connection.
    """
    async with (
        RawServer(sends(reply({}))) as server,
        AsyncKimi(api_key="sk-test", base_url=server.base_url, max_retries=3) as client,
    ):
        request = await client.build_request("GET", "x")
        request.method, request.url = method, f"{server.base_url}/{path}"
        request.headers.update(headers)
        with pytest.raises(ConfigurationError):
            await client.send(request)

        assert [] == server.requests


def test_framing_by_a_provider_is_refused():
    """
    Also in a row of one's own.
    """
    row = Provider(
        name="x", title="X", base_url="http://x/v1", key_variables=("X",), headers=(("Host", "y"),)
    )
    with pytest.raises(ConfigurationError, match="Host"):
        AsyncKimi(api_key="sk-test", provider=row)
