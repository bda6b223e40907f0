"""
Test code that talks to Kimi without talking to Kimi.

    pytest examples/testing_your_code.py

The package brings a pytest plugin: `kimi_simulator` is a server on this machine, `kimi_client` a client of it.
"""

from kimi_async import AsyncKimi

# --- the code under test: any function that takes a client ---


async def headline(client: AsyncKimi, article: str) -> str:
    completion = await client.chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": f"Give a headline for:\n\n{article}"}]
    )
    return (completion.choices[0].message.content or "").strip().rstrip(".")
