"""
The client that a command uses: of the key in the environment, or of a simulator started for it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..client import AsyncKimi

__all__ = ["connected"]


@asynccontextmanager
async def connected(
    *, simulator: bool = False, pace: float = 40.0, **options: Any
) -> AsyncIterator[AsyncKimi]:
    """
    A client, closed at the end; `pace` in tokens a second, for the simulator only.
    """
    if simulator:
        from ..testing import KimiSimulator

        async with (
            KimiSimulator(tokens_per_second=pace) as sim,
            AsyncKimi(base_url=sim.base_url, api_key=sim.api_key, **options) as client,
        ):
            yield client
    else:
        async with AsyncKimi(**options) as client:
            yield client
