"""
A thousand questions, many at a time, each answer on disk before it is counted. Kill it, start it again: it goes on.

    python examples/pipeline.py answers.jsonl
"""

import asyncio
import sys

from kimi_async import AsyncKimi


def requests(count: int):
    # Any iterable will do, also one that never fits into memory. A name of your own says which answer is whose.
    for number in range(count):
        yield {
            "custom_id": f"question-{number}",
            "messages": [
                {
                    "role": "user",
                    "content": f"Name a river that begins with the letter {chr(97 + number % 26)}.",
                }
            ],
        }


async def main(path: str, count: int) -> None:
    failed = 0
    async with AsyncKimi() as client:
        run = client.map(
            requests(count),
            model="kimi-k3",
            defaults={"max_completion_tokens": 200},
            journal=path,
            token_budget=5_000_000,
            on_progress=lambda p: print(
                f"{p.skipped + p.done:,} done, {p.rate:.0f}/s", end="\r", file=sys.stderr
            ),
        )
        async with run:
            async for result in run:
                # One bad request never ends the others: its result has an error in place of a completion.
                if result.error is not None:
                    failed += 1
                    print(f"{result.custom_id}: {result.error}", file=sys.stderr)
    print(f"\nanswers are in {path}; {failed} failed")


if __name__ == "__main__":
    asyncio.run(main(*(sys.argv[1:2] or ["answers.jsonl"]), count=int(sys.argv[2]) if sys.argv[2:] else 1000))
