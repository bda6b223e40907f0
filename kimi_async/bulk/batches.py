"""
`client.batches`: requests that may wait, at 60 % of the price.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..resources.batches import BatchEndpoints
from ..types.batches import Batch
from . import batch_jobs
from .batch_jobs import BatchHandle, BatchProgress, BatchResults, Via
from .map import Requests
from .request_files import MAX_FILE_SIZE, MAX_LINE_SIZE

__all__ = ["AsyncBatches"]


class AsyncBatches(BatchEndpoints):
    """
    Batches. `run` does a whole job; `submit`, `wait` and `results` do it in steps, from different processes if need be; the
    rest are the API's own calls.
    """

    async def run(
        self,
        requests: Requests,
        *,
        completion_window: str = "24h",
        model: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        via: Via = "batch",
        live: Mapping[str, Any] | None = None,
        repair: bool = False,
        max_bytes: int = MAX_FILE_SIZE,
        max_lines: int | None = None,
        max_line_size: int = MAX_LINE_SIZE,
        poll_interval: float = 5.0,
        max_poll_interval: float = 60.0,
        timeout: float | None = None,
        delete: bool = False,
        on_progress: Callable[[BatchProgress], object] | None = None,
    ) -> BatchResults:
        """
        Check, split, upload, create, wait, download and join: one `Result` for each request, in order. See
        `kimi_async.bulk.batch_jobs.run`.
        """
        return await batch_jobs.run(
            self._client,
            requests,
            completion_window=completion_window,
            model=model,
            defaults=defaults,
            metadata=metadata,
            directory=directory,
            state=state,
            via=via,
            live=live,
            repair=repair,
            max_bytes=max_bytes,
            max_lines=max_lines,
            max_line_size=max_line_size,
            poll_interval=poll_interval,
            max_poll_interval=max_poll_interval,
            timeout=timeout,
            delete=delete,
            on_progress=on_progress,
        )

    async def submit(
        self,
        requests: Requests,
        *,
        completion_window: str = "24h",
        model: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        repair: bool = False,
        max_bytes: int = MAX_FILE_SIZE,
        max_lines: int | None = None,
        max_line_size: int = MAX_LINE_SIZE,
        on_progress: Callable[[BatchProgress], object] | None = None,
    ) -> BatchHandle:
        """
        Check, split, upload and create; the handle is plain data. See `kimi_async.bulk.batch_jobs.submit`.
        """
        return await batch_jobs.submit(
            self._client,
            requests,
            completion_window=completion_window,
            model=model,
            defaults=defaults,
            metadata=metadata,
            directory=directory,
            state=state,
            repair=repair,
            max_bytes=max_bytes,
            max_lines=max_lines,
            max_line_size=max_line_size,
            on_progress=on_progress,
        )

    async def attach(self, batch_ids: str | Sequence[str]) -> BatchHandle:
        """
        A handle for batches known by their ids alone.
        """
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
        Wait until every batch of a job has ended. A batch id will do for a handle. See `kimi_async.bulk.batch_jobs.wait`.
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
    ) -> BatchResults:
        """
        Download what there is and join it. A batch id will do for a handle. See `kimi_async.bulk.batch_jobs.collect`.
        """
        known = await self.attach(handle) if isinstance(handle, str) else handle
        return await batch_jobs.collect(self._client, known, directory=directory, delete=delete)

    async def cancel_job(self, handle: BatchHandle) -> Sequence[Batch]:
        """
        Cancel every batch of a job that has not ended.
        """
        return await batch_jobs.cancel(self._client, handle)
