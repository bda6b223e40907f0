import asyncio
import os

import openai
from openai import AsyncOpenAI


async def main() -> None:
    semaphore = asyncio.Semaphore(3)
    async with AsyncOpenAI(
        api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"]
    ) as client:

        async def ask(number: int) -> str:
            async with semaphore:
                try:
                    completion = await client.with_options(timeout=20, max_retries=5).chat.completions.create(
                        model="kimi-k3" if number != 4 else "no-such-model",
                        messages=[{"role": "user", "content": f"Number {number}?"}],
                    )
                except openai.RateLimitError as e:
                    return f"limited {e.status_code}"
                except openai.APIStatusError as e:
                    return f"{type(e).__name__} {e.status_code} {e.response.status_code} {e.body['type']}"
                except openai.APIConnectionError:
                    return "lost"
                return completion.choices[0].message.content

        for each in await asyncio.gather(*(ask(number) for number in range(8)), return_exceptions=True):
            print(each)


asyncio.run(main())
