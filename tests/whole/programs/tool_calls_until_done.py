import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

from openai import AsyncOpenAI

SYSTEM = {"role": "system", "content": "You are Kimi. Answer in plain words."}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the web for what you do not know.",
            "parameters": {
                "type": "object",
                "required": ["query"],
                "properties": {"query": {"type": "string", "description": "what to look for"}},
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "crawl",
            "description": "Read the page at a URL.",
            "parameters": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}},
        },
    },
]


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    tool_map: dict[str, Callable[[dict[str, Any]], Any]] = {
        "search": lambda arguments: [{"title": "Rivers", "url": "https://example.org/rivers"}],
        "crawl": lambda arguments: {"content": "Rivers bend."},
    }
    messages: list[Any] = [SYSTEM, {"role": "user", "content": "Call search and tell me about rivers."}]
    finish_reason = None
    rounds = 0
    while (finish_reason is None or finish_reason == "tool_calls") and rounds < 5:
        rounds += 1
        completion = await client.chat.completions.create(model="kimi-k3", messages=messages, tools=TOOLS)
        choice = completion.choices[0]
        finish_reason = choice.finish_reason
        if finish_reason == "tool_calls":
            messages.append(choice.message)
            for tool_call in choice.message.tool_calls:
                name = tool_call.function.name
                arguments = json.loads(tool_call.function.arguments)
                result = tool_map[name](arguments)
                print(tool_call.type, name, sorted(arguments))
                messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": tool_call.id,
                        "name": name,
                        "content": json.dumps(result),
                    }
                )
    print(finish_reason, choice.message.content)
    await client.close()


asyncio.run(main())
