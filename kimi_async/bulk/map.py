"""
`client.map`: one request after another from any iterable, many at a time, results as they come.

    async with client.map(prompts, model="kimi-k3", journal="out.jsonl") as results:
        async for result in results:
            print(result.custom_id, result.text or result.error)

The source is read one item at a time, when a worker is free and the results
not yet taken are few: neither a task nor a row is kept for what lies ahead, so
a million rows need no more memory than a thousand.

With a journal, a result is handed out only when its line is in the file, so
what you have seen is never sent again. See `MapParams` for what that survives.
"""

import asyncio
from typing import Self

from ..resources.caller import Caller
from ..resources.threads import to_the_end
from .ask import AnswerBegunAnew
from .engine import Engine
from .journal import Mended
from .meter import MapProgress, MapStoppedError
from .options import FATAL, MapOptions, MapParams, TokenPrice, check_options, options_of
from .requests import Requests, check_requests, request_of
from .results import Result

__all__ = [
    "FATAL",
    "AnswerBegunAnew",
    "Map",
    "MapOptions",
    "MapParams",
    "MapProgress",
    "MapStoppedError",
    "Requests",
    "TokenPrice",
    "options_of",
    "request_of",
]


class Map:
    """
    The results of a run, in the order they are finished, or that of the input with ``ordered=True``.

    Iterate it once; under ``async with``, or `aclose` it, if you may leave
    early. What had finished by then is still written to the journal.

    The options are those of `MapParams`.

    A failed request does not stop the others: its `Result.error` says why, retries included.
    """

    def __init__(self, client: Caller, requests: Requests, options: MapOptions) -> None:
        check_options(options)
        check_requests(requests)
        self._run = Engine(client, requests, options)
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        run = self._run
        if self._task is None:
            if self._over:
                raise StopAsyncIteration
            self._task = asyncio.get_running_loop().create_task(run.run(), name="kimi-map")
        while True:
            if run.outbox:
                return run.outbox.take()
            if run.over:
                break
            await run.outbox.wait()
        self._over = True
        failure = run.failure
        run.failure = None
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    @property
    def progress(self) -> MapProgress:
        """How far it is."""
        return self._run.progress()

    @property
    def stopped(self) -> str | None:
        """Why it stopped before the end of its input; None if it did not."""
        return self._run.stopped

    @property
    def mended(self) -> Mended | None:
        """What was put right in the journal when it was opened (`journal.Mended`); None before, or without one."""
        return self._run.mended

    def stop(self, reason: str = "stopped by the caller") -> None:
        """Send nothing more; what is under way is finished and handed out. For Ctrl-C, say."""
        self._run.stop(reason)

    async def aclose(self) -> None:
        """Give up what is under way, write what is finished to the journal, and close it. Idempotent."""
        self._over = True
        self._run.outbox.clear()
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            # To its end even if we are cancelled ourselves, since it holds the journal; then the cancellation goes on.
            await to_the_end(task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Left with `break`: the workers hold no reference to this object, so they would go on for ever.
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)

    def __repr__(self) -> str:
        shown = self._run.progress()
        return f"<Map {shown.done:,} done, {shown.failed:,} failed, {shown.in_flight:,} in flight>"
