import asyncio
import os
from typing import Any

from openai import AsyncOpenAI

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
    calls: list[dict[str, Any]] = []
    text = ""
    stream = await client.chat.completions.create(
        model="kimi-k3",
        messages=[{"role": "user", "content": "Call search and crawl."}],
        tools=TOOLS,
        tool_choice="auto",
        stream=True,
    )
    async for chunk in stream:
        choice = chunk.choices[0]
        if choice.finish_reason:
            print("finish", choice.finish_reason)
        if choice.delta.content:
            text += choice.delta.content
        if choice.delta.tool_calls:
            for tool_call in choice.delta.tool_calls:
                index = tool_call.index
                while len(calls) <= index:
                    calls.append({"id": None, "type": None, "function": {"name": "", "arguments": ""}})
                if tool_call.id:
                    calls[index]["id"] = tool_call.id
                if tool_call.type:
                    calls[index]["type"] = tool_call.type
                if tool_call.function:
                    if tool_call.function.name:
                        calls[index]["function"]["name"] = tool_call.function.name
                    if tool_call.function.arguments:
                        calls[index]["function"]["arguments"] += tool_call.function.arguments
    print(text, calls)
    await client.close()


asyncio.run(main())
