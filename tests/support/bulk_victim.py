"""
A map that is killed: run by tests and benchmarks in a process of its own.

    python bulk_victim.py <url> <key> <journal> <count> <concurrency> [durability]

The sent requests are what the server saw; nothing is printed but "done".
"""

import asyncio
import sys

from kimi_async.bulk.map import Map, MapOptions
from kimi_async.client import AsyncKimi


async def main(
    url: str, key: str, journal: str, count: str, concurrency: str, durability: str = "process"
) -> None:
    items = (
        {"custom_id": f"r{n}", "messages": [{"role": "user", "content": f"question {n}"}]}
        for n in range(int(count))
    )
    options = MapOptions(
        model="kimi-k2.6",
        concurrency=int(concurrency),
        journal=journal,
        durability=durability,  # type: ignore[arg-type]
    )
    async with AsyncKimi(base_url=url, api_key=key) as client, Map(client, items, options) as results:
        async for result in results:
            result.unwrap()
    print("done")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
