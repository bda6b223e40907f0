"""
Batches of the simulated Kimi. A batch is moved by the clock: each status lasts as long as `BatchPace` says.
"""

import io
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from ....bulk.lines import MAX_LINE_SIZE, read_lines
from ....bulk.request_files import CHAT_URL, LineChecker
from ..replies import json_bytes
from .files import page_of
from .state import Storage, StorageReply, StoredBatch, invalid, missing, ok, refused

__all__ = ["cancel_batch", "create_batch", "list_batches", "retrieve_batch"]


def create_batch(storage: Storage, body: bytes, now: float) -> StorageReply:
    """`POST /v1/batches`."""
    storage.calls["create_batch"] += 1
    if storage.faults.create:
        return refused(storage.faults.create.popleft())
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return invalid("Invalid request: the body is not a JSON object")
    file = storage.files.get(str(fields.get("input_file_id")))
    if file is None:
        return missing(f"file {fields.get('input_file_id')} not found")
    if file.purpose != "batch":
        return invalid(f"Invalid request: file {file.id} has purpose {file.purpose}, not batch")
    if fields.get("endpoint") != CHAT_URL:
        return invalid(f"Invalid request: endpoint must be {CHAT_URL}")
    window = _window(fields.get("completion_window"))
    if window is None:
        return invalid("Invalid request: completion_window must be between 12h and 7d")
    metadata = fields.get("metadata")
    if metadata is not None and not _good_metadata(metadata):
        return invalid("Invalid request: metadata must be at most 16 pairs of strings")
    created_at = int(storage.wall())
    batch = StoredBatch(
        id=storage.new_id("batch_"),
        endpoint=CHAT_URL,
        input_file_id=file.id,
        window=str(fields["completion_window"]),
        metadata=metadata,
        created=now,
        created_at=created_at,
        expires_at=created_at + window,
        since=now,
    )
    storage.batches[batch.id] = batch
    reply = ok(batch.public())
    if storage.faults.lose_create:
        storage.faults.lose_create -= 1
        reply.cut = 0
    return reply


def retrieve_batch(storage: Storage, batch_id: str, now: float) -> StorageReply:
    """`GET /v1/batches/{id}`."""
    storage.calls["batch"] += 1
    if storage.faults.polls:
        return refused(storage.faults.polls.popleft())
    batch = storage.batches.get(batch_id)
    if batch is None:
        return missing(f"batch {batch_id} not found")
    _advance(storage, batch, now)
    return ok(batch.public())


def list_batches(storage: Storage, query: Mapping[str, str], now: float) -> StorageReply:
    """`GET /v1/batches`: newest first."""
    storage.calls["list_batches"] += 1
    for batch in storage.batches.values():
        _advance(storage, batch, now)
    ids = list(reversed(storage.batches))
    found = page_of(ids, query, storage.page or 20)
    if isinstance(found, StorageReply):
        return found
    shown, more = found
    return ok({"object": "list", "data": [storage.batches[i].public() for i in shown], "has_more": more})


def cancel_batch(storage: Storage, batch_id: str, now: float) -> StorageReply:
    """`POST /v1/batches/{id}/cancel`: only while it runs."""
    storage.calls["cancel"] += 1
    batch = storage.batches.get(batch_id)
    if batch is None:
        return missing(f"batch {batch_id} not found")
    _advance(storage, batch, now)
    if batch.status not in ("validating", "in_progress", "finalizing"):
        return invalid(f"Invalid request: batch in status {batch.status} cannot be cancelled")
    if batch.status == "in_progress":
        share = (now - batch.since) / storage.pace.in_progress if storage.pace.in_progress else 1.0
        _process(storage, batch, int(batch.total * min(1.0, share)))
    _enter(storage, batch, "cancelling", now)
    return ok(batch.public())


def _enter(storage: Storage, batch: StoredBatch, status: str, now: float) -> None:
    batch.status = status
    batch.since = now
    batch.times[f"{status}_at"] = int(storage.wall())


def _advance(storage: Storage, batch: StoredBatch, now: float) -> None:
    """Bring a batch to where it would be at this time."""
    pace = storage.pace
    while True:
        elapsed = now - batch.since
        if batch.status == "validating" and elapsed >= pace.validating:
            _validate(storage, batch)
            ended = batch.errors is not None
            _enter(storage, batch, "failed" if ended else "in_progress", batch.since + pace.validating)
        elif batch.status == "in_progress" and elapsed >= pace.in_progress:
            limit = storage.faults.expire_after
            if limit is not None and limit < batch.total:
                _process(storage, batch, limit)
                _enter(storage, batch, "expired", batch.since + pace.in_progress)
            else:
                _process(storage, batch, batch.total)
                _enter(storage, batch, "finalizing", batch.since + pace.in_progress)
        elif batch.status == "finalizing" and elapsed >= pace.finalizing:
            _enter(storage, batch, "completed", batch.since + pace.finalizing)
        elif batch.status == "cancelling" and elapsed >= pace.cancelling:
            _enter(storage, batch, "cancelled", batch.since + pace.cancelling)
        else:
            return


def _validate(storage: Storage, batch: StoredBatch) -> None:
    if storage.faults.fail_validation is not None:
        batch.errors = [{"code": "invalid", "message": storage.faults.fail_validation, "line": None}]
        return
    file = storage.files.get(batch.input_file_id)
    if file is None or file.data is None:
        batch.errors = [{"code": "missing_file", "message": "the input file was deleted", "line": None}]
        return
    checker = LineChecker(batch=True)
    for _, line in read_lines(io.BytesIO(file.data), max_line=MAX_LINE_SIZE):
        if (good := checker.feed(line)) is not None:
            batch.lines.append(good)
    found = checker.finish()
    problems: list[dict[str, object]] = [
        {"code": p.kind, "message": p.reason, "line": p.line} for p in found.problems
    ]
    for model in found.models:
        if model not in storage.batch_models:
            problems.append(
                {"code": "model", "message": f"model {model} does not support batch", "line": None}
            )
    if not found.lines:
        problems.append({"code": "empty", "message": "the file has no requests", "line": None})
    batch.total = found.lines
    batch.errors = problems or None


def _process(storage: Storage, batch: StoredBatch, count: int) -> None:
    """Answer the first `count` requests and write the output files, in an order of their own."""
    faults = storage.faults
    good: list[bytes] = []
    bad: list[bytes] = []
    for line in batch.lines[:count]:
        request = msgspec.json.decode(line, type=dict[str, object])
        name = str(request["custom_id"])
        storage.batched[name] += 1
        if faults.lose_line is not None and faults.lose_line(name):
            batch.completed += 1
            continue
        refusal = faults.fail_line(name) if faults.fail_line is not None else None
        if refusal is not None:
            status, reply = refusal.status, msgspec.json.decode(refusal.payload())
        else:
            status, reply = storage.complete(cast("dict[str, object]", request["body"]))
        response = {"status_code": status, "request_id": "", "body": reply}
        error = None
        if status >= 400:
            whole = cast("dict[str, object]", reply if isinstance(reply, dict) else {})
            said = cast("dict[str, object]", whole.get("error") or {})
            error = {"code": str(said.get("type", status)), "message": str(said.get("message", ""))}
        record = json_bytes({"id": name, "custom_id": name, "response": response, "error": error})
        (bad if error else good).append(record)
    batch.completed += len(good)
    batch.failed += len(bad)
    dice = storage.dice(batch.id)
    for lines, kind in ((good, "output"), (bad, "error")):
        if lines:
            dice.shuffle(lines)
            data = b"\n".join(lines) + b"\n"
            stored = storage.put(f"{batch.id}_{kind}.jsonl", data, purpose="batch_output")
            stored.content_type = "application/jsonl"
            if kind == "output":
                batch.output_file_id = stored.id
            else:
                batch.error_file_id = stored.id


def _window(value: object) -> int | None:
    found = re.fullmatch(r"(\d{1,3})([hd])", value) if isinstance(value, str) else None
    if found is None:
        return None
    seconds = int(found[1]) * (3600 if found[2] == "h" else 86_400)
    return seconds if 12 * 3600 <= seconds <= 7 * 86_400 else None


def _good_metadata(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    pairs = cast("dict[object, object]", value)
    return len(pairs) <= 16 and all(
        isinstance(k, str) and isinstance(v, str) and len(k) <= 64 and len(v) <= 512 for k, v in pairs.items()
    )
