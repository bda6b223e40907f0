import asyncio
import os

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    prefix = "{\n  "
    completion = await client.chat.completions.create(
        model="kimi-k2.6",
        messages=[
            {"role": "system", "content": "Take size, colour and price from the text. Answer in JSON."},
            {"role": "user", "content": "A brown case of 30 cm for 99 dollars."},
            {"role": "assistant", "content": prefix, "partial": True},
        ],
        extra_body={"thinking": {"type": "disabled"}},
    )
    print(prefix + completion.choices[0].message.content)
    completion = await client.chat.completions.create(
        model="kimi-k3",
        messages=[
            {"role": "system", "content": "You play a doctor."},
            {"role": "user", "content": "What do you think of rain?"},
            {"role": "assistant", "name": "Kal'tsit", "content": "", "partial": True},
        ],
    )
    print(completion.choices[0].message.content)
    await client.close()


asyncio.run(main())
