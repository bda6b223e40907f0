"""
A host that restarts: connections are refused for a while, or a proxy before it says that nobody is there. All in virtual time.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from kimi_async import APIConnectionError, AsyncKimi
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport import Request

DOWN_FROM, DOWN_UNTIL = 1.0, 4.0


pytestmark = pytest.mark.virtual_clock


class Restarting:
    """Refuses connections between two moments."""

    def __init__(self, until: float = DOWN_UNTIL) -> None:
        self.until = until
        self.knocks: list[float] = []
        self.served: list[float] = []

    async def __call__(self, _: Request) -> Reply:
        now = asyncio.get_running_loop().time()
        if DOWN_FROM <= now < self.until:
            self.knocks.append(now)
            raise APIConnectionError(message="refused", phase="connect")
        await asyncio.sleep(0.25)
        self.served.append(now)
        return Reply(200, {"content-type": "application/json"}, b'{"object": "list", "data": []}')


async def work(client: AsyncKimi, until: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        await client.models.list()


@pytest.mark.parametrize("workers", [1, 16, 1_000])
async def test_host_that_restarts_is_used_again_at_once(workers: int):
    """
    Served again within a second and a half, no call lost, and two knocks a second while it is down, whoever many wait.
    """
    host = Restarting()
    async with AsyncKimi(api_key="sk-test", max_retries=6, transport=MemoryTransport(host)) as client:
        await asyncio.gather(*(work(client, 5.5) for _ in range(workers)))

    back = min(at for at in host.served if at >= DOWN_UNTIL)
    assert back - DOWN_UNTIL <= 1.5
    # Those that were on their way when it went down had to find out by themselves.
    later = [at for at in host.knocks if at > DOWN_FROM + 0.1]
    assert len(later) <= 2 * (DOWN_UNTIL - DOWN_FROM)
    assert sum(back <= at < back + 0.4 for at in host.served) >= workers


async def test_host_that_stays_away_is_told_after_the_retries():
    """
    The error comes when a call's own retries would have been used up, and says what it is.
    """
    host = Restarting(until=1e9)
    loop = asyncio.get_running_loop()
    async with AsyncKimi(api_key="sk-test", max_retries=2, transport=MemoryTransport(host)) as client:
        await asyncio.sleep(DOWN_FROM)
        began = loop.time()
        with pytest.raises(APIConnectionError) as caught:
            await client.models.list()

    assert loop.time() - began < 3.0
    assert "connect" == caught.value.phase


async def test_host_that_is_away_fails_calls_of_others_without_a_connection():
    """
    Calls that come while somebody has just found it out of reach are told so, and each is tried in the end if it may wait.
    """
    host = Restarting(until=1e9)
    async with AsyncKimi(api_key="sk-test", max_retries=0, transport=MemoryTransport(host)) as client:
        await asyncio.sleep(DOWN_FROM)
        errors = await asyncio.gather(*(client.models.list() for _ in range(50)), return_exceptions=True)
        more = await asyncio.gather(*(client.models.list() for _ in range(50)), return_exceptions=True)

    assert {APIConnectionError} == {type(error) for error in [*errors, *more]}
    assert len(host.knocks) <= 50
    assert any("not tried" in str(error) for error in more)


NGINX = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</html>\r\n"
HAPROXY = b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>\n"
ANSWER = {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}]}


class WithoutBackEnd:
    """
    A proxy that stays while what is behind it restarts.
    """

    def __init__(self, status: int, page: bytes, down: float) -> None:
        self.refusal = Reply(status, {"content-type": "text/html"}, page)
        self.until = DOWN_FROM + down
        self.refused: list[float] = []
        self.served: list[float] = []

    async def __call__(self, _: Request) -> Reply:
        now = asyncio.get_running_loop().time()
        if DOWN_FROM <= now < self.until:
            self.refused.append(now)
            await asyncio.sleep(0.002)
            return self.refusal
        await asyncio.sleep(0.25)
        self.served.append(now)
        return Reply(200, {"content-type": "application/json"}, json.dumps(ANSWER).encode())


async def ask(client: AsyncKimi, until: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        await client.chat.completions.create(model="kimi-k3", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("status", "page"),
    [(502, NGINX), (502, b""), (503, HAPROXY), (504, NGINX), (521, b"error code: 521")],
    ids=["nginx", "nothing", "haproxy", "504", "cloudflare"],
)
@pytest.mark.parametrize("down", [3.0, 20.0])
@pytest.mark.parametrize("workers", [16, 1_000])
async def test_proxy_whose_back_end_restarts(status: int, page: bytes, down: float, workers: int):
    """
    A gateway's own page says the same of all requests: one caller asks each second, its success frees the rest, no call is lost.
    """
    proxy = WithoutBackEnd(status, page, down)
    async with AsyncKimi(api_key="sk-test", max_retries=6, transport=MemoryTransport(proxy)) as client:
        await asyncio.gather(*(ask(client, proxy.until + 3.0) for _ in range(workers)))

    back = min(at for at in proxy.served if at >= proxy.until)
    assert back - proxy.until <= 1.5
    # Those that were on their way when it went down had to find out by themselves.
    later = [at for at in proxy.refused if at > DOWN_FROM + 0.5]
    assert len(later) <= 2 * down
