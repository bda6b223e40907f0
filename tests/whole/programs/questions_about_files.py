import asyncio
import os
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

SYSTEM = {"role": "system", "content": "You are Kimi. Answer in plain words."}


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    paths = [Path("rivers.txt"), Path("hills.md")]
    paths[0].write_text("Rivers bend.", "utf-8")
    paths[1].write_text("# Hills\nHills stay.", "utf-8")
    messages: list[Any] = []
    for path in paths:
        file_object = await client.files.create(file=path, purpose="file-extract")
        print(file_object.filename, file_object.bytes, file_object.purpose, file_object.status)
        content = (await client.files.content(file_id=file_object.id)).text
        messages.append({"role": "system", "content": content})
    completion = await client.chat.completions.create(
        model="kimi-k2.6", messages=[*messages, SYSTEM, {"role": "user", "content": "What bends?"}]
    )
    print(completion.choices[0].message.content)
    file_list = await client.files.list()
    for each in file_list.data:
        print(each.filename, (await client.files.delete(file_id=each.id)).deleted)
    print([each.filename async for each in client.files.list()])
    await client.close()


asyncio.run(main())
