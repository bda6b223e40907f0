"""
Which request goes to which part of the storage: without sockets (`answer`), and on an aiohttp application.
"""

import asyncio
import hashlib
import re
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from ..replies import Refusal
from .batches import cancel_batch, create_batch, list_batches, retrieve_batch
from .files import add_file, delete_file, file_content, list_files, retrieve_file, unquoted, upload_whole
from .state import Storage, StorageReply, invalid, refused

__all__ = ["add_routes", "answer"]

Auth = Callable[[web.Request], "web.StreamResponse | Awaitable[web.StreamResponse | None] | None"]
"""Given a request: None to let it in, or the reply that turns it away."""


def answer(
    storage: Storage, method: str, path: str, body: bytes, now: float, content_type: str = ""
) -> StorageReply | None:
    """The reply to one request; None if the path is not ours. `now` is the loop's clock."""
    route, _, query = path.partition("?")
    route = "/" + urllib.parse.unquote(route).removeprefix("/v1").strip("/")
    wanted = dict(urllib.parse.parse_qsl(query))
    if route == "/files" and method == "POST":
        try:
            return upload_whole(storage, body, content_type, now)
        except ValueError:  # names that are not UTF-8
            return invalid("Invalid request: malformed multipart/form-data")
    if route == "/files" and method == "GET":
        return list_files(storage, wanted, now)
    if found := re.fullmatch(r"/files/([^/]+)(/content)?", route):
        if method == "DELETE" and not found[2]:
            return delete_file(storage, found[1])
        if method == "GET":
            return file_content(storage, found[1]) if found[2] else retrieve_file(storage, found[1], now)
    if route == "/batches" and method == "POST":
        return create_batch(storage, body, now)
    if route == "/batches" and method == "GET":
        return list_batches(storage, wanted, now)
    if found := re.fullmatch(r"/batches/([^/]+)(/cancel)?", route):
        if method == "POST" and found[2]:
            return cancel_batch(storage, found[1], now)
        if method == "GET" and not found[2]:
            return retrieve_batch(storage, found[1], now)
    return None


def add_routes(app: web.Application, auth: Auth, storage: Storage | None = None) -> Storage:
    """
    Serve files and batches under `/v1` of an aiohttp application. Add them before any catch-all route.

    Uploads are hashed as they come and not held whole, unless `Storage` keeps them.
    """
    place = storage or Storage()

    async def turned_away(request: web.Request) -> web.StreamResponse | None:
        verdict = auth(request)
        if asyncio.iscoroutine(verdict) or isinstance(verdict, asyncio.Future):
            verdict = await verdict
        return cast("web.StreamResponse | None", verdict)

    async def upload(request: web.Request) -> web.StreamResponse:
        if (no := await turned_away(request)) is not None:
            return no
        place.uploading += 1
        place.peak_uploading = max(place.peak_uploading, place.uploading)
        try:
            return await _send(request, place, await _receive(request, place))
        finally:
            place.uploading -= 1

    async def other(request: web.Request) -> web.StreamResponse:
        if (no := await turned_away(request)) is not None:
            return no
        now = asyncio.get_running_loop().time()
        body = await request.read()
        reply = answer(place, request.method, request.path_qs, body, now)
        if reply is None:
            reply = refused(Refusal(404, "resource_not_found_error", "method not found"))
        return await _send(request, place, reply)

    router = app.router
    router.add_post("/v1/files", upload)
    router.add_get("/v1/files", other)
    router.add_route("*", "/v1/files/{rest:.+}", other)
    router.add_route("*", "/v1/batches", other)
    router.add_route("*", "/v1/batches/{rest:.+}", other)
    return place


async def _receive(request: web.Request, storage: Storage) -> StorageReply:
    """Read an upload to its end, or reset the connection where that was asked for."""
    if request.content_type != "multipart/form-data":
        return invalid("Invalid request: multipart/form-data expected")
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
                return invalid("Invalid request: nested multipart")
            if part.name == "purpose":
                purpose = (await part.read()).decode()
            elif part.name == "file":
                name = unquoted(part.filename or "")
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
    except (ValueError, AssertionError, LookupError, HttpProcessingError) as exc:
        # aiohttp refuses a malformed part in all of these ways.
        return invalid(f"Invalid request: malformed multipart/form-data ({type(exc).__name__})")
    if name is None or purpose is None:
        return invalid("Invalid request: file and purpose are required")
    return add_file(
        storage,
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
