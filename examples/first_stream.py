"""
Print an answer while it is written, the reasoning first.

    python examples/first_stream.py Why do rivers bend?

The key comes from KIMI_API_KEY; examples/README.md tells how to do without one.
"""

import asyncio
import sys

from kimi_async import AsyncKimi


async def main(question: str) -> None:
    async with AsyncKimi() as client:
        stream = await client.chat.completions.create(
            model="kimi-k3",
            messages=[{"role": "user", "content": question}],
            stream=True,
        )
        async with stream:
            async for chunk in stream:
                for choice in chunk.choices:
                    # Either may be None: a chunk brings reasoning, or content, or the end.
                    print(choice.delta.reasoning_content or choice.delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "Why do rivers bend?"))
