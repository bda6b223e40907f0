import asyncio
import os

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    stream = await client.chat.completions.create(
        model="kimi-k3",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=1024 * 32,
    )
    thinking = False
    out: list[str] = []
    async for chunk in stream:
        if chunk.usage:
            print(
                "tokens",
                chunk.usage.total_tokens == chunk.usage.prompt_tokens + chunk.usage.completion_tokens,
            )
        if chunk.choices:
            choice = chunk.choices[0]
            if choice.delta and hasattr(choice.delta, "reasoning_content"):
                if (thought := getattr(choice.delta, "reasoning_content")) is not None:
                    if not thinking:
                        thinking = True
                        out.append("<think>")
                    out.append(thought)
            if choice.delta and choice.delta.content:
                if thinking:
                    thinking = False
                    out.append("</think>")
                out.append(choice.delta.content)
    print("".join(out))
    completion = await client.chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": "Why is the sky blue?"}]
    )
    message = completion.choices[0].message
    if hasattr(message, "reasoning_content"):
        print(getattr(message, "reasoning_content"))
    await client.close()


asyncio.run(main())
