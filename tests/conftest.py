"""
Shared fixtures. Async tests run on anyio's pytest plugin, on asyncio only: aiohttp has no other loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from kimi_async.testing import KimiSimulator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_keys_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Tests see no key, address or proxy of the person who runs them, and can spend none of their money.
    """
    for prefix in ("MOONSHOT", "KIMI", "OPENAI", "OPENROUTER"):
        for suffix in ("API_KEY", "BASE_URL"):
            monkeypatch.delenv(f"{prefix}_{suffix}", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Neighbour:
    """
    A simulator on a thread of its own, for code that brings its own event loop: programs, examples, the command line.
    """

    def __init__(self) -> None:
        self.simulator = KimiSimulator()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """
        Runs a coroutine on the simulator's thread and waits for its result.
        """
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def environment(self) -> dict[str, str]:
        """
        What a program must find in its environment to talk to the simulator.
        """
        return {"KIMI_BASE_URL": self.simulator.base_url, "KIMI_API_KEY": self.simulator.api_key}

    def start(self) -> None:
        self._thread.start()
        self.run(self.simulator.start())

    def stop(self) -> None:
        self.run(self.simulator.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def neighbour() -> Iterator[Neighbour]:
    one = Neighbour()
    one.start()
    try:
        yield one
    finally:
        one.stop()
