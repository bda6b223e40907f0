import asyncio
import json
import os

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    completion = await client.chat.completions.create(
        model="kimi-k3",
        messages=[
            {"role": "system", "content": 'Answer in JSON: {"text": "...", "image": "...", "url": "..."}'},
            {"role": "user", "content": "Introduce yourself."},
        ],
        response_format={"type": "json_object"},
    )
    print(sorted(json.loads(completion.choices[0].message.content)))
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "year": {"type": "integer"}},
        "required": ["name", "year"],
        "additionalProperties": False,
    }
    completion = await client.chat.completions.create(
        model="kimi-k3",
        messages=[{"role": "user", "content": "A company."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "company", "strict": True, "schema": schema},
        },
    )
    print(sorted(json.loads(completion.choices[0].message.content)))
    await client.close()


asyncio.run(main())
