"""
Files and batches of the simulated Kimi.

`Storage` is the behaviour as a plain object: it takes the time as an argument
and does no I/O, so it stands behind real sockets (`add_routes`) and behind a
`MemoryTransport` (`Storage.answer`) alike. Shapes, texts, limits and statuses
follow platform.kimi.ai/docs/api/files and /batch, and replies captured from the
live API; what is only believed is marked so.

A batch advances with the clock: each status lasts as long as `BatchPace` says,
and its requests are answered when it starts finalizing. `StorageFaults` makes
things go wrong.
"""

import asyncio
import hashlib
import io
import random
import re
import time
import urllib.parse
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
from aiohttp import BodyPartReader, web

from ...bulk.request_files import CHAT_URL, MAX_LINE_SIZE, LineChecker, read_lines
from .replies import ACCOUNT, Account, Refusal, headers_for, json_bytes

__all__ = ["BatchPace", "Storage", "StorageFaults", "StorageReply", "StoredFile", "add_routes"]

Completer = Callable[[dict[str, Any]], tuple[int, Any]]
"""Answers the body of one batch line: HTTP status and the decoded reply."""

Auth = Callable[[web.Request], "web.StreamResponse | Awaitable[web.StreamResponse | None] | None"]
"""Given a request: None to let it in, or the reply that turns it away."""

_JSON: Final = "application/json; charset=utf-8"
_PURPOSES: Final = ("file-extract", "batch", "batch_output", "lambda", "image", "video")
_EXTRACTABLE: Final = re.compile(
    r"(?i).*\.(pdf|txt|csv|docx?|xlsx?|pptx?|md|epub|html|json|mobi|log|go|h|c|cpp|cxx|cc|cs|java|js|css|jsp|php"
    r"|py3?|asp|ya?ml|ini|conf|tsx?)"
)


@dataclass(slots=True)
class BatchPace:
    """
    Seconds that a batch spends in each status.
    """

    validating: float = 0.02
    in_progress: float = 0.05
    finalizing: float = 0.02
    cancelling: float = 0.02


@dataclass(slots=True)
class StorageFaults:
    """
    What goes wrong. Everything that has a number happens so many times, then no more.
    """

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
    """
    A file as it is kept.
    """

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

    def public(self, now: float) -> dict[str, Any]:
        """
        As the API shows it.
        """
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
    """
    A decided reply.
    """

    status: int
    body: bytes
    content_type: str = _JSON
    cut: int | None = None
    """Bytes of the body after which the connection breaks; None for none."""


@dataclass(slots=True)
class _Batch:
    id: str
    endpoint: str
    input_file_id: str
    window: str
    metadata: dict[str, Any] | None
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
    errors: list[dict[str, Any]] | None = None
    lines: list[bytes] = field(default_factory=list[bytes])

    def public(self) -> dict[str, Any]:
        value: dict[str, Any] = {
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


class Storage:
    """
    Files and batches of one account.

    ``complete`` answers the requests of a batch; without it every answer is a
    short fixed text. ``wall`` gives Unix time. ``keep`` is how many bytes of a
    file are kept; of larger ones (but for batch input) only size and SHA-256.
    ``page`` makes lists paged; the official host documents no paging for files.
    ``processing`` is how long a new file is not ready yet.
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
        batch_models: Iterable[str] = ("kimi-k2.6", "kimi-k2.5"),
    ) -> None:
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, _Batch] = {}
        self.pace: BatchPace = pace or BatchPace()
        self.faults: StorageFaults = faults or StorageFaults()
        self.max_files = max_files
        self.max_file_size = max_file_size
        self.max_total = max_total
        self.keep = keep
        self.page = page
        self.processing = processing
        self.calls: Counter[str] = Counter()
        """How often each thing was asked for: ``upload``, ``delete``, ``content``, ``list``, ``batch``, …"""
        self.batched: Counter[str] = Counter()
        """How often each custom_id was answered by a batch."""
        self.uploading = 0
        self.peak_uploading = 0
        self._complete = complete or _fixed_answer
        self._wall = wall
        self._seed = seed
        self._account = account
        self._batch_models = tuple(batch_models)
        self._ordinal = 0

    # --- without sockets --------------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, body: bytes, now: float, content_type: str = ""
    ) -> StorageReply | None:
        """
        The reply to one request; None if the path is not ours. ``now`` is the loop's clock.
        """
        route, _, query = path.partition("?")
        route = "/" + urllib.parse.unquote(route).removeprefix("/v1").strip("/")
        wanted = dict(urllib.parse.parse_qsl(query))
        if route == "/files" and method == "POST":
            return self._upload_whole(body, content_type, now)
        if route == "/files" and method == "GET":
            return self.list_files(wanted, now)
        if found := re.fullmatch(r"/files/([^/]+)(/content)?", route):
            if method == "DELETE" and not found[2]:
                return self.delete(found[1])
            if method == "GET":
                return self.content(found[1]) if found[2] else self.retrieve(found[1], now)
        if route == "/batches" and method == "POST":
            return self.create_batch(body, now)
        if route == "/batches" and method == "GET":
            return self.list_batches(wanted, now)
        if found := re.fullmatch(r"/batches/([^/]+)(/cancel)?", route):
            if method == "POST" and found[2]:
                return self.cancel(found[1], now)
            if method == "GET" and not found[2]:
                return self.retrieve_batch(found[1], now)
        return None

    def headers(self, content_type: str) -> list[tuple[str, str]]:
        """
        The headers of the next reply.
        """
        self._ordinal += 1
        return headers_for(
            self._ordinal, seed=self._seed ^ 0xF11E5, account=self._account, content_type=content_type
        )

    def _id(self, prefix: str) -> str:
        self._ordinal += 1
        digest = hashlib.blake2b(f"{self._seed}:{self._ordinal}".encode(), digest_size=10).hexdigest()
        return f"{prefix}{digest}"

    # --- files ------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        data: bytes | None,
        *,
        purpose: str,
        size: int,
        sha256: str,
        content_type: str = "",
        now: float = 0.0,
    ) -> StorageReply:
        """
        Keep an uploaded file, or say why not. ``data`` may be None for a file that is not kept.
        """
        self.calls["upload"] += 1
        if self.faults.uploads:
            return _refused(self.faults.uploads.popleft())
        if purpose not in _PURPOSES:
            listed = "`file-extract`, `batch`, `batch_output`, `lambda`, `image` and `video`"
            return _invalid(f"Invalid purpose: {purpose}, only {listed} accepted")
        if size == 0:
            return _invalid("File size is zero, please confirm and re-upload the file")
        if size > self.max_file_size:
            return _invalid(
                "File size is too large, max file size is 100MB, please confirm and re-upload the file"
            )
        if len(self.files) >= self.max_files:
            return _invalid(
                f"The number of files you have uploaded exceeded the max file count {self.max_files}, "
                "please delete previous uploaded files"
            )
        if sum(file.size for file in self.files.values()) + size > self.max_total:
            # The limit is documented, its text is not.
            return _invalid(
                "The total size of files you have uploaded exceeded the limit, please delete previous files"
            )
        status, details = "ready", ""
        if purpose == "file-extract":
            status = "ok"
            reason = self.faults.extract.get(name)
            if reason is not None:
                return _refused(Refusal(500, "server_error", f"Failed to extract file: {reason}"))
            if not _EXTRACTABLE.fullmatch(name):
                status, details = "error", "unsupported file type"
        file = StoredFile(
            id=self._id(""),
            name=name,
            size=size,
            purpose=purpose,
            created_at=int(self._wall()),
            sha256=sha256,
            content_type=content_type or "application/octet-stream",
            data=data if data is not None and (size <= self.keep or purpose.startswith("batch")) else None,
            status=status,
            status_details=details,
            ready_at=now + self.processing if self.processing else 0.0,
        )
        self.files[file.id] = file
        return _ok(file.public(now))

    def put(self, name: str, data: bytes, *, purpose: str) -> StoredFile:
        """
        Have a file on the account without uploading it.
        """
        before = set(self.files)
        reply = self.add(name, data, purpose=purpose, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        self.calls["upload"] -= 1
        if reply.status != 200:
            raise ValueError(reply.body.decode())
        return next(self.files[id_] for id_ in self.files if id_ not in before)

    def _upload_whole(self, body: bytes, content_type: str, now: float) -> StorageReply:
        fields: dict[str, tuple[str | None, str, bytes]] = {}
        found = re.search(r'boundary="?([^";]+)', content_type)
        if found is None:
            return _invalid("Invalid request: multipart/form-data expected")
        boundary = b"--" + found[1].encode()
        for part in body.split(boundary)[1:-1]:
            head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            name = re.search(rb'[; ]name="([^"]*)"', head)
            filename = re.search(rb'filename="([^"]*)"', head)
            mime = re.search(rb"(?i)content-type: *([^\r\n]+)", head)
            if name is not None:
                fields[name[1].decode()] = (
                    filename[1].decode() if filename else None,
                    mime[1].decode() if mime else "",
                    value.removesuffix(b"\r\n"),
                )
        if "file" not in fields or "purpose" not in fields:
            return _invalid("Invalid request: file and purpose are required")
        name_sent, mime_type, data = fields["file"]
        return self.add(
            _unquoted(name_sent or ""),
            data,
            purpose=fields["purpose"][2].decode(),
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            content_type=mime_type,
            now=now,
        )

    def retrieve(self, file_id: str, now: float) -> StorageReply:
        """
        ``GET /v1/files/{id}``.
        """
        self.calls["retrieve"] += 1
        file = self.files.get(file_id)
        return _ok(file.public(now)) if file is not None else _missing(f"file {file_id} not found")

    def list_files(self, query: Mapping[str, str], now: float) -> StorageReply:
        """
        ``GET /v1/files``: newest last, all at once unless `page` is set.
        """
        self.calls["list"] += 1
        files = [file for file in self.files.values() if query.get("purpose") in (None, file.purpose)]
        shown, more = self._paged([file.id for file in files], query, self.page)
        data = [self.files[id_].public(now) for id_ in shown]
        ends = {
            "first_id": shown[0] if shown else "",
            "last_id": shown[-1] if shown else "",
            "has_more": more,
        }
        return _ok({"object": "list", "data": data, **ends})

    def _paged(self, ids: list[str], query: Mapping[str, str], page: int | None) -> tuple[list[str], bool]:
        if page is None:
            return ids, False
        size = min(page, int(query.get("limit", page)))
        after = query.get("after")
        start = ids.index(after) + 1 if after in ids else 0
        return ids[start : start + size], start + size < len(ids)

    def delete(self, file_id: str) -> StorageReply:
        """
        ``DELETE /v1/files/{id}``.
        """
        self.calls["delete"] += 1
        if self.files.pop(file_id, None) is None:
            return _missing(f"file {file_id} not found")
        return _ok({"deleted": True, "id": file_id, "object": "file"})

    def content(self, file_id: str) -> StorageReply:
        """
        ``GET /v1/files/{id}/content``: extracted text for ``file-extract``, the bytes otherwise (for images and videos
        that is only believed).
        """
        self.calls["content"] += 1
        file = self.files.get(file_id)
        if file is None:
            return _missing(f"file {file_id} not found")
        data = file.data if file.data is not None else b""
        if file.purpose == "file-extract":
            value = {
                "content": data.decode("utf-8", "replace"),
                "file_type": file.content_type,
                "filename": file.name,
                "title": "",
                "type": "file",
            }
            reply = StorageReply(200, json_bytes(value), "text/plain; charset=utf-8")
        else:
            reply = StorageReply(200, data, "application/octet-stream")
        if self.faults.cut_downloads:
            self.faults.cut_downloads -= 1
            reply.cut = len(reply.body) // 2
        return reply

    # --- batches ----------------------------------------------------------------------------------------

    def create_batch(self, body: bytes, now: float) -> StorageReply:
        """
        ``POST /v1/batches``.
        """
        self.calls["create_batch"] += 1
        if self.faults.create:
            return _refused(self.faults.create.popleft())
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError:
            return _invalid("Invalid request: the body is not a JSON object")
        file = self.files.get(str(fields.get("input_file_id")))
        if file is None:
            return _missing(f"file {fields.get('input_file_id')} not found")
        if file.purpose != "batch":
            return _invalid(f"Invalid request: file {file.id} has purpose {file.purpose}, not batch")
        if fields.get("endpoint") != CHAT_URL:
            return _invalid(f"Invalid request: endpoint must be {CHAT_URL}")
        window = _window(fields.get("completion_window"))
        if window is None:
            return _invalid("Invalid request: completion_window must be between 12h and 7d")
        metadata = fields.get("metadata")
        if metadata is not None and not _good_metadata(metadata):
            return _invalid("Invalid request: metadata must be at most 16 pairs of strings")
        created_at = int(self._wall())
        batch = _Batch(
            id=self._id("batch_"),
            endpoint=CHAT_URL,
            input_file_id=file.id,
            window=str(fields["completion_window"]),
            metadata=metadata,
            created=now,
            created_at=created_at,
            expires_at=created_at + window,
            since=now,
        )
        self.batches[batch.id] = batch
        reply = _ok(batch.public())
        if self.faults.lose_create:
            self.faults.lose_create -= 1
            reply.cut = 0
        return reply

    def retrieve_batch(self, batch_id: str, now: float) -> StorageReply:
        """
        ``GET /v1/batches/{id}``.
        """
        self.calls["batch"] += 1
        if self.faults.polls:
            return _refused(self.faults.polls.popleft())
        batch = self.batches.get(batch_id)
        if batch is None:
            return _missing(f"batch {batch_id} not found")
        self._advance(batch, now)
        return _ok(batch.public())

    def list_batches(self, query: Mapping[str, str], now: float) -> StorageReply:
        """
        ``GET /v1/batches``: newest first.
        """
        self.calls["list_batches"] += 1
        for batch in self.batches.values():
            self._advance(batch, now)
        ids = list(reversed(self.batches))
        shown, more = self._paged(ids, query, self.page or 20)
        return _ok({"object": "list", "data": [self.batches[i].public() for i in shown], "has_more": more})

    def cancel(self, batch_id: str, now: float) -> StorageReply:
        """
        ``POST /v1/batches/{id}/cancel``: only while it runs.
        """
        self.calls["cancel"] += 1
        batch = self.batches.get(batch_id)
        if batch is None:
            return _missing(f"batch {batch_id} not found")
        self._advance(batch, now)
        if batch.status not in ("validating", "in_progress", "finalizing"):
            return _invalid(f"Invalid request: batch in status {batch.status} cannot be cancelled")
        if batch.status == "in_progress":
            share = (now - batch.since) / self.pace.in_progress if self.pace.in_progress else 1.0
            self._process(batch, int(batch.total * min(1.0, share)))
        self._enter(batch, "cancelling", now)
        return _ok(batch.public())

    def _enter(self, batch: _Batch, status: str, now: float) -> None:
        batch.status = status
        batch.since = now
        batch.times[f"{status}_at"] = int(self._wall())

    def _advance(self, batch: _Batch, now: float) -> None:
        """
        Bring a batch to where it would be at this time.
        """
        pace = self.pace
        while True:
            elapsed = now - batch.since
            if batch.status == "validating" and elapsed >= pace.validating:
                self._validate(batch)
                ended = batch.errors is not None
                self._enter(batch, "failed" if ended else "in_progress", batch.since + pace.validating)
            elif batch.status == "in_progress" and elapsed >= pace.in_progress:
                limit = self.faults.expire_after
                if limit is not None and limit < batch.total:
                    self._process(batch, limit)
                    self._enter(batch, "expired", batch.since + pace.in_progress)
                else:
                    self._process(batch, batch.total)
                    self._enter(batch, "finalizing", batch.since + pace.in_progress)
            elif batch.status == "finalizing" and elapsed >= pace.finalizing:
                self._enter(batch, "completed", batch.since + pace.finalizing)
            elif batch.status == "cancelling" and elapsed >= pace.cancelling:
                self._enter(batch, "cancelled", batch.since + pace.cancelling)
            else:
                return

    def _validate(self, batch: _Batch) -> None:
        if self.faults.fail_validation is not None:
            batch.errors = [{"code": "invalid", "message": self.faults.fail_validation, "line": None}]
            return
        file = self.files.get(batch.input_file_id)
        if file is None or file.data is None:
            batch.errors = [{"code": "missing_file", "message": "the input file was deleted", "line": None}]
            return
        checker = LineChecker(batch=True)
        for _, line in read_lines(io.BytesIO(file.data), max_line=MAX_LINE_SIZE):
            if (good := checker.feed(line)) is not None:
                batch.lines.append(good)
        found = checker.finish()
        problems: list[dict[str, Any]] = [
            {"code": p.kind, "message": p.reason, "line": p.line} for p in found.problems
        ]
        for model in found.models:
            if model not in self._batch_models:
                problems.append(
                    {"code": "model", "message": f"model {model} does not support batch", "line": None}
                )
        if not found.lines:
            problems.append({"code": "empty", "message": "the file has no requests", "line": None})
        batch.total = found.lines
        batch.errors = problems or None

    def _process(self, batch: _Batch, count: int) -> None:
        """
        Answer the first ``count`` requests and write the output files, in an order of their own.
        """
        faults = self.faults
        good: list[bytes] = []
        bad: list[bytes] = []
        for line in batch.lines[:count]:
            request = msgspec.json.decode(line, type=dict[str, Any])
            name = str(request["custom_id"])
            self.batched[name] += 1
            if faults.lose_line is not None and faults.lose_line(name):
                batch.completed += 1
                continue
            refusal = faults.fail_line(name) if faults.fail_line is not None else None
            if refusal is not None:
                status, reply = refusal.status, msgspec.json.decode(refusal.payload())
            else:
                status, reply = self._complete(cast("dict[str, Any]", request["body"]))
            response = {"status_code": status, "request_id": "", "body": reply}
            error = None
            if status >= 400:
                whole = cast("dict[str, Any]", reply if isinstance(reply, dict) else {})
                said = cast("dict[str, Any]", whole.get("error") or {})
                error = {"code": str(said.get("type", status)), "message": str(said.get("message", ""))}
            record = json_bytes({"id": name, "custom_id": name, "response": response, "error": error})
            (bad if error else good).append(record)
        batch.completed += len(good)
        batch.failed += len(bad)
        dice = random.Random(f"{self._seed}{batch.id}")
        for lines, kind in ((good, "output"), (bad, "error")):
            if lines:
                dice.shuffle(lines)
                data = b"\n".join(lines) + b"\n"
                stored = StoredFile(
                    id=self._id(""),
                    name=f"{batch.id}_{kind}.jsonl",
                    size=len(data),
                    purpose="batch_output",
                    created_at=int(self._wall()),
                    sha256=hashlib.sha256(data).hexdigest(),
                    content_type="application/jsonl",
                    data=data,
                )
                self.files[stored.id] = stored
                if kind == "output":
                    batch.output_file_id = stored.id
                else:
                    batch.error_file_id = stored.id


def add_routes(app: web.Application, auth: Auth, storage: Storage | None = None) -> Storage:
    """
    Serve files and batches under ``/v1`` of an aiohttp application. Add them before any catch-all route.

    Uploads are hashed as they come and not held whole, unless `Storage` keeps them.
    """
    place = storage or Storage()

    async def refused(request: web.Request) -> web.StreamResponse | None:
        verdict = auth(request)
        if asyncio.iscoroutine(verdict) or isinstance(verdict, asyncio.Future):
            verdict = await verdict
        return cast("web.StreamResponse | None", verdict)

    async def upload(request: web.Request) -> web.StreamResponse:
        if (no := await refused(request)) is not None:
            return no
        place.uploading += 1
        place.peak_uploading = max(place.peak_uploading, place.uploading)
        try:
            return await _send(request, place, await _receive(request, place))
        finally:
            place.uploading -= 1

    async def other(request: web.Request) -> web.StreamResponse:
        if (no := await refused(request)) is not None:
            return no
        now = asyncio.get_running_loop().time()
        body = await request.read()
        reply = place.answer(request.method, request.path_qs, body, now)
        if reply is None:
            reply = _refused(Refusal(404, "resource_not_found_error", "method not found"))
        return await _send(request, place, reply)

    router = app.router
    router.add_post("/v1/files", upload)
    router.add_get("/v1/files", other)
    router.add_route("*", "/v1/files/{rest:.+}", other)
    router.add_route("*", "/v1/batches", other)
    router.add_route("*", "/v1/batches/{rest:.+}", other)
    return place


async def _receive(request: web.Request, storage: Storage) -> StorageReply:
    """
    Read an upload to its end, or reset the connection where that was asked for.
    """
    if request.content_type != "multipart/form-data":
        return _invalid("Invalid request: multipart/form-data expected")
    purpose = name = None
    content_type = ""
    digest = hashlib.sha256()
    size = 0
    held: list[bytes] | None = []
    cut = None
    if storage.faults.cut_uploads:
        storage.faults.cut_uploads -= 1
        cut = (request.content_length or 0) // 2
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader):
                return _invalid("Invalid request: nested multipart")
            if part.name == "purpose":
                purpose = (await part.read()).decode()
            elif part.name == "file":
                name = _unquoted(part.filename or "")
                content_type = part.headers.get("Content-Type", "")
                while data := await part.read_chunk(256 * 1024):
                    digest.update(data)
                    size += len(data)
                    if held is not None:
                        held.append(bytes(data))
                        if size > storage.keep and purpose not in (None, "batch"):
                            held = None
                    if cut is not None and size >= cut:
                        storage.calls["cut_upload"] += 1
                        _reset(request)
    except ValueError as exc:
        return _invalid(f"Invalid request: {exc}")
    if name is None or purpose is None:
        return _invalid("Invalid request: file and purpose are required")
    return storage.add(
        name,
        b"".join(held) if held is not None else None,
        purpose=purpose,
        size=size,
        sha256=digest.hexdigest(),
        content_type=content_type,
        now=asyncio.get_running_loop().time(),
    )


async def _send(request: web.Request, storage: Storage, reply: StorageReply) -> web.StreamResponse:
    headers = storage.headers(reply.content_type)
    if reply.cut is None:
        return web.Response(status=reply.status, body=reply.body, headers=headers)
    if reply.cut == 0:
        _reset(request)
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = len(reply.body)
    await response.prepare(request)
    await response.write(reply.body[: reply.cut])
    _reset(request)
    return response


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("the connection was cut on purpose")


def _fixed_answer(body: dict[str, Any]) -> tuple[int, Any]:
    message = {"role": "assistant", "content": "Hello from the batch."}
    return 200, {
        "id": "chatcmpl-batch",
        "object": "chat.completion",
        "created": 1_770_000_100,
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
    }


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


def _unquoted(name: str) -> str:
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _ok(value: Any) -> StorageReply:
    return StorageReply(200, json_bytes(value))


def _refused(refusal: Refusal) -> StorageReply:
    return StorageReply(refusal.status, refusal.payload(), refusal.content_type)


def _invalid(message: str) -> StorageReply:
    return _refused(Refusal(400, "invalid_request_error", message))


def _missing(message: str) -> StorageReply:
    return _refused(Refusal(404, "resource_not_found_error", message))
