"""
Shared fixtures. Async tests run on anyio's pytest plugin, on asyncio only: aiohttp has no other loop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from kimi_async.providers.hosts import PROVIDERS
from kimi_async.testing import KimiSimulator, VirtualClockLoop

# A shell that runs a job in the background has it ignore Ctrl-C, and so do the programs that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, so that a run says something of the change and not of the dice. `--hypothesis-profile default` throws them.
# The environments of the frameworks have no Hypothesis, and need none.
with suppress(ModuleNotFoundError):
    import hypothesis

    hypothesis.settings.register_profile("same", derandomize=True)
    hypothesis.settings.load_profile("same")


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.node.get_closest_marker("virtual_clock") is None:
        return "asyncio", {}
    return "asyncio", {"loop_factory": VirtualClockLoop}


@pytest.fixture(autouse=True)
def no_keys_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Tests see no key, address or proxy of the person who runs them, and can spend none of their money.
    """
    for row in PROVIDERS.values():
        for name in (*row.key_variables, *row.base_url_variables):
            monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIMI_MODEL", "KIMI_LOG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def neighbour() -> Iterator[KimiSimulator]:
    """
    A simulator on a thread of its own, shared by the tests of programs: examples, the README, the command line.
    """
    with KimiSimulator().in_thread() as simulator:
        yield simulator


@pytest.fixture
def neighbourhood(neighbour: KimiSimulator) -> dict[str, str]:
    """
    The environment of a program that is to talk to the simulator.
    """
    return {**os.environ, "KIMI_BASE_URL": neighbour.base_url, "KIMI_API_KEY": neighbour.api_key}
