import asyncio
import json
import os
from pathlib import Path

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])
    lines = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "kimi-k2.6", "messages": [{"role": "user", "content": f"Say {number}."}]},
        }
        for number in range(3)
    ]
    path = Path("requests.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    with open(path, "rb") as file:
        file_object = await client.files.create(file=file, purpose="batch")
    batch = await client.batches.create(
        input_file_id=file_object.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"kind": "nightly"},
    )
    print(batch.endpoint, batch.completion_window, batch.metadata)
    for _ in range(600):
        batch = await client.batches.retrieve(batch.id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            break
        await asyncio.sleep(0.05)
    counts = batch.request_counts
    print(batch.status, counts.total, counts.completed, counts.failed)
    content = await client.files.content(batch.output_file_id)
    rows = [json.loads(line) for line in content.text.strip().split("\n")]
    for row in sorted(rows, key=lambda row: row["custom_id"]):
        print(row["custom_id"], row["response"]["body"]["choices"][0]["message"]["content"])
    content.write_to_file("out.jsonl")
    print(Path("out.jsonl").read_bytes() == content.content == content.read())
    page = await client.batches.list(limit=10)
    print(len(page.data), page.data[0].status)
    await client.close()


asyncio.run(main())
