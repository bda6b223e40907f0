"""
A simulator on the test's own event loop, and a client of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kimi_async import AsyncKimi
from kimi_async.testing import KimiSimulator


@pytest.fixture
async def simulator() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as running:
        yield running


@pytest.fixture
async def client(simulator: KimiSimulator) -> AsyncIterator[AsyncKimi]:
    async with AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key) as opened:
        yield opened
