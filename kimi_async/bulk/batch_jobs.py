"""
The steps of a batch job, each of which can be repeated from another process::

    requests ──check──▶ lines ──split──▶ files ──upload──▶ batches ──wait──▶ output files ──join──▶ results

`BatchHandle` is all that is needed to go on. Requests and results are on disk, so both may be larger than memory.
"""

import asyncio
import dataclasses
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec

from .. import codec
from ..errors import (
    APIConnectionError,
    BadRequestError,
    ConfigurationError,
    InternalServerError,
    KimiError,
    NotFoundError,
)
from ..redact import redact
from ..resources.batches import BatchEndpoints
from ..resources.caller import Caller
from ..resources.files import AsyncFiles
from ..resources.threads import in_thread
from ..transport.phases import whole
from ..types.batches import Batch
from .batch_handle import BatchHandle, BatchNotFinishedError, BatchPart, BatchProgress
from .batch_requests import RequestRules, prepared
from .batch_results import BatchResults
from .request_files import CHAT_URL, Shard
from .requests import Requests
from .watching import logger, watching

__all__ = [
    "BatchHandle",
    "BatchNotFinishedError",
    "BatchPart",
    "BatchProgress",
    "BatchResults",
    "attach",
    "cancel",
    "collect",
    "delete_files",
    "discard",
    "note_batches",
    "prepare",
    "upload",
    "wait",
]

# Job and part are in each batch's metadata: after a crash, or a reply that was lost, the batch is found again
# instead of being paid for twice.
_JOB: Final = "kimi_async_job"
_PART: Final = "kimi_async_part"


async def prepare(
    requests: Requests,
    rules: RequestRules,
    *,
    completion_window: str = "24h",
    directory: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
) -> tuple[BatchHandle, bool]:
    """
    The job before anything is sent: its requests checked and in files; or, where ``state`` holds it already, as far as it is.
    And whether it is a new one.

    :raises InvalidLinesError: with every bad line by its number.
    :raises ConfigurationError: if ``state`` belongs to other requests.
    """
    previous = None
    if state is not None and await in_thread(os.path.exists, state):
        previous = await in_thread(BatchHandle.load, state)
    job = previous.job if previous is not None else secrets.token_hex(8)
    place, temporary, made = _place(directory, previous)
    name = f"requests-{job}"
    # Written beside first: only when they are known to be the same may they take the place of the job's own files.
    written = name if previous is None else f"{name}-again"
    try:
        shards = await prepared(requests, place, written, rules)
        if previous is not None:
            same = [shard.sha256 for shard in shards] == [part.sha256 for part in previous.parts]
            shards = await in_thread(_settled, shards, place, written, name if same else None)
            if not same:
                raise ConfigurationError(
                    f"{os.fspath(state or '')} belongs to a job with other requests; give the new job another state file"
                )
        parts = [BatchPart(s.path, s.lines, s.size, s.sha256) for s in shards]
        if previous is not None:
            parts = [
                msgspec.structs.replace(new, input_file_id=old.input_file_id, batch_id=old.batch_id)
                for new, old in zip(parts, previous.parts, strict=True)
            ]
        handle = BatchHandle(job, tuple(parts), completion_window, place, temporary)
        if state is not None:
            await in_thread(handle.save, state)
        return handle, previous is None
    except BaseException:
        if made:
            _unmake(place, temporary)
        raise


def _settled(shards: list[Shard], place: str, written: str, name: str | None) -> list[Shard]:
    """Gives files that were ``written`` beside the job's their ``name``; removes them where there is None. Yours stay."""
    settled: list[Shard] = []
    for shard in shards:
        folder, file = os.path.split(shard.path)
        if folder == os.path.abspath(place) and file.startswith(f"{written}-"):
            if name is None:
                os.unlink(shard.path)
                continue
            path = os.path.join(folder, name + file.removeprefix(written))
            os.replace(shard.path, path)
            shard = dataclasses.replace(shard, path=path)
        settled.append(shard)
    return settled


def _unmake(place: str, temporary: bool) -> None:
    """Takes back a directory that was made here. Of one of yours only what holds nothing: others may use it by now."""
    if temporary:
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            os.rmdir(place)


def _place(directory: str | os.PathLike[str] | None, previous: BatchHandle | None) -> tuple[str, bool, bool]:
    """
    The directory of a job, whether it is ours to remove, and whether it was made now.

    Ours are private and have names that nobody can foretell. They are made here, in this turn of the loop: a thread's
    answer would be lost if we were cancelled meanwhile, and the directory with it.
    """
    if directory is not None:
        made = not os.path.isdir(directory)
        os.makedirs(directory, exist_ok=True)
        return os.fspath(directory), False, made
    if previous is not None and previous.directory is not None:
        if not previous.temporary:
            os.makedirs(previous.directory, exist_ok=True)
            return previous.directory, False, False
        if _is_private(previous.directory):
            return previous.directory, True, False
    return tempfile.mkdtemp(prefix="kimi-batch-"), True, True


def _is_there(path: str | None) -> bool:
    return path is not None and os.path.isdir(path)


def _is_private(path: str) -> bool:
    """Whether it is a directory that nobody else could have made, or could write to."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if not os.path.isdir(path) or os.path.islink(path):
        return False
    return os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def discard(handle: BatchHandle) -> None:
    """Removes the job's directory, if it was made for it."""
    if handle.temporary and handle.directory is not None:
        shutil.rmtree(handle.directory, ignore_errors=True)


async def upload(
    client: Caller,
    handle: BatchHandle,
    *,
    metadata: Mapping[str, str] | None = None,
    state: str | os.PathLike[str] | None = None,
    fresh: bool = True,
    on_progress: Callable[[BatchProgress], object] | None = None,
    reached: Callable[[BatchHandle], object] | None = None,
) -> BatchHandle:
    """
    Uploads the files and creates the batches that are missing; ``state`` is brought up to date after each step.

    :param fresh: whether nothing can have been sent before: else the account is asked first.
    :param reached: told after each step how far the job is.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    on_progress = watching("on_progress", on_progress)

    async def keep(changed: BatchHandle) -> None:
        if reached is not None:
            reached(changed)
        if state is not None:
            await in_thread(changed.save, state)
        if on_progress is not None:
            statuses = {
                "created": len(changed.batch_ids),
                "waiting": len(changed.parts) - len(changed.batch_ids),
            }
            on_progress(BatchProgress("uploading", statuses, 0, 0, changed.lines, loop.time() - started))

    try:
        await keep(handle)
        for number in range(len(handle.parts)):
            if handle.parts[number].input_file_id is None and handle.parts[number].batch_id is None:
                file_id = await _uploaded(client, handle, number, fresh)
                handle = _with_part(handle, number, input_file_id=file_id)
                await keep(handle)
            if handle.parts[number].batch_id is None:
                batch = await _created(client, handle, number, metadata or {}, fresh)
                handle = _with_part(handle, number, batch_id=batch.id)
                await keep(handle)
    except BaseException as exc:
        if state is None:
            note_batches(exc, handle)
        raise
    return handle


def note_batches(error: BaseException, handle: BatchHandle) -> None:
    """Says with an error which batches were made: they go on, and are paid for."""
    if handle.batch_ids:
        error.add_note(f"batches were made all the same: client.batches.attach({list(handle.batch_ids)!r})")


def _with_part(handle: BatchHandle, number: int, **changes: object) -> BatchHandle:
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
    """A body that no layer may send a second time, not even on a fresh connection after a stale one."""

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
    """A handle for batches that exist, by their ids, in the order of their requests: for results from another machine."""
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
    """Cancel every batch of a job that has not ended; gives them all."""
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
    on_progress = watching("on_progress", on_progress)
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
) -> BatchResults:
    """
    Download what the batches gave and join it to the requests.

    Files that are on this machine already, whole, are not fetched again.
    """
    ended = (
        batches
        if batches is not None
        else [await BatchEndpoints(client).retrieve(id_) for id_ in handle.batch_ids]
    )
    place, temporary, made = _place(directory, handle if _is_there(handle.directory) else None)
    try:
        inputs, outputs = await _local(client, handle, ended, place)
        return await in_thread(
            lambda: BatchResults(
                handle, inputs=inputs, outputs=outputs, batches=ended, temporary=place if temporary else None
            )
        )
    except BaseException:
        if made:
            _unmake(place, temporary)
        raise


async def _local(
    client: Caller, handle: BatchHandle, batches: Sequence[Batch], place: str
) -> tuple[list[str], list[str]]:
    """Input files and output files: all of them on this machine afterwards."""
    inputs: list[str] = []
    outputs: list[str] = []
    for number, part in enumerate(handle.parts):
        if part.path is not None and await in_thread(_is_whole, part.path, part.size):
            inputs.append(part.path)
        elif part.input_file_id is not None:
            path = os.path.join(place, f"input-{part.input_file_id}.jsonl")
            await _fetched(client, part.input_file_id, path)
            inputs.append(path)
        if number >= len(batches):
            continue
        for file_id in _output_ids(batches[number]):
            path = os.path.join(place, f"output-{file_id}.jsonl")
            await _fetched(client, file_id, path)
            outputs.append(path)
    return inputs, outputs


def _output_ids(batch: Batch) -> list[str]:
    return [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]


async def delete_files(client: Caller, results: BatchResults) -> None:
    """
    Removes the files of a job from the account: the last step, when nothing else can fail that needs them.

    A file that cannot be removed is told in the log and stays: that is no reason to lose the results. From here on they may
    be nowhere else, so a cancelled removal leaves a temporary directory and says where it is.
    """
    requests = [part.input_file_id for part in results.handle.parts if part.input_file_id is not None]
    answers = [file_id for batch in results.batches for file_id in _output_ids(batch)]
    file_id = ""
    try:
        # Requests first: they can be made again.
        for file_id in (*requests, *answers):
            try:
                await AsyncFiles(client).delete(file_id)
            except NotFoundError:
                pass
            except KimiError as exc:
                logger.warning("the file %s of a batch stays on the account: %s", file_id, redact(str(exc)))
    except BaseException as exc:
        if file_id in answers and (kept := results.keep()) is not None:
            exc.add_note(f"the results are in {kept}")
        results.close()
        raise


def _is_whole(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


async def _fetched(client: Caller, file_id: str, path: str) -> None:
    # Downloads appear under their name only when whole, and a batch's files never change.
    if not await in_thread(os.path.exists, path):
        await AsyncFiles(client).download(file_id, path)
