"""
Let the model call Python functions, as many and as often as it needs, and watch it do so.

    python examples/tool_loop.py Which is larger, 17 * 23 or 19 * 21?
"""

import asyncio
import sys

from kimi_async import AsyncKimi
from kimi_async.tools import ToolError, tool


@tool
async def multiply(a: int, b: int) -> int:
    """
    The product of two whole numbers.

    Args:
        a: The first.
        b: The second.
    """
    if abs(a * b) > 10**12:
        raise ToolError("too large for this calculator")  # the model is told, and may try something else
    return a * b


async def main(question: str) -> None:
    async with AsyncKimi() as client:
        run = client.chat.completions.run_tools(
            model="kimi-k3",
            messages=[{"role": "user", "content": question}],
            tools=[multiply],
            tool_timeout=10,
        )
        # `await run` would do, if only the result mattered.
        async with run:
            async for event in run:
                if event.type == "tool.started":
                    print(f"calls {event.call.function.name}({event.call.function.arguments})")
                elif event.type == "tool.finished":
                    print(f"is told {event.content}")
                elif event.type == "run.finished":
                    print(event.result.text)


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "Which is larger, 17 * 23 or 19 * 21?"))
