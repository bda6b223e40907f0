"""
The client that a command uses: of the key in the environment, or of a simulator started for it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..client import AsyncKimi
from ..middleware.rate_limit.middleware import RateLimits

if TYPE_CHECKING:
    from ..testing import KimiSimulator

__all__ = ["connected", "simulated"]


def simulated(
    *, host: str = "127.0.0.1", port: int = 0, pace: float = 40.0, words: tuple[int, int] = (40, 120)
) -> "KimiSimulator":
    """
    A simulator that writes `pace` tokens a second in each stream, after thinking for a third of a second; 0 is as fast as it
    can. `words` bounds the length of an answer.
    """
    from ..testing import KimiSimulator
    from ..testing.simulator.server import Pace

    pauses = Pace(first_token=0.3, tokens_per_second=pace) if pace else Pace()
    return KimiSimulator(host=host, port=port, pace=pauses, words=words)


@asynccontextmanager
async def connected(
    *, simulator: "bool | KimiSimulator" = False, limits: str | None = None
) -> AsyncGenerator[AsyncKimi]:
    """
    A client, closed at the end, together with the simulator if one was asked for. `limits` names a tier, of the real Kimi.
    """
    if not simulator:
        async with AsyncKimi(limits=limits) as client:
            yield client
        return
    async with (
        simulated() if simulator is True else simulator as sim,
        # It has no limits, so there is nothing to be learnt by starting slowly.
        AsyncKimi(base_url=sim.base_url, api_key=sim.api_key, limits=RateLimits(hold=False)) as client,
    ):
        yield client
