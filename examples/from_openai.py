"""
Code written for AsyncOpenAI, moved by changing one import.

Was: from openai import APIConnectionError, AsyncOpenAI, RateLimitError
"""

import asyncio

from kimi_async import APIConnectionError, RateLimitError
from kimi_async import AsyncKimi as AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(max_retries=3, timeout=60.0)
    try:
        # What OpenAI's client does not know went through extra_body, and still may.
        completion = await client.chat.completions.create(
            model="kimi-k2.6",
            messages=[{"role": "user", "content": "Say hello."}],
            extra_body={"thinking": {"type": "disabled"}},
        )
        print(completion.choices[0].message.content)

        # Here it also has a name, and a type that an editor knows.
        stream = await client.chat.completions.create(
            model="kimi-k2.6",
            messages=[{"role": "user", "content": "Count to three."}],
            thinking={"type": "disabled"},
            stream=True,
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                print(chunk.choices[0].delta.content, end="", flush=True)
        print()
    except RateLimitError as error:
        print(f"too many requests: {error.message} (request {error.request_id})")
    except APIConnectionError as error:
        print(f"could not reach the server: {error}")
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
