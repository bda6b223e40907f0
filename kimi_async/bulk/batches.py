"""
`client.batches`: requests that may wait, at 60 % of the price.

    results = await client.batches.run(requests, model="kimi-k2.6", state="job.json")
    for result in results:
        print(result.custom_id, result.text or result.error)

A batch costs 60 % of live calls and does not count towards rate limits
(platform.kimi.ai/docs/guide/use-batch-api). What it leaves unanswered can be
sent live: ``via="auto"``.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict, Unpack

from msgspec import structs

from ..errors import BadRequestError, ConfigurationError, NotFoundError
from ..resources.arguments import LeakedTools, check_leaked_tools, unknown_argument
from ..resources.batches import BatchEndpoints
from ..resources.threads import in_thread
from ..types.batches import Batch
from . import batch_jobs
from .batch_handle import BatchHandle, BatchNotFinishedError, BatchProgress
from .batch_requests import RequestRules
from .batch_results import BatchResults
from .kinds import check_kinds, check_positive
from .lines import MAX_LINE_SIZE
from .map import Map
from .options import check_options, options_of
from .request_files import MAX_BATCH_FILE
from .requests import Requests, check_requests
from .watching import watching

__all__ = ["AsyncBatches", "SubmitParams", "Via"]

Via: TypeAlias = Literal["batch", "auto", "live"]


class SubmitParams(TypedDict, total=False):
    """How a job is made: the keyword arguments of `submit`, which `run` takes too."""

    completion_window: str
    """``12h`` to ``7d``; ``24h`` by default."""
    model: str | None
    """For requests that name none."""
    defaults: Mapping[str, object] | None
    """More fields for requests that do not have them."""
    metadata: Mapping[str, str] | None
    """Kept with each batch by the server."""
    directory: str | os.PathLike[str] | None
    """For the files; a new private one by default, which goes when the results are closed."""
    state: str | os.PathLike[str] | None
    """
    A file that is brought up to date after every step. If it exists, the job in it is taken up again: what was uploaded or
    created is not done twice, even if the process died before it heard of it. The requests must be the same (compared by
    SHA-256).
    """
    repair: bool
    """For a path: read past a byte order mark, CR LF and blank lines."""
    max_bytes: int
    """Of one file; the requests are split over as many batches as that takes. 100 MB by default, which is the API's limit."""
    max_lines: int | None
    """The same in requests."""
    max_line_size: int
    """Bytes of one request; a longer one is reported as bad. Raise it for images inlined as base64."""
    on_progress: Callable[[BatchProgress], object] | None
    """Called after every step of the job. What it raises is logged, once, and the job goes on."""


class AsyncBatches(BatchEndpoints):
    """
    Batches. `run` does a whole job; `submit`, `wait` and `results` do it in steps, from different processes if need be; the
    rest are the API's own calls.
    """

    async def run(
        self,
        requests: Requests,
        *,
        via: Via = "batch",
        live: Mapping[str, object] | None = None,
        poll_interval: float = 5.0,
        max_poll_interval: float = 60.0,
        timeout: float | None = None,
        delete: bool = False,
        leaked_tools: LeakedTools | None = None,
        **options: Unpack[SubmitParams],
    ) -> BatchResults:
        """
        Check, split, upload, create, wait, download and join: one `Result` for each request, in order.

        :param via: ``"batch"``; ``"auto"`` sends live, afterwards, what the batch left unanswered or failed for a passing
            reason (also everything, where the batch was refused: not every model has batches); ``"live"`` sends
            everything live at once. Live requests go through `client.map`, with a journal in ``directory``.
        :param live: more options of `client.map`, for those.
        :param poll_interval: seconds between two looks at first, 5 by default; ``max_poll_interval`` (60) when nothing changes.
        :param timeout: seconds after which waiting ends with `BatchNotFinishedError`; None, the default: never.
        :param delete: remove the job's files from the account, as the last step. One that cannot be removed stays, which is logged.
            False by default.
        :param leaked_tools: `"mend"` makes calls of tool markup that the host left in a text, `"warn"` tells it, as for `create`,
            when a result is looked at. The output lines stay as they came. By default nothing is looked for.
        :param model: for requests that name none.
        :param defaults: a mapping of more fields for requests that do not have them.
        :param completion_window: ``12h`` to ``7d``; ``24h`` by default.
        :param metadata: kept with each batch by the server.
        :param state: a file that is brought up to date after every step, so that a run that was killed goes on where it was,
            also in the middle of the live rest, and pays for nothing twice.
        :param directory: for the files; a new private one by default, which goes when the results are closed.
        :param repair: for a path: read past a byte order mark, CR LF and blank lines. False by default.
        :param max_bytes: of one file, 100 MB by default; the requests are split over as many batches as that takes.
        :param max_lines: the same in requests.
        :param max_line_size: bytes of one request, 8 MiB by default.
        :param on_progress: called with a `BatchProgress` after every step; what it raises is logged, once, and the job goes on.

        :raises InvalidLinesError: with every bad line by its number, before anything is sent.
        :raises BadRequestError, NotFoundError: the host has no batches, or none for this model (with ``via="batch"``).
        """
        if via not in ("batch", "auto", "live"):
            raise ConfigurationError(f"via must be 'batch', 'auto' or 'live', not {via!r}")
        check_leaked_tools(leaked_tools)
        check_positive(
            {"poll_interval": poll_interval, "max_poll_interval": max_poll_interval, "timeout": timeout}
        )
        if live:  # it would be found out after the batch
            check_options(options_of({"journal": "", **live}))
        handle, fresh = await _prepared("run", requests, options)
        state, on_progress = options.get("state"), options.get("on_progress")
        try:
            batches: Sequence[Batch] = ()
            if via != "live":
                reached: list[BatchHandle] = []
                try:
                    handle = await self._uploaded(handle, fresh, options, reached.append)
                except (BadRequestError, NotFoundError):
                    # The host has no batches, or none for this model, or takes no more of them.
                    if via == "batch":
                        raise
                    handle = reached[-1]
                if made := [part for part in handle.parts if part.batch_id is not None]:
                    batches = await self.wait(
                        structs.replace(handle, parts=tuple(made)),
                        poll_interval=poll_interval,
                        max_poll_interval=max_poll_interval,
                        timeout=timeout,
                        on_progress=on_progress,
                    )
            results = await batch_jobs.collect(
                self._client, handle, directory=options.get("directory"), batches=batches
            )
            results.leaked_tools = leaked_tools
            try:
                if via != "batch" and next(results.to_send_again(), None) is not None:
                    await self._send_live(
                        results, {"leaked_tools": leaked_tools, **(live or {})}, on_progress
                    )
            except BaseException:
                results.keep_files = state is not None
                results.close()
                raise
        except BatchNotFinishedError:
            raise  # its handle needs the files
        except BaseException as exc:
            if state is None:
                batch_jobs.discard(handle)
                batch_jobs.note_batches(exc, handle)
            raise
        if delete:
            await batch_jobs.delete_files(self._client, results)
        return results

    async def _send_live(
        self,
        results: BatchResults,
        options: Mapping[str, object],
        on_progress: Callable[[BatchProgress], object] | None,
    ) -> None:
        """Answers what a batch left open, one by one. What the journal of an earlier run holds is not asked for again."""
        handle = results.handle
        assert handle.directory is not None
        journal = os.path.join(handle.directory, f"live-{handle.job}.jsonl")
        loop = asyncio.get_running_loop()
        started = loop.time()
        on_progress = watching("on_progress", on_progress)
        left = results.unanswered + results.failed

        async def rest() -> AsyncIterator[bytes]:
            for line in results.to_send_again():
                yield line

        async with Map(
            self._client, rest(), options_of({"journal": journal, "total": left, **options})
        ) as answers:
            async for _ in answers:
                if on_progress is not None:
                    shown = answers.progress
                    on_progress(
                        BatchProgress(
                            "live", {"live": 1}, shown.ok, shown.failed, left, loop.time() - started
                        )
                    )
        await in_thread(results.add, journal)

    async def submit(self, requests: Requests, **options: Unpack[SubmitParams]) -> BatchHandle:
        """
        Check, split, upload, and create the batches; gives the handle, plain data, as soon as all are created.

        Everything is checked before anything is sent: unique ``custom_id``, one model, no stream, sizes. The options are
        those of `SubmitParams`.

        :raises InvalidLinesError: with every bad line by its number.
        """
        handle, fresh = await _prepared("submit", requests, options)
        try:
            return await self._uploaded(handle, fresh, options)
        except BaseException:
            if options.get("state") is None:
                batch_jobs.discard(handle)
            raise

    async def _uploaded(
        self,
        handle: BatchHandle,
        fresh: bool,
        options: SubmitParams,
        reached: Callable[[BatchHandle], object] | None = None,
    ) -> BatchHandle:
        return await batch_jobs.upload(
            self._client,
            handle,
            reached=reached,
            metadata=options.get("metadata"),
            state=options.get("state"),
            fresh=fresh,
            on_progress=options.get("on_progress"),
        )

    async def attach(self, batch_ids: str | Sequence[str]) -> BatchHandle:
        """A handle for batches that exist, by their ids, in the order of their requests: for results from another machine."""
        return await batch_jobs.attach(self._client, batch_ids)

    async def wait(
        self,
        handle: BatchHandle | str,
        *,
        poll_interval: float = 5.0,
        max_poll_interval: float = 60.0,
        timeout: float | None = None,
        on_progress: Callable[[BatchProgress], object] | None = None,
    ) -> Sequence[Batch]:
        """
        Wait until every batch of a job has ended: completed, failed, expired or cancelled. A batch id will do for a handle.

        Looks every ``poll_interval`` seconds at first, and up to ``max_poll_interval`` as nothing changes. A look that
        fails for a passing reason is repeated later: a batch takes hours, an outage minutes.

        :raises BatchNotFinishedError: after ``timeout`` seconds.
        """
        known = await self.attach(handle) if isinstance(handle, str) else handle
        return await batch_jobs.wait(
            self._client,
            known,
            poll_interval=poll_interval,
            max_poll_interval=max_poll_interval,
            timeout=timeout,
            on_progress=on_progress,
        )

    async def results(
        self,
        handle: BatchHandle | str,
        *,
        directory: str | os.PathLike[str] | None = None,
        delete: bool = False,
        leaked_tools: LeakedTools | None = None,
    ) -> BatchResults:
        """
        Download what there is and join it to the requests. A batch id will do for a handle.

        Files that are on this machine already, whole, are not fetched again.

        :param delete: remove the job's files from the account once they are here (an account holds at most 1,000). One that
            cannot be removed stays, which is logged.
        :param leaked_tools: as for `run`.
        """
        check_leaked_tools(leaked_tools)
        known = await self.attach(handle) if isinstance(handle, str) else handle
        results = await batch_jobs.collect(self._client, known, directory=directory)
        if delete:
            await batch_jobs.delete_files(self._client, results)
        results.leaked_tools = leaked_tools
        return results

    async def cancel_job(self, handle: BatchHandle) -> Sequence[Batch]:
        """Cancel every batch of a job that has not ended; gives them all."""
        return await batch_jobs.cancel(self._client, handle)


async def _prepared(method: str, requests: Requests, options: SubmitParams) -> tuple[BatchHandle, bool]:
    known = list(SubmitParams.__annotations__)
    for name in options:
        if name not in known:
            raise unknown_argument(
                f"batches.{method}", name, known, "fields of requests go through defaults={...}"
            )
    check_kinds(f"batches.{method}", options, SubmitParams)
    check_positive(options, "max_bytes", "max_lines", "max_line_size")
    check_requests(requests)
    rules = RequestRules(
        options.get("model"),
        options.get("defaults") or {},
        options.get("repair", False),
        options.get("max_bytes", MAX_BATCH_FILE),
        options.get("max_lines"),
        options.get("max_line_size", MAX_LINE_SIZE),
    )
    return await batch_jobs.prepare(
        requests,
        rules,
        completion_window=options.get("completion_window", "24h"),
        directory=options.get("directory"),
        state=options.get("state"),
    )
