import asyncio
import json
import os

from openai import AsyncOpenAI

SYSTEM = {"role": "system", "content": "You are Kimi. Answer in plain words."}


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    completion = await client.chat.completions.create(
        model="kimi-k2.6",
        messages=[SYSTEM, {"role": "user", "content": "Hello, what is 1 + 1?"}],
        max_tokens=300,
    )
    print(completion.choices[0].message.content)
    print(completion.usage.model_dump()["total_tokens"] == completion.usage.total_tokens)
    print(json.loads(completion.model_dump_json())["choices"][0]["message"]["role"])
    print(dict(completion)["model"], completion.to_dict()["object"])
    await client.close()


asyncio.run(main())
