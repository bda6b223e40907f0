import asyncio
import os

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    body = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hello, what is 1 + 1?"}]}
    counted = await client.post("/tokenizers/estimate-token-count", body=body, cast_to=object)
    print(counted["data"]["total_tokens"])
    balance = await client.get("/users/me/balance", cast_to=object)
    print(sorted(balance["data"]), balance["status"])
    models = await client.models.list()
    print([model.id for model in models.data])
    await client.close()


asyncio.run(main())
