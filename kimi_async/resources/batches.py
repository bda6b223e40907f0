"""
`client.batches`: requests that may wait, at 60 % of the price.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Unpack

from .. import codec
from ..config import hide
from ..types._base import NOT_GIVEN, NotGiven, Omit
from ..types.batches import Batch, BatchList
from ._base import Resource
from .arguments import path_segment, with_query
from .caller import CallOptions
from .pagination import AsyncCursorPage, AsyncPaginator

__all__ = ["BatchEndpoints"]


class BatchEndpoints(Resource["RawBatches", "StreamingBatches"]):
    """
    The Batch API's own calls. Whole jobs are made of them in `kimi_async.bulk.batches`.

    As of 2026-09 Kimi batches `kimi-k2.6`, not `kimi-k3` (platform.kimi.ai/docs/guide/use-batch-api).
    """

    async def create(
        self,
        *,
        input_file_id: str,
        endpoint: str = "/v1/chat/completions",
        completion_window: str = "24h",
        metadata: Mapping[str, str] | NotGiven | Omit | None = NOT_GIVEN,
        output_expires_after: Mapping[str, object] | NotGiven | Omit = NOT_GIVEN,
        **call: Unpack[CallOptions],
    ) -> Batch:
        """
        Create a batch from a file uploaded with purpose ``batch``.

        :param completion_window: ``12h`` to ``7d``.
        :param metadata: up to 16 pairs of strings.
        :param output_expires_after: sent on; Kimi documents none.
        """
        hide(call)
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
            **call,
        )

    async def retrieve(
        self,
        batch_id: str,
        **call: Unpack[CallOptions],
    ) -> Batch:
        """How a batch is doing."""
        hide(call)
        return await self._client.request(
            "GET",
            f"batches/{path_segment('batch_id', batch_id)}",
            Batch,
            **call,
        )

    def list(
        self,
        *,
        after: str | NotGiven | Omit = NOT_GIVEN,
        limit: int | NotGiven | Omit = NOT_GIVEN,
        **call: Unpack[CallOptions],
    ) -> AsyncPaginator[Batch, AsyncCursorPage[Batch]]:
        """All batches; await it for the first page (20 unless ``limit`` says otherwise), or iterate it."""

        hide(call)

        async def fetch(params: Mapping[str, object]) -> AsyncCursorPage[Batch]:
            reply = await self._client.request(
                "GET",
                "batches",
                BatchList,
                **with_query(call, params),
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
        **call: Unpack[CallOptions],
    ) -> Batch:
        """
        Cancel a batch that is ``validating``, ``in_progress`` or ``finalizing``; what it has answered stays.

        :raises BadRequestError: in any other status.
        """
        hide(call)
        return await self._client.request(
            "POST",
            f"batches/{path_segment('batch_id', batch_id)}/cancel",
            Batch,
            **call,
        )


if TYPE_CHECKING:
    from .raw_replies import WithRawResponse, WithStreamingResponse, raw, streaming

    class RawBatches(WithRawResponse):
        create: Final = raw(BatchEndpoints.create)
        retrieve: Final = raw(BatchEndpoints.retrieve)
        list: Final = raw(BatchEndpoints.list)
        cancel: Final = raw(BatchEndpoints.cancel)

    class StreamingBatches(WithStreamingResponse):
        create: Final = streaming(BatchEndpoints.create)
        retrieve: Final = streaming(BatchEndpoints.retrieve)
        list: Final = streaming(BatchEndpoints.list)
        cancel: Final = streaming(BatchEndpoints.cancel)
