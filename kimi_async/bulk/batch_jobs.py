"""
Whole jobs for the Batch API: requests in, results in the same order out.

    results = await client.batches.run(requests, model="kimi-k2.6", state="job.json")
    for result in results:
        print(result.custom_id, result.text or result.error)

A job goes through steps, each of which can be repeated from another process::

    requests ──check──▶ lines ──split──▶ files ──upload──▶ batches ──wait──▶ output files ──join──▶ results

`BatchHandle` is all that is needed to go on: plain data that prints, pickles,
and saves itself as JSON. Requests and results are on disk, so both may be
larger than memory.

A batch costs 60 % of live calls and does not count towards rate limits
(platform.kimi.ai/docs/guide/use-batch-api). What it leaves unanswered can be
sent live: ``via="auto"``.
"""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, cast

import msgspec
from msgspec import Struct

from .. import codec
from ..errors import (
    APIConnectionError,
    BadRequestError,
    ConfigurationError,
    InternalServerError,
    KimiError,
    NotFoundError,
)
from ..resources.batches import BatchEndpoints
from ..resources.caller import Caller
from ..resources.files import AsyncFiles
from ..transport.phases import whole
from ..types.batches import Batch
from .journal import Answer, ResultFiles, read_ids
from .map import Map, Requests, options_of, request_of
from .request_files import (
    CHAT_URL,
    MAX_FILE_SIZE,
    MAX_LINE_SIZE,
    InvalidLinesError,
    LineChecker,
    LineProblem,
    Shard,
    Shards,
    check_lines,
    read_lines,
)
from .results import Result, UnansweredError

__all__ = [
    "BatchHandle",
    "BatchNotFinishedError",
    "BatchPart",
    "BatchProgress",
    "BatchResults",
    "Via",
    "attach",
    "cancel",
    "collect",
    "run",
    "submit",
    "wait",
]

Via: TypeAlias = Literal["batch", "auto", "live"]

# Job and part are in each batch's metadata: after a crash, or a reply that was lost, the batch is found again
# instead of being paid for twice.
_JOB: Final = "kimi_async_job"
_PART: Final = "kimi_async_part"


class BatchNotFinishedError(KimiError):
    """
    The batches did not end within the time given. They go on; ``handle`` is what to wait on later.
    """

    def __init__(self, message: str, *, handle: "BatchHandle") -> None:
        super().__init__(message)
        self.handle = handle


class BatchPart(Struct, frozen=True, omit_defaults=True):
    """
    One input file and its batch.
    """

    path: str | None = None
    """Where the file lies on this machine, if it does."""
    lines: int = 0
    size: int = 0
    """Bytes."""
    sha256: str = ""
    input_file_id: str | None = None
    batch_id: str | None = None


class BatchHandle(Struct, frozen=True, omit_defaults=True):
    """
    A job: which batches belong together, in which order, and where their files lie. Plain data, without a key.
    """

    job: str
    parts: tuple[BatchPart, ...] = ()
    completion_window: str = "24h"
    directory: str | None = None
    """Where input files are and output files will be. May be gone: everything is also on the account."""

    @property
    def batch_ids(self) -> tuple[str, ...]:
        return tuple(part.batch_id for part in self.parts if part.batch_id is not None)

    @property
    def lines(self) -> int:
        """
        Requests; 0 if unknown, for a handle made from ids alone.
        """
        return sum(part.lines for part in self.parts)

    @property
    def submitted(self) -> bool:
        """
        Whether every part has its batch.
        """
        return bool(self.parts) and all(part.batch_id is not None for part in self.parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write it as JSON, in one step.
        """
        target = os.fspath(path)
        temporary = f"{target}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BatchHandle":
        """
        Read what `save` wrote. Raises `ConfigurationError` for anything else.
        """
        with open(path, "rb") as file:
            data = file.read()
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as exc:
            raise ConfigurationError(f"{os.fspath(path)} is not the state of a batch job: {exc}") from None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """
    How far a job is.
    """

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


class BatchResults:
    """
    Results in the order of the requests, read from disk as they are asked for.

    Iterate it as often as you like, with ``for`` or ``async for``. Every request has exactly one `Result`: an answer, the
    server's error, or an `UnansweredError`. Close it (or use ``with``) to remove temporary files.
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
        self._statuses = [batch.status for batch in batches] or ["not submitted"]
        self._total: int | None = None

    @property
    def problems(self) -> list[LineProblem]:
        """
        Lines of the output files that could not be read.
        """
        return self._files.problems

    @property
    def ok(self) -> int:
        """
        Requests answered.
        """
        return self._files.ok

    @property
    def failed(self) -> int:
        """
        Requests refused, each with the server's error.
        """
        return self._files.failed

    @property
    def total(self) -> int:
        if self._total is None:
            self._total = self.handle.lines or sum(1 for _ in self.custom_ids())
        return self._total

    @property
    def unanswered(self) -> int:
        """
        Requests in no output file: expired, cancelled, or lost.
        """
        return self.total - self._files.ok - self._files.failed

    def custom_ids(self) -> Iterator[str]:
        """
        The ids of the requests, in order.
        """
        for path in self._inputs:
            yield from read_ids(path)

    def get(self, custom_id: str) -> Result | None:
        """
        The result of one request; None if it was not answered (or never asked).
        """
        answer = self._files.get(custom_id)
        return None if answer is None else Result.of(answer, -1, _source(answer))

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
                    yield Result.of(answer, index, _source(answer))
                index += 1

    async def __aiter__(self) -> AsyncIterator[Result]:
        from anyio import to_thread

        results = iter(self)

        def some() -> list[Result]:
            return [result for _, result in zip(range(256), results, strict=False)]

        while batch := await to_thread.run_sync(some):
            for result in batch:
                yield result

    def failures(self) -> Iterator[Result]:
        """
        The results without an answer, in order: refused and unanswered ones.
        """
        return (result for result in self if not result.ok)

    def raise_for_failures(self) -> None:
        """
        Raise an `ExceptionGroup` of the errors (at most 100 of them) if any request has no answer.
        """
        missing = self.failed + self.unanswered
        if missing:
            errors = [
                result.error for _, result in zip(range(100), self.failures(), strict=False) if result.error
            ]
            raise ExceptionGroup(f"{missing:,} of {self.total:,} requests have no answer", errors)

    def write(self, path: str | os.PathLike[str]) -> int:
        """
        Write the output lines to one file, in the order of the requests; gives how many. Unanswered requests have none.
        """
        count = 0
        temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
        try:
            with open(temporary, "wb", buffering=1024 * 1024) as file:
                for custom_id in self.custom_ids():
                    line = self._files.line(custom_id)
                    if line is not None:
                        file.write(line + b"\n")
                        count += 1
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return count

    def close(self) -> None:
        """
        Close the files; remove those that were only made for this job. Idempotent.
        """
        import shutil

        self._files.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        from anyio import to_thread

        await to_thread.run_sync(self.close)

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


def _source(answer: Answer) -> Literal["live", "batch"]:
    return "batch" if answer.kimi_async is None else "live"


def _reason(batch: Batch | None) -> str:
    """
    What the server says about a batch that failed.
    """
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


# --- requests to files ------------------------------------------------------------------------------------


async def _prepared(
    requests: Requests,
    *,
    directory: str,
    name: str,
    model: str | None,
    defaults: Mapping[str, Any],
    repair: bool,
    max_bytes: int,
    max_lines: int | None,
    max_line_size: int,
) -> list[Shard]:
    """
    The files to upload. Raises `InvalidLinesError` if any request is wrong, before anything is sent.
    """
    from anyio import to_thread

    if isinstance(requests, str | os.PathLike):
        path = os.fspath(cast("str", requests))
        found = await to_thread.run_sync(
            lambda: check_lines(
                path, batch=True, model=model or defaults.get("model"), repair=repair, max_line=max_line_size
            )
        )
        found.raise_if_bad()
        if not found.lines:
            raise ConfigurationError(f"{path} holds no requests")
        whole = found.size <= max_bytes and (max_lines is None or found.lines <= max_lines)
        if whole and not found.repaired and not model and not defaults:
            return [await to_thread.run_sync(_as_it_is, path, found.lines)]
        return await to_thread.run_sync(
            _rewritten, path, directory, name, model, defaults, repair, max_bytes, max_lines, max_line_size
        )
    return await _written(requests, directory, name, model, defaults, max_bytes, max_lines, max_line_size)


def _as_it_is(path: str, lines: int) -> Shard:
    import hashlib

    with open(path, "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    return Shard(os.path.abspath(path), lines, size, digest)


def _rewritten(
    path: str,
    directory: str,
    name: str,
    model: str | None,
    defaults: Mapping[str, Any],
    repair: bool,
    max_bytes: int,
    max_lines: int | None,
    max_line_size: int,
) -> list[Shard]:
    checker = LineChecker(
        batch=True, model=model or defaults.get("model"), repair=repair, max_line=max_line_size
    )
    shards = Shards(directory, name, max_bytes=max_bytes, max_lines=max_lines)
    with open(path, "rb", buffering=0) as file:
        for _, line in read_lines(file, max_line=max_line_size):
            good = checker.feed(line)
            if good is not None:
                shards.add(_with_defaults(good, model, defaults) if model or defaults else good)
    done = shards.close()
    checker.finish().raise_if_bad()
    return done


def _with_defaults(line: bytes, model: str | None, defaults: Mapping[str, Any]) -> bytes:
    fields = msgspec.json.decode(line)
    body: dict[str, Any] = {**defaults, **fields["body"]}
    if model and not body.get("model"):
        body["model"] = model
    return codec.encode({**fields, "body": body})


async def _written(
    requests: Any,
    directory: str,
    name: str,
    model: str | None,
    defaults: Mapping[str, Any],
    max_bytes: int,
    max_lines: int | None,
    max_line_size: int,
) -> list[Shard]:
    """
    Write an iterable of requests to files, a block at a time.
    """
    from anyio import to_thread

    checker = LineChecker(batch=True, max_line=max_line_size)
    early: list[LineProblem] = []
    shards = Shards(directory, name, max_bytes=max_bytes, max_lines=max_lines)
    waiting: list[bytes | None] = []
    size = index = 0

    def flush() -> None:
        for line in waiting:
            if line is None:
                checker.skip()
                continue
            good = checker.feed(line)
            # Once something is wrong nothing will be sent, so nothing need be written; but all is checked.
            if good is not None and not early:
                shards.add(good)

    async for item in _each(requests):
        try:
            given, body = request_of(item, index)
            fields: dict[str, Any] = dict(
                msgspec.json.decode(body) if isinstance(body, msgspec.Raw) else body
            )
            fields = {**defaults, **fields}
            if model and not fields.get("model"):
                fields["model"] = model
            line: bytes | None = codec.encode(
                {
                    "custom_id": given or f"request-{index + 1}",
                    "method": "POST",
                    "url": CHAT_URL,
                    "body": fields,
                }
            )
        except (KimiError, TypeError) as exc:
            early.append(LineProblem(index + 1, "body", str(exc)))
            line = None
        index += 1
        waiting.append(line)
        size += len(line or b"")
        if size > 1024 * 1024:
            await to_thread.run_sync(flush)
            waiting.clear()
            size = 0
    await to_thread.run_sync(flush)
    done = await to_thread.run_sync(shards.close)
    found = checker.finish()
    if early or found.count:
        problems = sorted([*early, *found.problems], key=lambda problem: problem.line)
        raise InvalidLinesError(problems[:100], count=len(early) + found.count)
    if not done:
        raise ConfigurationError("there are no requests")
    return done


async def _each(requests: Any) -> AsyncIterator[Any]:
    if hasattr(requests, "__aiter__"):
        async for item in requests:
            yield item
    elif hasattr(requests, "__iter__"):
        for item in requests:
            yield item
    else:
        raise TypeError(
            f"requests must be a path, an iterable or an async iterable, not {type(requests).__name__}"
        )


# --- the steps --------------------------------------------------------------------------------------------


async def submit(
    client: Caller,
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
    Check, split, upload, and create the batches; gives the handle as soon as all are created.

    Everything is checked before anything is sent: unique ``custom_id``, one model, no stream, sizes.

    :param completion_window: ``12h`` to ``7d``.
    :param max_line_size: bytes of one request; a longer one is reported as bad. Raise it for images inlined as base64.
    :param directory: for the files; a new temporary one by default.
    :param state: a file that is brought up to date after every step. If it exists, the job in it is taken up again:
        what was uploaded or created is not done twice, even if the process died before it heard of it. The requests
        must be the same (compared by SHA-256).

    :raises InvalidLinesError: with every bad line by its number.
    """
    from anyio import to_thread

    previous = None
    if state is not None and await to_thread.run_sync(os.path.exists, state):
        previous = await to_thread.run_sync(BatchHandle.load, state)
    job = previous.job if previous is not None else secrets.token_hex(8)
    if directory is None:
        directory = previous.directory if previous is not None else None
    place = os.fspath(directory) if directory is not None else await to_thread.run_sync(_temporary, job)
    await to_thread.run_sync(lambda: os.makedirs(place, exist_ok=True))
    shards = await _prepared(
        requests,
        directory=place,
        name=f"requests-{job}",
        model=model,
        defaults=defaults or {},
        repair=repair,
        max_bytes=max_bytes,
        max_lines=max_lines,
        max_line_size=max_line_size,
    )
    parts = _parts_of(shards)
    if previous is not None:
        if [part.sha256 for part in parts] != [part.sha256 for part in previous.parts]:
            raise ConfigurationError(
                f"{os.fspath(cast('str', state))} belongs to a job with other requests; give the new job another state file"
            )
        parts = [
            msgspec.structs.replace(new, input_file_id=old.input_file_id, batch_id=old.batch_id)
            for new, old in zip(parts, previous.parts, strict=True)
        ]
    handle = BatchHandle(job, tuple(parts), completion_window, place)
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def keep(changed: BatchHandle) -> None:
        if state is not None:
            await to_thread.run_sync(changed.save, state)
        if on_progress is not None:
            created = len(changed.batch_ids)
            on_progress(
                BatchProgress(
                    "uploading",
                    {"created": created, "waiting": len(changed.parts) - created},
                    0,
                    0,
                    changed.lines,
                    loop.time() - started,
                )
            )

    await keep(handle)
    fresh = previous is None
    for number in range(len(handle.parts)):
        if handle.parts[number].input_file_id is None and handle.parts[number].batch_id is None:
            file_id = await _uploaded(client, handle, number, fresh)
            handle = _with_part(handle, number, input_file_id=file_id)
            await keep(handle)
        if handle.parts[number].batch_id is None:
            batch = await _created(client, handle, number, metadata or {}, fresh)
            handle = _with_part(handle, number, batch_id=batch.id)
            await keep(handle)
    return handle


def _parts_of(shards: Sequence[Shard]) -> list[BatchPart]:
    return [BatchPart(os.path.abspath(s.path), s.lines, s.size, s.sha256) for s in shards]


def _temporary(job: str) -> str:
    path = os.path.join(tempfile.gettempdir(), f"kimi-batch-{job}")
    os.makedirs(path, exist_ok=True)
    return path


def _with_part(handle: BatchHandle, number: int, **changes: Any) -> BatchHandle:
    parts = list(handle.parts)
    parts[number] = msgspec.structs.replace(parts[number], **changes)
    return msgspec.structs.replace(handle, parts=tuple(parts))


async def _uploaded(client: Caller, handle: BatchHandle, number: int, fresh: bool) -> str:
    part = handle.parts[number]
    assert part.path is not None
    name = f"{handle.job}-{number + 1:05}.jsonl"
    if not fresh:
        # The job's id is in the name, so name and size are proof enough.
        async for file in AsyncFiles(client).list():
            if file.filename == name and file.bytes == part.size:
                return file.id
    uploaded = await AsyncFiles(client).create(file=(name, part.path, "application/jsonl"), purpose="batch")
    return uploaded.id


async def _created(
    client: Caller, handle: BatchHandle, number: int, metadata: Mapping[str, str], fresh: bool
) -> Batch:
    """
    Create the batch of a part once, whatever happens to the replies.

    Creating is not idempotent, and a second batch is paid for like the first.
    So the client may not simply repeat it: after a failure that leaves open
    whether it was done, the account is asked first.
    """
    part = handle.parts[number]
    assert part.input_file_id is not None
    marks = {_JOB: handle.job, _PART: f"{number + 1}/{len(handle.parts)}"}
    body = codec.encode(
        {
            "input_file_id": part.input_file_id,
            "endpoint": CHAT_URL,
            "completion_window": handle.completion_window,
            "metadata": {**metadata, **marks},
        }
    )
    attempts = max(1, client.max_retries + 1)
    unsure = not fresh
    for attempt in range(attempts):
        if unsure and (found := await _find(client, marks)) is not None:
            return found
        try:
            response = await client.call("POST", "batches", _Once(body), accept=whole)
            return codec.decode_reply(response.content, Batch, response)
        except KimiError as exc:
            if not exc.retryable or attempt + 1 == attempts:
                if isinstance(exc, APIConnectionError | InternalServerError):
                    found = await _find(client, marks)
                    if found is not None:
                        return found
                raise
            unsure = True
            await asyncio.sleep(min(8.0, 0.5 * 2**attempt))
    raise AssertionError("unreachable")


class _Once:
    """
    A body that no layer may send a second time, not even on a fresh connection after a stale one.
    """

    replayable = False
    content_type = "application/json"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length: int | None = len(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data

    async def read(self) -> bytes:
        return self._data


async def _find(client: Caller, marks: Mapping[str, str]) -> Batch | None:
    seen = 0
    async for batch in BatchEndpoints(client).list(limit=100):
        held = batch.metadata or {}
        if all(held.get(key) == value for key, value in marks.items()):
            return batch
        seen += 1
        if seen >= 500:
            # Newest first; a job's batches were made moments or a crash ago.
            break
    return None


async def attach(client: Caller, batch_ids: str | Sequence[str]) -> BatchHandle:
    """
    A handle for batches that exist, by their ids, in the order of their requests: for results from another machine.
    """
    ids = [batch_ids] if isinstance(batch_ids, str) else list(batch_ids)
    parts: list[BatchPart] = []
    job = ""
    window = "24h"
    for id_ in ids:
        batch = await BatchEndpoints(client).retrieve(id_)
        job = job or str((batch.metadata or {}).get(_JOB) or "")
        window = batch.completion_window or window
        counts = batch.request_counts
        parts.append(
            BatchPart(
                lines=counts.total if counts is not None else 0,
                input_file_id=batch.input_file_id,
                batch_id=id_,
            )
        )
    return BatchHandle(job or secrets.token_hex(8), tuple(parts), window)


async def cancel(client: Caller, handle: BatchHandle) -> list[Batch]:
    """
    Cancel every batch of a job that has not ended; gives them all.
    """
    batches: list[Batch] = []
    for id_ in handle.batch_ids:
        batch = await BatchEndpoints(client).retrieve(id_)
        if batch.status in ("validating", "in_progress", "finalizing"):
            try:
                batch = await BatchEndpoints(client).cancel(id_)
            except BadRequestError:
                batch = await BatchEndpoints(client).retrieve(id_)  # it ended in between
        batches.append(batch)
    return batches


async def wait(
    client: Caller,
    handle: BatchHandle,
    *,
    poll_interval: float = 5.0,
    max_poll_interval: float = 60.0,
    timeout: float | None = None,
    on_progress: Callable[[BatchProgress], object] | None = None,
) -> list[Batch]:
    """
    Wait until every batch of the job has ended: completed, failed, expired or cancelled.

    Looks every ``poll_interval`` seconds at first, and up to ``max_poll_interval`` as nothing changes. A look that
    fails for a passing reason is repeated later: a batch takes hours, an outage minutes.

    :raises BatchNotFinishedError: after ``timeout`` seconds.
    """
    if not handle.submitted:
        raise ConfigurationError("this job was not submitted whole: submit it again with the same state file")
    loop = asyncio.get_running_loop()
    started = loop.time()
    known: dict[str, Batch] = {}
    interval = poll_interval
    before = None
    while True:
        for id_ in handle.batch_ids:
            held = known.get(id_)
            if held is not None and held.ended:
                continue
            try:
                known[id_] = await BatchEndpoints(client).retrieve(id_)
            except KimiError as exc:
                if not exc.retryable:
                    raise
        now = loop.time()
        ended = len(known) == len(handle.batch_ids) and all(batch.ended for batch in known.values())
        shape = [(b.status, b.request_counts and b.request_counts.completed) for b in known.values()]
        # Something moved: look again soon. Nothing did: twice as long as before.
        interval = poll_interval if shape != before else min(max_poll_interval, interval * 1.5)
        before = shape
        pause = interval
        if timeout is not None:
            pause = min(pause, started + timeout - now)
        if on_progress is not None:
            on_progress(_progress("waiting", known.values(), handle, now - started, None if ended else pause))
        if ended:
            return [known[id_] for id_ in handle.batch_ids]
        if timeout is not None and now - started >= timeout:
            raise BatchNotFinishedError(
                f"{len(handle.batch_ids)} batches did not all end within {timeout:g} s: "
                f"{', '.join(sorted({batch.status for batch in known.values()})) or 'no reply'}",
                handle=handle,
            )
        await asyncio.sleep(max(0.0, pause))


def _progress(
    step: Literal["waiting", "downloading"],
    batches: Any,
    handle: BatchHandle,
    elapsed: float,
    pause: float | None,
) -> BatchProgress:
    statuses: dict[str, int] = {}
    completed = failed = total = 0
    for batch in batches:
        statuses[batch.status] = statuses.get(batch.status, 0) + 1
        counts = batch.request_counts
        if counts is not None:
            completed += counts.completed
            failed += counts.failed
            total += counts.total
    return BatchProgress(step, statuses, completed, failed, handle.lines or total, elapsed, pause)


async def collect(
    client: Caller,
    handle: BatchHandle,
    *,
    directory: str | os.PathLike[str] | None = None,
    batches: Sequence[Batch] | None = None,
    more: Sequence[str] = (),
    delete: bool = False,
) -> BatchResults:
    """
    Download what the batches gave and join it to the requests.

    Files that are on this machine already, whole, are not fetched again. ``more`` names further output files, such as
    the journal of a live run. ``delete`` removes the job's files from the account once they are here (an account
    holds at most 1,000).
    """
    from anyio import to_thread

    temporary = None
    if directory is None:
        directory = handle.directory
        if directory is None or not await to_thread.run_sync(os.path.isdir, directory):
            directory = temporary = await to_thread.run_sync(tempfile.mkdtemp, None, "kimi-batch-")
        elif os.path.dirname(directory) == tempfile.gettempdir():
            temporary = directory
    place = os.fspath(directory)
    await to_thread.run_sync(lambda: os.makedirs(place, exist_ok=True))
    ended = (
        list(batches)
        if batches is not None
        else [await BatchEndpoints(client).retrieve(i) for i in handle.batch_ids]
    )
    inputs: list[str] = []
    outputs: list[str] = []
    on_account: list[str] = []
    for number, part in enumerate(handle.parts):
        if part.path is not None and await to_thread.run_sync(_is_whole, part.path, part.size):
            inputs.append(part.path)
        elif part.input_file_id is not None:
            path = os.path.join(place, f"input-{part.input_file_id}.jsonl")
            await _fetched(client, part.input_file_id, path)
            inputs.append(path)
        if number >= len(ended):
            continue
        batch = ended[number]
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                path = os.path.join(place, f"output-{file_id}.jsonl")
                await _fetched(client, file_id, path)
                outputs.append(path)
                on_account.append(file_id)
        if part.input_file_id is not None:
            on_account.append(part.input_file_id)
    existing = [path for path in more if await to_thread.run_sync(os.path.exists, path)]
    results = await to_thread.run_sync(
        lambda: BatchResults(
            handle, inputs=inputs, outputs=[*outputs, *existing], batches=ended, temporary=temporary
        )
    )
    if delete:
        for file_id in on_account:
            try:
                await AsyncFiles(client).delete(file_id)
            except NotFoundError:
                pass
    return results


def _is_whole(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


async def _fetched(client: Caller, file_id: str, path: str) -> None:
    from anyio import to_thread

    # Downloads appear under their name only when whole, and a batch's files never change.
    if not await to_thread.run_sync(os.path.exists, path):
        await AsyncFiles(client).download(file_id, path)


async def run(
    client: Caller,
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
    The whole job: check, split, upload, create, wait, download, join.

    :param via: ``"batch"``; ``"auto"`` sends live, afterwards, what the batch left unanswered or failed for a passing
        reason (also everything, where the batch was refused: not every model has batches); ``"live"`` sends
        everything live at once. Live requests go through `pipeline.Map`, with a journal in ``directory``; ``live``
        holds more options for it.
    :param state: see `submit`. With it, a run that was killed goes on where it was, also in the middle of the live rest.

    The other parameters are those of `submit`, `wait` and `collect`.
    """
    from anyio import to_thread

    if via not in ("batch", "auto", "live"):
        raise ConfigurationError(f"via must be 'batch', 'auto' or 'live', not {via!r}")
    batches: list[Batch] = []
    handle: BatchHandle | None = None
    if via != "live":
        try:
            handle = await submit(
                client,
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
            batches = await wait(
                client,
                handle,
                poll_interval=poll_interval,
                max_poll_interval=max_poll_interval,
                timeout=timeout,
                on_progress=on_progress,
            )
        except (BadRequestError, NotFoundError):
            # The host has no batches, or none for this model.
            if via == "batch" or handle is not None:
                raise
    if handle is None:
        place = (
            os.fspath(directory)
            if directory is not None
            else await to_thread.run_sync(_temporary, _job(state))
        )
        shards = await _prepared(
            requests,
            directory=place,
            name="requests-live",
            model=model,
            defaults=defaults or {},
            repair=repair,
            max_bytes=max_bytes,
            max_lines=max_lines,
            max_line_size=max_line_size,
        )
        handle = BatchHandle(_job(state), tuple(_parts_of(shards)), completion_window, place)
    results = await collect(client, handle, directory=directory, batches=batches, delete=delete)
    if via == "batch" or (results.unanswered == 0 and not _transient(results)):
        return results
    journal = os.path.join(handle.directory or tempfile.gettempdir(), f"live-{handle.job}.jsonl")
    loop = asyncio.get_running_loop()
    started = loop.time()
    left = results.unanswered + results.failed

    async def rest() -> AsyncIterator[bytes]:
        for path in results._inputs:  # pyright: ignore[reportPrivateUsage]
            for line in _lines_of(path):
                answer = results._files.get(_id_of(line))  # pyright: ignore[reportPrivateUsage]
                if answer is None or answer.transient:
                    yield line

    # Answers in the journal of an earlier run of the same job are not asked for again.
    async with Map(
        client, rest(), options_of({"journal": journal, "total": left, **(live or {})})
    ) as answers:
        async for _ in answers:
            if on_progress is not None:
                shown = answers.progress
                on_progress(
                    BatchProgress("live", {"live": 1}, shown.ok, shown.failed, left, loop.time() - started)
                )
    results._temporary, temporary = None, results._temporary  # pyright: ignore[reportPrivateUsage]
    results.close()
    joined = await collect(client, handle, directory=directory, batches=batches, more=[journal])
    joined._temporary = temporary  # pyright: ignore[reportPrivateUsage]
    return joined


def _job(state: Any) -> str:
    """
    The name of a job that has no batch: the same for the same state file, so that its journal is found again.
    """
    import hashlib

    if state is None:
        return secrets.token_hex(8)
    return hashlib.blake2b(os.path.abspath(os.fspath(cast("str", state))).encode(), digest_size=8).hexdigest()


def _transient(results: BatchResults) -> bool:
    if not results.failed:
        return False
    for custom_id in results.custom_ids():
        answer = results._files.get(custom_id)  # pyright: ignore[reportPrivateUsage]
        if answer is not None and answer.transient:
            return True
    return False


class _Name(Struct, gc=False):
    custom_id: str


_decode_name = msgspec.json.Decoder(_Name).decode


def _id_of(line: bytes) -> str:
    return _decode_name(line).custom_id


def _lines_of(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        for _, line in read_lines(file, max_line=MAX_FILE_SIZE):
            if line and not line.isspace():
                yield line
