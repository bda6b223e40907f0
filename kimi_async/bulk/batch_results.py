"""
What became of a batch job: its output files joined to its requests.
"""

import atexit
import filecmp
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, Self, TypeAlias, cast

import msgspec

from ..resources.arguments import LeakedTools
from ..resources.disk import Replacement
from ..resources.threads import in_thread
from ..types.batches import Batch
from .batch_handle import BatchHandle
from .lines import LineProblem, id_of, read_ids, request_lines
from .output_files import ResultFiles, refuse_overwriting
from .output_lines import Answer
from .results import Result, UnansweredError, settler

__all__ = ["BatchResults"]


class BatchResults:
    """
    Results in the order of the requests, read from disk as they are asked for.

    Iterate it as often as you like, with ``for`` or ``async for``. Every request has exactly one `Result`: an answer, the
    server's error, or an `UnansweredError`. Close it (or use ``with``) to remove temporary files; they go
    with the program at the latest.
    """

    def __init__(
        self,
        handle: BatchHandle,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        batches: Sequence[Batch],
        temporary: str | None = None,
    ) -> None:
        self.handle = handle
        self.batches: tuple[Batch, ...] = tuple(batches)
        self._inputs = list(inputs)
        self._files = ResultFiles(outputs)
        self._temporary = temporary
        self._kept = [False]
        self._leave: Callable[[], None] | None = None
        if temporary is not None:
            # Of results that nobody closes prompts and answers would be left. At the end of the program, and not when they are
            # collected: others of the same job may read these files.
            self._leave = partial(_remove, temporary, self._kept, os.getpid())
            atexit.register(self._leave)
        self._total: int | None = None
        self.leaked_tools: LeakedTools | None = None
        """What to do with tool calls that the host left in a text; None looks for none."""
        self._offers: dict[str, Offer] | None = None

    @property
    def keep_files(self) -> bool:
        """Whether the files of a temporary directory stay where they are, when it is closed and when the program ends."""
        return self._kept[0]

    @keep_files.setter
    def keep_files(self, keep: bool) -> None:
        self._kept[0] = keep

    @property
    def problems(self) -> list[LineProblem]:
        """Lines of the output files that could not be read."""
        return self._files.problems

    @property
    def ok(self) -> int:
        """Requests answered."""
        return self._files.ok

    @property
    def failed(self) -> int:
        """Requests refused, each with the server's error."""
        return self._files.failed

    @property
    def total(self) -> int:
        if self._total is None:
            self._total = self.handle.lines or sum(1 for _ in self.custom_ids())
        return self._total

    @property
    def unanswered(self) -> int:
        """Requests in no output file: expired, cancelled, or lost."""
        return self.total - self._files.ok - self._files.failed

    def custom_ids(self) -> Iterator[str]:
        """The ids of the requests, in order."""
        for path in self._inputs:
            yield from read_ids(path)

    def get(self, custom_id: str) -> Result | None:
        """The result of one request; None if it was not answered (or never asked)."""
        answer = self._files.get(custom_id)
        return None if answer is None else self._result(answer, -1)

    def _result(self, answer: Answer, index: int) -> Result:
        if self.leaked_tools is None:
            return Result.of(answer, index, _source(answer))
        if self._offers is None:
            self._offers = {}
            for path in self._inputs:
                self._offers.update(offer for line in request_lines(path) if (offer := _offer(line)))
        tools, messages = self._offers.get(answer.custom_id, (None, None))
        return Result.of(answer, index, _source(answer), settle=settler(self.leaked_tools, tools, messages))

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Result]:
        find = self._files.get
        index = 0
        for number, path in enumerate(self._inputs):
            for custom_id in read_ids(path):
                answer = find(custom_id)
                if answer is None:
                    yield self._unanswered(custom_id, index, number)
                else:
                    yield self._result(answer, index)
                index += 1

    async def __aiter__(self) -> AsyncIterator[Result]:
        results = iter(self)

        def some() -> list[Result]:
            return [result for _, result in zip(range(256), results, strict=False)]

        while batch := await in_thread(some):
            for result in batch:
                yield result

    def failures(self) -> Iterator[Result]:
        """The results without an answer, in order: refused and unanswered ones."""
        return (result for result in self if not result.ok)

    def raise_for_failures(self) -> None:
        """Raise an `ExceptionGroup` of the errors (at most 100 of them) if any request has no answer."""
        missing = self.failed + self.unanswered
        if missing:
            errors = [
                result.error for _, result in zip(range(100), self.failures(), strict=False) if result.error
            ]
            raise ExceptionGroup(f"{missing:,} of {self.total:,} requests have no answer", errors)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
        """
        Write the output lines to one file, in the order of the requests; gives how many. Unanswered requests have none.

        It is written beside and takes its name when it is whole.

        :raises ConfigurationError: if the file holds something else already, unless ``overwrite``: results are paid for.
        """
        count = 0
        new = Replacement(path)
        try:
            for custom_id in self.custom_ids():
                line = self._files.line(custom_id)
                if line is not None:
                    new.file.write(line + b"\n")
                    count += 1
            new.file.flush()
            # The same once more does no harm.
            if not overwrite and not _is_same(new.path, new.target):
                refuse_overwriting(path)
        except BaseException:
            new.discard()
            raise
        new.commit()
        return count

    def add(self, path: str | os.PathLike[str]) -> None:
        """Join one more file of output lines, such as the journal of a live run."""
        self._files.add(path)

    def to_send_again(self) -> Iterator[bytes]:
        """The lines of requests that have no answer and might get one: not answered, or failed for a passing reason."""
        for path in self._inputs:
            for line in request_lines(path):
                answer = self._files.get(id_of(line))
                if answer is None or answer.transient:
                    yield line

    def keep(self) -> str | None:
        """Leaves the files where they are when it is closed. The temporary directory that holds them; None if there is none."""
        self.keep_files = True
        return self._temporary

    def close(self) -> None:
        """Close the files; remove those that were only made for this job. Idempotent."""
        self._files.close()
        if self._leave is not None and not self.keep_files:
            self._leave()
            atexit.unregister(self._leave)
            self._leave = self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await in_thread(self.close)

    def _unanswered(self, custom_id: str, index: int, part: int) -> Result:
        batch = self.batches[part] if part < len(self.batches) else None
        status = batch.status if batch is not None else "not submitted"
        why = f"batch {batch.id} ended as {status!r}" if batch is not None else "it was not in a batch"
        reason = _reason(batch)
        message = f"request {custom_id!r} was not answered: {why}{f' ({reason})' if reason else ''}"
        error = UnansweredError(message, custom_id=custom_id, status=status)
        return Result(custom_id, index, error=error, attempts=0, source="batch")

    def __repr__(self) -> str:
        return f"<BatchResults {self.ok:,} ok, {self.failed:,} failed, {self.unanswered:,} unanswered>"


Offer: TypeAlias = tuple[Any, list[dict[str, Any]]]
"""The tools of a request, and those that its messages declare."""


def _offer(line: bytes) -> tuple[str, Offer] | None:
    """What a request offers, under its id; None where that is nothing."""
    if b'"tools"' not in line:
        return None
    request: Any = msgspec.json.decode(line)
    body: dict[str, Any] = request["body"]
    declared = [{"tools": message["tools"]} for message in body.get("messages") or () if message.get("tools")]
    return request["custom_id"], (body.get("tools"), declared)


def _remove(temporary: str, kept: list[bool], process: int) -> None:
    if not kept[0] and os.getpid() == process:  # a child that ends has only a copy of the results
        shutil.rmtree(temporary, ignore_errors=True)


def _is_same(path: str, other: str) -> bool:
    return os.path.exists(other) and filecmp.cmp(path, other, shallow=False)


def _source(answer: Answer) -> Literal["live", "batch"]:
    return "batch" if answer.kimi_async is None else "live"


def _reason(batch: Batch | None) -> str:
    """What the server says about a batch that failed."""
    errors: Any = None if batch is None else getattr(batch, "errors")  # noqa: B009 - typed Any, whatever came
    if errors is None:
        return ""
    data: Any = errors.get("data") if hasattr(errors, "get") else errors
    if not isinstance(data, list):
        return str(errors)[:500]
    said: list[str] = []
    for each in cast("Any", data)[:3]:
        if hasattr(each, "get"):
            line = each.get("line")
            said.append((f"line {line}: " if line else "") + str(each.get("message") or each))
        else:
            said.append(str(each))
    return "; ".join(said)[:500]
