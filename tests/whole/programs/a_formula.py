import asyncio
import json
import os

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    uri = "moonshot/web-search:latest"
    tools = (await client.get(f"/formulas/{uri}/tools", cast_to=object))["tools"]
    print([tool["function"]["name"] for tool in tools])
    fiber = await client.post(
        f"/formulas/{uri}/fibers",
        body={"name": "web_search", "arguments": json.dumps({"query": "rivers"})},
        cast_to=object,
    )
    print(fiber["status"], fiber["object"], sorted(fiber["context"]))
    await client.close()


asyncio.run(main())
