import asyncio
import io
import os

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    raw = await client.chat.completions.with_raw_response.create(
        model="kimi-k3", messages=[{"role": "user", "content": "Hi."}]
    )
    completion = raw.parse()
    print(raw.status_code, raw.headers.get("content-type"), completion.choices[0].message.content)
    uploaded = await client.files.create(
        file=("note.txt", io.BytesIO(b"Rivers bend."), "text/plain"), purpose="file-extract"
    )
    got = await client.files.retrieve(uploaded.id)
    print(got.filename, got.bytes)
    await client.close()


asyncio.run(main())
