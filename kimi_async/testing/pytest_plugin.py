"""
Fixtures for the tests of programs that use this package. Installed with it; nothing is loaded until one is asked for.

    async def test_answer(kimi_simulator, kimi_client):
        kimi_simulator.say("Forty-two.")
        completion = await kimi_client.chat.completions.create(model="kimi-k3", messages=[...])
        assert "Forty-two." == completion.choices[0].message.content

`kimi_simulator` takes its arguments from a mark: `@pytest.mark.kimi_simulator(limits="tier1", faults=[...])`.

The simulator serves from a thread of its own, so that the fixtures are plain ones: they work with synchronous tests, with
anyio's plugin and with pytest-asyncio in any mode, and the server keeps answering while the test blocks.
"""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..client import AsyncKimi
    from ..middleware.chain import Handler
    from ..transport.exchange import Request, Response
    from .simulator.server import KimiSimulator

__all__ = ["kimi_client", "kimi_simulator", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kimi_simulator(**options): arguments of KimiSimulator for the fixture kimi_simulator."
    )


@pytest.fixture
def kimi_simulator(request: pytest.FixtureRequest) -> Iterator["KimiSimulator"]:
    """A `KimiSimulator` on a port of its own, fresh for each test."""
    from .simulator.server import KimiSimulator

    mark: pytest.Mark | None = request.node.get_closest_marker("kimi_simulator")
    options: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}
    with KimiSimulator(**options).in_thread() as simulator:
        yield simulator


@pytest.fixture
def kimi_client(kimi_simulator: "KimiSimulator") -> Iterator["AsyncKimi"]:
    """An `AsyncKimi` that talks to `kimi_simulator`; it is closed after the test, on the loop that used it."""
    from ..client import AsyncKimi

    used: list[asyncio.AbstractEventLoop] = []

    async def remember(request: "Request", send: "Handler") -> "Response":
        used[:] = [asyncio.get_running_loop()]
        return await send(request)

    client = AsyncKimi(
        base_url=kimi_simulator.base_url, api_key=kimi_simulator.api_key, middleware=[remember]
    )
    yield client
    if used and not used[0].is_closed() and not used[0].is_running():
        used[0].run_until_complete(client.close())
        return
    # The test's loop is gone (or was never needed); what is left needs a loop only to be told that it is closed.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(client.close())
    finally:
        loop.close()
