"""
A simulator and a bare client of it.
"""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from kimi_async.testing.simulator.server import KimiSimulator
from support.bare_client import Client


@pytest.fixture
async def sim() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(sim: KimiSimulator) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(sim, session)
