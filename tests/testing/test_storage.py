"""
Files and batches of the simulator: what is malformed is refused in the host's form, never a 500.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from kimi_async.testing import KimiService, KimiSimulator, in_memory
from kimi_async.transport.exchange import Request

GOOD = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nimage\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\ndata\r\n--b--\r\n'
)
BAD: list[tuple[str, bytes]] = [
    ("multipart/form-data", GOOD),
    ("multipart/form-data; boundary=", GOOD),
    ("multipart/form-data; boundary=" + "b" * 200, GOOD),
    ("multipart/form-data; boundary=c", GOOD),
    ("multipart/form-data; boundary=b", b""),
    ("multipart/form-data; boundary=b", b"no multipart at all"),
    ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n"),
    ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition form-data\r\n\r\nx\r\n--b--\r\n"),
    ("multipart/form-data; boundary=b", GOOD.replace(b'"purpose"', b'"other"')),
    ("multipart/form-data; boundary=b", GOOD.replace(b"image", b"\xff\xfe")),
    ("multipart/form-data; boundary=b", GOOD.replace(b"data\r\n--b--", b"\r\n--b--")),
    ("application/json", b"{}"),
]


@pytest.fixture
async def sim() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as simulator:
        yield simulator


@pytest.mark.parametrize(("content_type", "body"), BAD)
async def test_upload_malformed_is_a_400(sim: KimiSimulator, content_type: str, body: bytes) -> None:
    """A form that is none is the client's fault, on a socket and in memory alike."""
    headers = {"Authorization": f"Bearer {sim.api_key}", "Content-Type": content_type}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{sim.base_url}/files", data=body, headers=headers) as response,
    ):
        reply: dict[str, Any] = await response.json()
    request = Request("POST", "https://api.moonshot.ai/v1/files", headers=headers, body=body)
    request.headers["Authorization"] = "Bearer sk-simulator"
    without_socket = await in_memory(KimiService()).send(request)

    assert (400, "invalid_request_error") == (response.status, reply["error"]["type"])
    assert 400 == without_socket.status


@pytest.mark.parametrize("limit", ["x", "-1", "0", "1.5", "²", "9" * 5_000])
@pytest.mark.parametrize("path", ["files", "batches"])
async def test_list_bad_limit_is_a_400(sim: KimiSimulator, path: str, limit: str) -> None:
    """A limit that is no number above 0 is refused; a huge one is only a large page."""
    headers = {"Authorization": f"Bearer {sim.api_key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sim.base_url}/{path}", params={"limit": limit}, headers=headers) as response,
    ):
        status = response.status

    assert (200 if limit.startswith("9") else 400) == status
