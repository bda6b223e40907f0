"""
A batch job as plain data: which batches belong together, where their files lie, and how far they are.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Struct

from ..errors import ConfigurationError, KimiError
from ..resources.disk import plain_file, replacing

__all__ = ["BatchHandle", "BatchNotFinishedError", "BatchPart", "BatchProgress"]


class BatchNotFinishedError(KimiError):
    """The batches did not end within the time given. They go on; ``handle`` is what to wait on later."""

    def __init__(self, message: str, *, handle: "BatchHandle") -> None:
        super().__init__(message)
        self.handle = handle


class BatchPart(Struct, frozen=True, omit_defaults=True):
    """One input file and its batch."""

    path: str | None = None
    """Where the file lies on this machine, if it does."""
    lines: int = 0
    size: int = 0
    """Bytes."""
    sha256: str = ""
    input_file_id: str | None = None
    batch_id: str | None = None


class BatchHandle(Struct, frozen=True, omit_defaults=True):
    """A job: which batches belong together, in which order, and where their files lie. Plain data, without a key."""

    job: str
    parts: tuple[BatchPart, ...] = ()
    completion_window: str = "24h"
    directory: str | None = None
    """Where input files are and output files will be. May be gone: everything is also on the account."""
    temporary: bool = False
    """Whether the directory was made for this job alone, and goes when its results are closed."""

    @property
    def batch_ids(self) -> tuple[str, ...]:
        return tuple(part.batch_id for part in self.parts if part.batch_id is not None)

    @property
    def lines(self) -> int:
        """Requests; 0 if unknown, for a handle made from ids alone."""
        return sum(part.lines for part in self.parts)

    @property
    def submitted(self) -> bool:
        """Whether every part has its batch."""
        return bool(self.parts) and all(part.batch_id is not None for part in self.parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, in one step."""
        with replacing(path, durable=True) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BatchHandle":
        """Read what `save` wrote. Raises `ConfigurationError` for anything else."""
        with plain_file(path) as file:
            data = file.read()
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as exc:
            raise ConfigurationError(f"{os.fspath(path)} is not the state of a batch job: {exc}") from None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a job is."""

    step: Literal["uploading", "waiting", "downloading", "live"]
    statuses: Mapping[str, int]
    """How many batches are in which status."""
    completed: int
    failed: int
    total: int
    elapsed: float
    """Seconds since this step began."""
    next_poll: float | None = None
    """Seconds until the next look, while waiting."""
