"""
A program that ends without closing its client, in the way its argument names. Run by tests, which look at what it prints.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import Any

from kimi_async import AsyncKimi
from kimi_async.testing import KimiSimulator

KEPT: list[Any] = []
WAYS = (
    "local",
    "global",
    "stream",
    "stream kept",
    "stream alone",
    "collected",
    "loop left open",
    "loop dropped",
    "closed elsewhere",
    "thread",
    "forked",
)


async def ask(client: AsyncKimi, stream: bool = False) -> Any:
    return await client.chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": "Hello?"}], stream=stream
    )


async def main(way: str) -> None:
    async with KimiSimulator() as sim:
        client = AsyncKimi(base_url=sim.base_url, api_key=sim.api_key)
        answer = await ask(client, way.startswith("stream"))
        match way:
            case "global" | "loop left open" | "loop dropped" | "closed elsewhere" | "forked":
                KEPT.append(client)
            case "stream":
                await answer.__anext__()
            case "stream kept":
                await answer.__anext__()
                KEPT.append((client, answer))
            case "stream alone":
                # Its client is gone; what it brings must come all the same.
                del client
                gc.collect()
                chunks = [chunk async for chunk in answer]
                assert chunks[-1].usage is not None
            case "collected":
                del client
                gc.collect()
                await asyncio.wait_for(quiet(sim), 5)
            case "thread":
                # Collected in another thread than the loop's.
                del client
                await asyncio.to_thread(gc.collect)
                await asyncio.wait_for(quiet(sim), 5)
            case _:
                pass


async def quiet(sim: KimiSimulator) -> None:
    """Returns once the server holds no connection."""
    while sim.stats.connections_open:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    way = sys.argv[1]
    if way.startswith("loop") or way == "closed elsewhere":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main(way))
        if way == "loop dropped":
            del loop
            gc.collect()
        elif way == "closed elsewhere":
            asyncio.run(KEPT[0].close())
    else:
        asyncio.run(main(way))
    if way == "forked" and (child := os.fork()):
        assert 0 == os.waitpid(child, 0)[1]
