"""
Several jobs side by side, their results in order.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

__all__ = ["in_parallel"]

R = TypeVar("R")


async def in_parallel(jobs: Sequence[Callable[[], Awaitable[R]]], concurrency: int) -> list[R]:
    """The results of all jobs, in order, at most ``concurrency`` running at a time. The first failure cancels the rest."""
    import anyio

    results: list[Any] = [None] * len(jobs)
    queue = iter(enumerate(jobs))

    async def work() -> None:
        for number, job in queue:
            results[number] = await job()

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(concurrency, len(jobs))):
                group.start_soon(work)
    except BaseExceptionGroup as exc:
        # One failure is the caller's business as itself, not as a group of one.
        if len(exc.exceptions) == 1:
            raise exc.exceptions[0] from None
        raise
    return results
