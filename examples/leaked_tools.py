"""
A host whose parser fails, simulated: it leaves the calls in the text, and a model writes arguments that are almost JSON.

    python examples/leaked_tools.py
"""

import asyncio
from typing import Any

from kimi_async import AsyncKimi, LeakedToolsError
from kimi_async.testing import KimiSimulator
from kimi_async.testing.faults import BrokenArguments, LeakedTools
from kimi_async.tools import tool

QUESTION: Any = [{"role": "user", "content": "How many people live in Istanbul?"}]


@tool
def population(city: str) -> int:
    """How many people live in a city."""
    return 15_700_000 if city == "Istanbul" else 0


async def main() -> None:
    # One fault for each first answer of the three runs below; the answers after a call go well.
    faults = [LeakedTools("k3"), LeakedTools("k2"), None, BrokenArguments("single_quotes"), None]
    async with (
        KimiSimulator(faults=faults) as sim,
        AsyncKimi(base_url=sim.base_url, api_key=sim.api_key) as client,
    ):
        chat = client.chat.completions
        try:
            await chat.run_tools(model="kimi-k3", messages=QUESTION, tools=[population])
        except LeakedToolsError as error:
            print(f"as it came: {error.completion.choices[0].message.content}")

        run = chat.run_tools(
            model="kimi-k3", messages=QUESTION, tools=[population], leaked_tools="mend", stream=True
        )
        async for event in run:
            if event.type == "tool.finished":
                print(
                    f"mended: {event.call.function.name}({event.call.function.arguments}) is {event.content}"
                )

        run = chat.run_tools(model="kimi-k3", messages=QUESTION, tools=[population], repair_arguments=True)
        async for event in run:
            if event.type == "tool.finished":
                print(
                    f"repaired: {event.call.function.arguments} to {event.repaired}, which is {event.content}"
                )


if __name__ == "__main__":
    asyncio.run(main())
