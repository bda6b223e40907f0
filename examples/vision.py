"""
Ask about a picture.

    python examples/vision.py photo.jpg "What is on it?"

Kimi takes pictures from the message itself or from its file store, never from the web: small ones travel inside the
message, larger ones are uploaded first. Videos likewise, with `client.files.video_part`.
"""

import asyncio
import base64
import sys

from kimi_async import AsyncKimi

# A red dot, for those who have no picture at hand.
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)


async def main(picture: str | tuple[str, bytes], question: str) -> None:
    async with AsyncKimi() as client:
        completion = await client.chat.completions.create(
            model="kimi-k3",
            messages=[
                {
                    "role": "user",
                    "content": [await client.files.image_part(picture), {"type": "text", "text": question}],
                }
            ],
        )
        print(completion.choices[0].message.content)


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1] if sys.argv[1:] else ("dot.png", DOT), " ".join(sys.argv[2:]) or "What is on it?")
    )
