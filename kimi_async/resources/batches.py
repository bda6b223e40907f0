"""
`client.batches`: requests that may wait, at 60 % of the price.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..bulk import batch_jobs as batching
from ..bulk.batch_jobs import BatchHandle, BatchProgress, BatchResults, Via
from ..bulk.map import Requests
from ..bulk.request_files import MAX_FILE_SIZE, MAX_LINE_SIZE
from ..client import TimeoutLike, path_segment
from ..codec import json as codec
from ..types._base import NOT_GIVEN, NotGiven, Omit
from ..types.batches import Batch, BatchList
from ._base import Resource
from .pagination import AsyncCursorPage, AsyncPaginator

__all__ = ["AsyncBatches"]


class AsyncBatches(Resource):
    """
    Batches. `run` does a whole job; `submit`, `wait` and `results` do it in steps, from different processes if need be; the
    rest are the API's own calls.

    As of 2026-09 Kimi batches `kimi-k2.6`, not `kimi-k3` (platform.kimi.ai/docs/guide/use-batch-api).
    """

    async def create(
        self,
        *,
        input_file_id: str,
        endpoint: str = "/v1/chat/completions",
        completion_window: str = "24h",
        metadata: Mapping[str, str] | NotGiven | Omit | None = NOT_GIVEN,
        output_expires_after: Mapping[str, Any] | NotGiven | Omit = NOT_GIVEN,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> Batch:
        """
        Create a batch from a file uploaded with purpose ``batch``.

        :param completion_window: ``12h`` to ``7d``.
        :param metadata: up to 16 pairs of strings.
        :param output_expires_after: sent on; Kimi documents none.
        """
        return await self._client.request(
            "POST",
            "batches",
            Batch,
            body=codec.given(
                {
                    "input_file_id": input_file_id,
                    "endpoint": endpoint,
                    "completion_window": completion_window,
                    "metadata": metadata,
                    "output_expires_after": output_expires_after,
                }
            ),
            extra_headers=extra_headers,
            extra_query=extra_query,
            extra_body=extra_body,
            timeout=timeout,
        )

    async def retrieve(
        self,
        batch_id: str,
        *,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> Batch:
        """
        How a batch is doing.
        """
        return await self._client.request(
            "GET",
            f"batches/{path_segment('batch_id', batch_id)}",
            Batch,
            extra_headers=extra_headers,
            extra_query=extra_query,
            extra_body=extra_body,
            timeout=timeout,
        )

    def list(
        self,
        *,
        after: str | NotGiven | Omit = NOT_GIVEN,
        limit: int | NotGiven | Omit = NOT_GIVEN,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> AsyncPaginator[Batch, AsyncCursorPage[Batch]]:
        """
        All batches; await it for the first page (20 unless ``limit`` says otherwise), or iterate it.
        """

        async def fetch(params: Mapping[str, Any]) -> AsyncCursorPage[Batch]:
            reply = await self._client.request(
                "GET",
                "batches",
                BatchList,
                extra_headers=extra_headers,
                extra_query={**params, **(extra_query or {})},
                extra_body=extra_body,
                timeout=timeout,
            )
            return AsyncCursorPage(
                reply.data,
                has_more=reply.has_more,
                first_id=reply.first_id,
                last_id=reply.last_id,
                object=reply.object,
            )

        return AsyncPaginator(fetch, codec.given({"after": after, "limit": limit}))

    async def cancel(
        self,
        batch_id: str,
        *,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> Batch:
        """
        Cancel a batch that is ``validating``, ``in_progress`` or ``finalizing``; what it has answered stays.

        :raises BadRequestError: in any other status.
        """
        return await self._client.request(
            "POST",
            f"batches/{path_segment('batch_id', batch_id)}/cancel",
            Batch,
            extra_headers=extra_headers,
            extra_query=extra_query,
            extra_body=extra_body,
            timeout=timeout,
        )

    # --- whole jobs ---

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
        `kimi_async.batching.run`.
        """
        return await batching.run(
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
        Check, split, upload and create; the handle is plain data. See `kimi_async.batching.submit`.
        """
        return await batching.submit(
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
        return await batching.attach(self._client, batch_ids)

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
        Wait until every batch of a job has ended. A batch id will do for a handle. See `kimi_async.batching.wait`.
        """
        known = await self.attach(handle) if isinstance(handle, str) else handle
        return await batching.wait(
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
        Download what there is and join it. A batch id will do for a handle. See `kimi_async.batching.collect`.
        """
        known = await self.attach(handle) if isinstance(handle, str) else handle
        return await batching.collect(self._client, known, directory=directory, delete=delete)

    async def cancel_job(self, handle: BatchHandle) -> Sequence[Batch]:
        """
        Cancel every batch of a job that has not ended.
        """
        return await batching.cancel(self._client, handle)
