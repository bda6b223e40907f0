"""
Ask a question about documents: Kimi extracts their text, the question comes after it.

    python examples/file_qa.py "What do they have in common?" report.pdf notes.txt
"""

import asyncio
import sys

from kimi_async import AsyncKimi


async def main(question: str, paths: list[str]) -> None:
    async with AsyncKimi() as client:
        # All files at once, each deleted from the account again. For one question, `client.files.ask` does all of this.
        documents = await client.files.extract_messages(paths)
        messages = [*documents, {"role": "user", "content": question}]
        count = await client.tokenizers.estimate_token_count(model="kimi-k3", messages=messages)
        print(f"{len(paths)} documents, {count.total_tokens:,} tokens", file=sys.stderr)

        # Further questions about the same documents are cheaper with a cache key: the beginning is the same.
        async with client.chat.completions.stream(
            model="kimi-k3", messages=messages, prompt_cache_key="file-qa"
        ) as stream:
            async for text in stream.text_stream():
                print(text, end="", flush=True)
    print()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit('usage: python examples/file_qa.py "question" file...')
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
