"""
Batches, as ``/v1/batches`` gives them.

Source: platform.kimi.ai/docs/api/batch (OpenAPI) and its guide.
"""

from typing import Any, ClassVar, Literal, TypeAlias

from ._base import Reply, absent, wire

__all__ = ["Batch", "BatchList", "BatchRequestCounts", "BatchStatus"]

BatchStatus: TypeAlias = (
    Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    | str
)
"""
``validating → in_progress → finalizing → completed``; or ``failed`` (validation), ``expired``,
``cancelling → cancelled``.
"""


@wire
class BatchRequestCounts(Reply):
    """How many requests of a batch are where."""

    completed: int = 0
    failed: int = 0
    total: int = 0


@wire
class Batch(Reply):
    """A batch. Times are Unix seconds, None until they have come."""

    __children__: ClassVar[tuple[str, ...]] = ("request_counts",)

    id: str
    status: str = ""
    """See `BatchStatus`."""
    endpoint: str = ""
    input_file_id: str = ""
    completion_window: str = ""
    """``12h`` to ``7d``."""
    created_at: int = 0
    object: str = "batch"
    output_file_id: str | None = absent()
    """Answers, one a line, in any order."""
    error_file_id: str | None = absent()
    """Failures, one a line."""
    in_progress_at: int | None = absent()
    expires_at: int | None = absent()
    finalizing_at: int | None = absent()
    completed_at: int | None = absent()
    failed_at: int | None = absent()
    expired_at: int | None = absent()
    cancelling_at: int | None = absent()
    cancelled_at: int | None = absent()
    request_counts: BatchRequestCounts | None = absent()
    errors: Any = absent()
    """Why it failed. Not in Kimi's schema, so of any shape; OpenAI's is ``{"data": [{"code", "message", "line"}]}``."""
    metadata: dict[str, Any] | None = absent()

    @property
    def ended(self) -> bool:
        """Whether the status is one that does not change any more."""
        return self.status in ("completed", "failed", "expired", "cancelled")


@wire
class BatchList(Reply):
    """One page of ``GET /v1/batches``."""

    __children__: ClassVar[tuple[str, ...]] = ("data",)

    data: list[Batch]
    object: str = "list"
    has_more: bool | None = absent()
    first_id: str | None = absent()
    last_id: str | None = absent()
