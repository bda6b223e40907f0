"""
The client that a command uses: of the key in the environment, or of a simulator started for it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..client import AsyncKimi
from ..middleware.rate_limit import RateLimits

if TYPE_CHECKING:
    from ..testing import KimiSimulator

__all__ = ["connected", "simulated"]


def simulated(*, host: str = "127.0.0.1", port: int = 0, pace: float = 40.0) -> "KimiSimulator":
    """
    A simulator that writes `pace` tokens a second in each stream, after thinking for a third of a second; 0 is as fast as it can.
    """
    from ..testing import KimiSimulator
    from ..testing.simulator import Pace

    return KimiSimulator(
        host=host, port=port, pace=Pace(first_token=0.3, tokens_per_second=pace) if pace else Pace()
    )


@asynccontextmanager
async def connected(*, simulator: "bool | KimiSimulator" = False) -> AsyncGenerator[AsyncKimi]:
    """
    A client, closed at the end, together with the simulator if one was asked for.
    """
    if not simulator:
        async with AsyncKimi() as client:
            yield client
        return
    async with (
        simulated() if simulator is True else simulator as sim,
        # It has no limits, so there is nothing to be learnt by starting slowly.
        AsyncKimi(base_url=sim.base_url, api_key=sim.api_key, limits=RateLimits(hold=False)) as client,
    ):
        yield client
