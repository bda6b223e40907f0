"""
What the account holds and how the simulated storage behaves: plain data, changed by tests while it serves.
"""

import hashlib
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ....providers.models import MODELS
from ..replies import ACCOUNT, Account, Refusal, headers_for, json_bytes

__all__ = [
    "BatchPace",
    "Storage",
    "StorageFaults",
    "StorageReply",
    "StoredBatch",
    "StoredFile",
    "invalid",
    "missing",
    "ok",
    "refused",
]

Completer = Callable[[dict[str, object]], tuple[int, object]]
"""Answers the body of one batch line: HTTP status and the decoded reply."""

BATCH_MODELS: Final = tuple(model.id for model in MODELS.values() if model.batch)
_JSON: Final = "application/json; charset=utf-8"


@dataclass(slots=True)
class BatchPace:
    """Seconds that a batch spends in each status."""

    validating: float = 0.02
    in_progress: float = 0.05
    finalizing: float = 0.02
    cancelling: float = 0.02


@dataclass(slots=True)
class StorageFaults:
    """What goes wrong. Everything that has a number happens so many times, then no more."""

    uploads: deque[Refusal] = field(default_factory=deque[Refusal])
    """Answers to the next uploads, after their body was read."""
    cut_uploads: int = 0
    """Uploads whose connection is reset when half the file has come."""
    polls: deque[Refusal] = field(default_factory=deque[Refusal])
    """Answers to the next retrievals of a batch."""
    create: deque[Refusal] = field(default_factory=deque[Refusal])
    """Answers to the next creations of a batch."""
    lose_create: int = 0
    """Creations of a batch that succeed, but whose reply is lost."""
    cut_downloads: int = 0
    """Downloads that break off half-way."""
    extract: Mapping[str, str] = field(default_factory=dict[str, str])
    """File name → why its text cannot be extracted."""
    fail_line: Callable[[str], Refusal | None] | None = None
    """custom_id → the refusal that this request of a batch gets."""
    lose_line: Callable[[str], bool] | None = None
    """custom_id → whether it is in neither output file, though the batch completed."""
    expire_after: int | None = None
    """Answered requests after which a batch expires."""
    fail_validation: str | None = None
    """Why every new batch fails validation."""


@dataclass(slots=True)
class StoredFile:
    """A file as it is kept."""

    id: str
    name: str
    size: int
    purpose: str
    created_at: int
    sha256: str
    content_type: str
    data: bytes | None
    """None where it was too large to keep."""
    status: str = "ready"
    status_details: str = ""
    ready_at: float = 0.0
    uploads: int = 1

    def public(self, now: float) -> dict[str, object]:
        """As the API shows it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created_at,
            "filename": self.name,
            "purpose": self.purpose,
            "status": self.status if now >= self.ready_at else "processing",
            "status_details": self.status_details,
            "file_type": self.content_type,
        }


@dataclass(slots=True)
class StorageReply:
    """A decided reply."""

    status: int
    body: bytes
    content_type: str = _JSON
    cut: int | None = None
    """Bytes of the body after which the connection breaks; None for none."""


@dataclass(slots=True)
class StoredBatch:
    id: str
    endpoint: str
    input_file_id: str
    window: str
    metadata: dict[str, object] | None
    created: float
    created_at: int
    expires_at: int
    status: str = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    times: dict[str, int] = field(default_factory=dict[str, int])
    since: float = 0.0
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: list[dict[str, object]] | None = None
    lines: list[bytes] = field(default_factory=list[bytes])

    def public(self) -> dict[str, object]:
        value: dict[str, object] = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "input_file_id": self.input_file_id,
            "completion_window": self.window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
        }
        for name in ("in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at"):
            value[name] = self.expires_at if name == "expires_at" else self.times.get(name)
        for name in ("cancelling_at", "cancelled_at"):
            value[name] = self.times.get(name)
        value["request_counts"] = {"completed": self.completed, "failed": self.failed, "total": self.total}
        value["metadata"] = self.metadata
        if self.errors:
            value["errors"] = {"object": "list", "data": self.errors}
        return value


def ok(value: object) -> StorageReply:
    return StorageReply(200, json_bytes(value))


def refused(refusal: Refusal) -> StorageReply:
    return StorageReply(refusal.status, refusal.payload(), refusal.content_type)


def invalid(message: str) -> StorageReply:
    return refused(Refusal(400, "invalid_request_error", message))


def missing(message: str) -> StorageReply:
    return refused(Refusal(404, "resource_not_found_error", message))


class Storage:
    """
    Files and batches of one account.

    `complete` answers the requests of a batch; without it every answer is a
    short fixed text. `wall` gives Unix time. `keep` is how many bytes of a
    file are kept; of larger ones (but for batch input) only size and SHA-256.
    `page` makes lists paged; the official host documents no paging for files.
    `processing` is how long a new file is not ready yet.
    """

    def __init__(
        self,
        *,
        complete: Completer | None = None,
        pace: BatchPace | None = None,
        faults: StorageFaults | None = None,
        wall: Callable[[], float] = time.time,
        seed: int = 0,
        account: Account = ACCOUNT,
        keep: int = 4 * 1024 * 1024,
        page: int | None = None,
        processing: float = 0.0,
        max_files: int = 1000,
        max_file_size: int = 100 * 1024 * 1024,
        max_total: int = 10 * 1024**3,
        batch_models: Iterable[str] = BATCH_MODELS,
    ) -> None:
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, StoredBatch] = {}
        self.pace: BatchPace = pace or BatchPace()
        self.faults: StorageFaults = faults or StorageFaults()
        self.max_files = max_files
        self.max_file_size = max_file_size
        self.max_total = max_total
        self.keep = keep
        self.page = page
        self.processing = processing
        self.calls: Counter[str] = Counter()
        """How often each thing was asked for: `upload`, `delete`, `content`, `list`, `batch`, …"""
        self.batched: Counter[str] = Counter()
        """How often each custom_id was answered by a batch."""
        self.uploading = 0
        self.peak_uploading = 0
        self.complete: Completer = complete or _fixed_answer
        self.wall = wall
        self._seed = seed
        self._account = account
        self.batch_models: tuple[str, ...] = tuple(batch_models)
        self._ordinal = 0

    def headers(self, content_type: str) -> list[tuple[str, str]]:
        """The headers of the next reply."""
        self._ordinal += 1
        return headers_for(
            self._ordinal, seed=self._seed ^ 0xF11E5, account=self._account, content_type=content_type
        )

    def new_id(self, prefix: str) -> str:
        self._ordinal += 1
        digest = hashlib.blake2b(f"{self._seed}:{self._ordinal}".encode(), digest_size=10).hexdigest()
        return f"{prefix}{digest}"

    def store(
        self,
        name: str,
        data: bytes | None,
        *,
        purpose: str,
        size: int,
        sha256: str,
        content_type: str = "",
        status: str = "ready",
        status_details: str = "",
        ready_at: float = 0.0,
    ) -> StoredFile:
        """Have a file on the account, whatever it is. Of a large one only its size and hash are kept."""
        kept = data if data is not None and (size <= self.keep or purpose.startswith("batch")) else None
        file = StoredFile(
            id=self.new_id(""),
            name=name,
            size=size,
            purpose=purpose,
            created_at=int(self.wall()),
            sha256=sha256,
            content_type=content_type or "application/octet-stream",
            data=kept,
            status=status,
            status_details=status_details,
            ready_at=ready_at,
        )
        self.files[file.id] = file
        return file

    def put(self, name: str, data: bytes, *, purpose: str) -> StoredFile:
        """Have a file on the account without uploading it."""
        status = "ok" if purpose == "file-extract" else "ready"
        digest = hashlib.sha256(data).hexdigest()
        return self.store(name, data, purpose=purpose, size=len(data), sha256=digest, status=status)

    def dice(self, name: str) -> random.Random:
        """A generator that gives the same numbers for the same seed and name."""
        return random.Random(f"{self._seed}{name}")


def _fixed_answer(body: Mapping[str, object]) -> tuple[int, object]:
    message = {"role": "assistant", "content": "Hello from the batch."}
    return 200, {
        "id": "chatcmpl-batch",
        "object": "chat.completion",
        "created": 1_770_000_100,
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
    }
