"""
What the benchmark asks of a client, and the loop that a user of any generated SDK writes.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

__all__ = ["MESSAGES", "MODEL", "Peer", "Unsupported", "openai_consumers"]

MODEL = "kimi-k3"
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "Say hello to the moon, slowly and in three words."}
]


class Unsupported(Exception):
    """This client has no such thing; its text says so in the table's notes."""


class Peer:
    """
    One client under one shape: `base` is `http://127.0.0.1:PORT/SHAPE`, to which the client adds its own path.

    Every stream method returns what it received, and the workload compares that with what was sent: a client that is
    quick because it drops text is a failure, not a winner.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    """One line for the table: which library, which settings."""
    distribution: ClassVar[str | None] = None
    """The installed package whose version is shown, and without which the client is skipped."""
    also: ClassVar[tuple[str, ...]] = ()
    """Further packages that are needed, and shown."""
    loop: ClassVar[str] = "asyncio"
    generated: ClassVar[bool] = False
    """A general SDK, mostly generated from a schema: the goal of five times and more is against these."""
    heavy: ClassVar[int] = 1
    """Divides the number of units of the unpaced workloads, which are linear in it, so that a run ends in time."""
    environment: ClassVar[dict[str, str]] = {}
    """Documented settings that the library reads at import."""

    imports: ClassVar[str]
    """The import statement a user writes."""
    makes: ClassVar[str]
    """An expression that makes the client (or what serves as one), after `imports`."""

    def __init__(self, base: str) -> None:
        self.base = base

    @classmethod
    def missing(cls) -> str | None:
        """Why this client cannot run here, or None."""
        for package in (cls.distribution, *cls.also):
            if package is not None:
                try:
                    version(package)
                except PackageNotFoundError:
                    return f"{package} is not installed"
        return None

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Versions of what this client is made of."""
        return {package: version(package) for package in (cls.distribution, *cls.also) if package is not None}

    async def open(self) -> None:
        """Makes the client; whatever it does once is not measured again."""

    async def close(self) -> None:
        """Gives everything back."""

    async def text(self) -> int:
        """Iterates one stream; the number of characters of content."""
        raise Unsupported

    async def reasoning(self) -> int:
        """Iterates one stream; the number of characters of reasoning."""
        raise Unsupported

    async def tools(self) -> list[str]:
        """Iterates one stream of tool calls; their joined arguments, by index."""
        raise Unsupported

    async def helper(self) -> str:
        """What the library offers to accumulate a stream: the content at the end."""
        raise Unsupported

    async def final(self) -> int:
        """One stream of which nothing but the whole answer is wanted, in the cheapest way; its number of characters."""
        return await self.text()

    async def follow(self, each: Callable[[str], object]) -> None:
        """Iterates one stream and calls `each` with every non-empty text as soon as the library hands it out."""
        raise Unsupported

    async def call(self, messages: list[dict[str, Any]]) -> int:
        """One request without stream; the number of characters of the answer."""
        raise Unsupported


class openai_consumers(Peer):
    """The loops of everybody whose chunks look like OpenAI's: `chunk.choices[0].delta.content`."""

    async def chunks(self) -> AsyncIterable[Any]:
        """An opened stream."""
        raise NotImplementedError

    async def text(self) -> int:
        size = 0
        async for chunk in await self.chunks():
            for choice in chunk.choices:
                text = choice.delta.content
                if text:
                    size += len(text)
        return size

    async def reasoning(self) -> int:
        size = 0
        async for chunk in await self.chunks():
            for choice in chunk.choices:
                text = getattr(choice.delta, "reasoning_content", None)
                if text:
                    size += len(text)
        return size

    async def tools(self) -> list[str]:
        joined: list[list[str]] = [[], []]
        async for chunk in await self.chunks():
            for choice in chunk.choices:
                for call in choice.delta.tool_calls or ():
                    text = call.function.arguments
                    if text:
                        joined[call.index].append(text)
        return ["".join(pieces) for pieces in joined]

    async def follow(self, each: Callable[[str], object]) -> None:
        async for chunk in await self.chunks():
            for choice in chunk.choices:
                text = choice.delta.content
                if text:
                    each(text)
