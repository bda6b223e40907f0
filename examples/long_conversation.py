"""
A conversation that has grown too long, with a call that was never answered: mended, fitted into the window, and gone on with.

    python examples/long_conversation.py
"""

import asyncio
from typing import Any

from kimi_async import AsyncKimi
from kimi_async.conversation import check_history, fit
from kimi_async.tools import tool


@tool
def add(a: int, b: int) -> int:
    """The sum of two whole numbers."""
    return a + b


def history() -> list[Any]:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}]
    for number in range(40):
        messages.append(
            {"role": "user", "content": f"Tell me about river number {number}. " + "It bends. " * 200}
        )
        messages.append({"role": "assistant", "content": "It bends. " * 200})
    call = {"id": "add:0", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    messages.append(
        {"role": "assistant", "content": "", "tool_calls": [call]}
    )  # somebody pressed Ctrl-C here
    messages.append({"role": "user", "content": "And what is 17 + 25?"})
    return messages


async def main() -> None:
    messages = history()
    for fault in check_history(messages, model="kimi-k2.6"):
        print(f"wrong: {fault}")
    async with AsyncKimi() as client:
        # A window of 20,000 tokens, so that there is something to leave out.
        fitted = await fit(
            messages,
            model="kimi-k2.6",
            max_completion_tokens=4_096,
            context=20_000,
            client=client,
            summary=lambda dropped: f"{len(dropped)} earlier messages were about rivers.",
        )
        print(f"mended: {'; '.join(fitted.changes)}")
        print(
            f"sends {len(fitted.messages)} messages of {len(messages)}, {fitted.tokens:,} tokens of {fitted.room:,}"
        )
        # In a tool loop the same is done before each turn.
        result = await client.chat.completions.run_tools(
            model="kimi-k2.6", messages=fitted.messages, tools=[add], max_completion_tokens=4_096, fit=True
        )
        print(result.text)


if __name__ == "__main__":
    asyncio.run(main())
