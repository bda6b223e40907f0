"""
nginx and HAProxy between client and server: the one or the other restarts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.middleware.chain import Handler
from kimi_async.transport import Request, Response
from support import real_proxies
from support.real_proxies import COMMANDS, Program, free_port, installed

pytestmark = [
    pytest.mark.proxies,
    pytest.mark.skipif(not installed(), reason="nginx and haproxy are not both installed"),
]

CALLERS = 16
DOWN = 3.0


class Watch:
    """
    When attempts were made, and answered well.
    """

    def __init__(self) -> None:
        self.tried: list[float] = []
        self.served: list[float] = []
        self.wanted: asyncio.Event | None = None

    async def __call__(self, request: Request, send: Handler) -> Response:
        self.tried.append(time.monotonic())
        response = await send(request)
        if response.status == 200:
            self.served.append(time.monotonic())
            if self.wanted is not None:
                self.wanted.set()
        return response


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("gone", ["proxy", "server"])
async def test_program_that_restarts_between_us_and_the_model(name: str, gone: str, tmp_path: Path):
    """
    Be it the proxy, whose connections are refused, or what is behind it, of which the proxy speaks in a page of its own: no call is lost,
    hardly anybody asks while it is down, and all are served again soon after.
    """
    front, behind = free_port(), free_port()
    programs: dict[str, Program] = {
        "proxy": Program(COMMANDS[name](tmp_path, front, behind), front),
        "server": Program([sys.executable, str(real_proxies.__file__), str(behind)], behind),
    }
    watch, over = Watch(), asyncio.Event()
    for program in programs.values():
        await program.start()
    try:
        async with AsyncKimi(
            base_url=f"http://127.0.0.1:{front}/v1", api_key="sk-test", max_retries=6, middleware=[watch]
        ) as client:
            callers = [asyncio.create_task(ask(client, over)) for _ in range(CALLERS)]
            await served(watch, CALLERS)
            await programs[gone].stop()
            down = time.monotonic()
            await asyncio.sleep(DOWN)  # what is tested is what happens meanwhile
            back = time.monotonic()
            await programs[gone].start()
            await asyncio.wait_for(served(watch, 2 * CALLERS), 10)
            over.set()
            await asyncio.gather(*callers)
    finally:
        for program in programs.values():
            await program.stop()

    assert min(at for at in watch.served if at > back) - back <= 2.0
    # Those that were on their way when it went down had to find out by themselves.
    assert sum(down + 0.5 < at < back for at in watch.tried) <= 2 * DOWN


async def ask(client: AsyncKimi, over: asyncio.Event) -> None:
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    while not over.is_set():
        await client.chat.completions.create(model="kimi-k3", messages=messages)


async def served(watch: Watch, calls: int) -> None:
    """
    Returns when so many more were answered.
    """
    watch.wanted = asyncio.Event()
    until = len(watch.served) + calls
    while len(watch.served) < until:
        watch.wanted.clear()
        await watch.wanted.wait()
