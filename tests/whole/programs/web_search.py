import asyncio
import json
import os
from typing import Any

from openai import AsyncOpenAI

SYSTEM = {"role": "system", "content": "You are Kimi. Answer in plain words."}


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    tools: list[Any] = [{"type": "builtin_function", "function": {"name": "$web_search"}}]
    messages: list[Any] = [
        SYSTEM,
        {"role": "user", "content": "Search the web: what is context caching at Moonshot?"},
    ]
    finish_reason = None
    rounds = 0
    while (finish_reason is None or finish_reason == "tool_calls") and rounds < 4:
        rounds += 1
        completion = await client.chat.completions.create(
            model="kimi-k2.6",
            messages=messages,
            max_tokens=2048,
            tools=tools,
            extra_body={"thinking": {"type": "disabled"}},
        )
        choice = completion.choices[0]
        finish_reason = choice.finish_reason
        if finish_reason == "tool_calls":
            messages.append(choice.message)
            for tool_call in choice.message.tool_calls:
                arguments = json.loads(tool_call.function.arguments)
                tokens = arguments.get("usage", {}).get("total_tokens", 0)
                print(tool_call.function.name, tokens > 0)
                messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": tool_call.id,
                        "name": tool_call.function.name,
                        "content": json.dumps(arguments),
                    }
                )
    print(choice.message.content)
    await client.close()


asyncio.run(main())
