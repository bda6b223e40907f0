"""
Requests that may wait, at a lower price: checked, uploaded, watched and joined with their answers by one call.

    python examples/batch.py
"""

import asyncio

from kimi_async import AsyncKimi


async def main() -> None:
    requests = [
        {
            "custom_id": f"city-{city}",
            "messages": [{"role": "user", "content": f"In one sentence: what is {city} known for?"}],
        }
        for city in ("Ghent", "Lviv", "Oaxaca", "Kyoto")
    ]
    async with AsyncKimi() as client:
        # With `state=`, a job survives its process: started again, it waits for the batch that is already there.
        with await client.batches.run(
            requests,
            model="kimi-k2.6",
            state="batch.json",
            poll_interval=0.2,  # seconds at first; longer and longer for a job that takes hours
            on_progress=lambda p: print(f"{p.step}: {p.completed} of {p.total}"),
        ) as results:
            for result in results:
                # Every request has its result, in order: an answer, the server's error, or "unanswered".
                if result.completion is not None:
                    print(f"{result.custom_id}: {result.completion.choices[0].message.content}")
                else:
                    print(f"{result.custom_id} failed: {result.error}")


if __name__ == "__main__":
    asyncio.run(main())
