"""
Files of the simulated Kimi: what is taken, what is shown, and what is refused with which text.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from ..replies import Refusal, json_bytes
from .state import Storage, StorageReply, invalid, missing, ok, refused

__all__ = [
    "add_file",
    "delete_file",
    "file_content",
    "list_files",
    "page_of",
    "retrieve_file",
    "unquoted",
    "upload_whole",
]

_PURPOSES: Final = ("file-extract", "batch", "batch_output", "lambda", "image", "video")
_EXTRACTABLE: Final = re.compile(
    r"(?i).*\.(pdf|txt|csv|docx?|xlsx?|pptx?|md|epub|html|json|mobi|log|go|h|c|cpp|cxx|cc|cs|java|js|css|jsp|php"
    r"|py3?|asp|ya?ml|ini|conf|tsx?)"
)


def add_file(
    storage: Storage,
    name: str,
    data: bytes | None,
    *,
    purpose: str,
    size: int,
    sha256: str,
    content_type: str = "",
    now: float = 0.0,
) -> StorageReply:
    """Keep an uploaded file, or say why not. `data` may be None for a file that is not kept."""
    storage.calls["upload"] += 1
    if storage.faults.uploads:
        return refused(storage.faults.uploads.popleft())
    if purpose not in _PURPOSES:
        listed = "`file-extract`, `batch`, `batch_output`, `lambda`, `image` and `video`"
        return invalid(f"Invalid purpose: {purpose}, only {listed} accepted")
    if size == 0:
        return invalid("File size is zero, please confirm and re-upload the file")
    if size > storage.max_file_size:
        return invalid(
            "File size is too large, max file size is 100MB, please confirm and re-upload the file"
        )
    if len(storage.files) >= storage.max_files:
        return invalid(
            f"The number of files you have uploaded exceeded the max file count {storage.max_files}, "
            "please delete previous uploaded files"
        )
    if sum(file.size for file in storage.files.values()) + size > storage.max_total:
        # The limit is documented, its text is not.
        return invalid(
            "The total size of files you have uploaded exceeded the limit, please delete previous files"
        )
    status, details = "ready", ""
    if purpose == "file-extract":
        status = "ok"
        reason = storage.faults.extract.get(name)
        if reason is not None:
            return refused(Refusal(500, "server_error", f"Failed to extract file: {reason}"))
        if not _EXTRACTABLE.fullmatch(name):
            status, details = "error", "unsupported file type"
    file = storage.store(
        name,
        data,
        purpose=purpose,
        size=size,
        sha256=sha256,
        content_type=content_type,
        status=status,
        status_details=details,
        ready_at=now + storage.processing if storage.processing else 0.0,
    )
    return ok(file.public(now))


def upload_whole(storage: Storage, body: bytes, content_type: str, now: float) -> StorageReply:
    fields: dict[str, tuple[str | None, str, bytes]] = {}
    found = re.search(r'boundary="?([^";]+)', content_type)
    if found is None:
        return invalid("Invalid request: multipart/form-data expected")
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
        return invalid("Invalid request: file and purpose are required")
    name_sent, mime_type, data = fields["file"]
    return add_file(
        storage,
        unquoted(name_sent or ""),
        data,
        purpose=fields["purpose"][2].decode(),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        content_type=mime_type,
        now=now,
    )


def retrieve_file(storage: Storage, file_id: str, now: float) -> StorageReply:
    """`GET /v1/files/{id}`."""
    storage.calls["retrieve"] += 1
    file = storage.files.get(file_id)
    return ok(file.public(now)) if file is not None else missing(f"file {file_id} not found")


def list_files(storage: Storage, query: Mapping[str, str], now: float) -> StorageReply:
    """`GET /v1/files`: newest last, all at once unless `page` is set."""
    storage.calls["list"] += 1
    files = [file for file in storage.files.values() if query.get("purpose") in (None, file.purpose)]
    found = page_of([file.id for file in files], query, storage.page)
    if isinstance(found, StorageReply):
        return found
    shown, more = found
    data = [storage.files[id_].public(now) for id_ in shown]
    ends = {
        "first_id": shown[0] if shown else "",
        "last_id": shown[-1] if shown else "",
        "has_more": more,
    }
    return ok({"object": "list", "data": data, **ends})


def page_of(
    ids: list[str], query: Mapping[str, str], page: int | None
) -> tuple[list[str], bool] | StorageReply:
    """The ids of one page and whether there are more; a refusal for a limit that is no number above 0."""
    limit = query.get("limit", "1000")
    if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9])):
        return invalid(f"Invalid request: limit must be a positive integer, but got {limit[:40]}")
    if page is None:
        return ids, False
    size = min(page, int(limit[:9]))
    after = query.get("after")
    start = ids.index(after) + 1 if after in ids else 0
    return ids[start : start + size], start + size < len(ids)


def delete_file(storage: Storage, file_id: str) -> StorageReply:
    """`DELETE /v1/files/{id}`."""
    storage.calls["delete"] += 1
    if storage.files.pop(file_id, None) is None:
        return missing(f"file {file_id} not found")
    return ok({"deleted": True, "id": file_id, "object": "file"})


def file_content(storage: Storage, file_id: str) -> StorageReply:
    """
    `GET /v1/files/{id}/content`: extracted text for `file-extract`, the bytes otherwise (for images and videos
    that is only believed).
    """
    storage.calls["content"] += 1
    file = storage.files.get(file_id)
    if file is None:
        return missing(f"file {file_id} not found")
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
    if storage.faults.cut_downloads:
        storage.faults.cut_downloads -= 1
        reply.cut = len(reply.body) // 2
    return reply


def unquoted(name: str) -> str:
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
