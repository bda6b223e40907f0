"""
The same call at another host: the first one dies, comes back, and is preferred again.

    python examples/failover.py
"""

import asyncio

from kimi_async import AsyncKimi
from kimi_async.testing import FaultPlan, KimiSimulator
from kimi_async.testing.faults import Error


async def main() -> None:
    trouble = FaultPlan([None, Error("quota"), None, None])  # the second request finds the account empty
    async with KimiSimulator(faults=trouble) as first, KimiSimulator() as second:
        client = AsyncKimi(
            base_url=first.base_url,
            api_key=first.api_key,
            fallback=[AsyncKimi(base_url=second.base_url, api_key=second.api_key)],
        )
        names = {first.base_url.rstrip("/"): "the first host", second.base_url.rstrip("/"): "the second host"}
        async with client:
            for question in ("Why do rivers bend?", "And glaciers?", "And roads?"):
                completion = await client.chat.completions.create(
                    model="kimi-k3", messages=[{"role": "user", "content": question}]
                )
                before = ", ".join(attempt.cause for attempt in completion.attempts)
                print(
                    f"{question} {names[completion.host.rstrip('/')]}"
                    + (f" (before it: {before})" if before else "")
                )
                await asyncio.sleep(1.1)


asyncio.run(main())
