"""
Shared fixtures. Async tests run on anyio's pytest plugin, on asyncio only: aiohttp has no other loop.
"""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
