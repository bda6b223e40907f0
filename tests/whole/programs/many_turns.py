import asyncio
import os
from typing import Any

from openai import AsyncOpenAI

SYSTEM = {"role": "system", "content": "You are Kimi. Answer in plain words."}


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    history: list[Any] = [SYSTEM]

    async def chat(query: str) -> str:
        history.append({"role": "user", "content": query})
        completion = await client.chat.completions.create(model="kimi-k3", messages=history)
        result = completion.choices[0].message.content
        history.append({"role": "assistant", "content": result})
        return result

    print(await chat("How fast does the earth turn?"))
    print(await chat("And the moon?"))
    # Others send the message itself back, or what it dumps to.
    completion = await client.chat.completions.create(model="kimi-k3", messages=history)
    history.append(completion.choices[0].message)
    history.append({"role": "user", "content": "And the sun?"})
    completion = await client.chat.completions.create(model="kimi-k3", messages=history[-20:])
    history.append(completion.choices[0].message.model_dump(exclude_none=True))
    history.append({"role": "user", "content": "Thanks."})
    print(
        (await client.chat.completions.create(model="kimi-k3", messages=history)).choices[0].message.content
    )
    await client.close()


asyncio.run(main())
