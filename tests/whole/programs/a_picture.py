import asyncio
import base64
import os
from pathlib import Path

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    Path("kimi.png").write_bytes(
        base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
        )
    )
    with open("kimi.png", "rb") as f:
        data = f.read()
    url = f"data:image/{os.path.splitext('kimi.png')[1][1:]};base64,{base64.b64encode(data).decode()}"
    for image in (url, None):
        if image is None:
            with open("kimi.png", "rb") as f:
                uploaded = await client.files.create(file=f, purpose="image")
            image = f"ms://{uploaded.id}"
        completion = await client.chat.completions.create(
            model="kimi-k2.6",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": image}},
                        {"type": "text", "text": "What is in the picture?"},
                    ],
                }
            ],
        )
        print(completion.choices[0].finish_reason, bool(completion.choices[0].message.content))
    await client.close()


asyncio.run(main())
