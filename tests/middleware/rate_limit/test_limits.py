"""
Where the limiter begins with a host of which nobody has told the limits.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.middleware.rate_limit.limits import ELSEWHERE, RateLimits, unknown_limits
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport import Request

pytestmark = pytest.mark.virtual_clock


@pytest.mark.parametrize("name", ["hold", "adaptive"])
def test_limits_switches_are_true_or_false(name: str):
    """
    A word in place of a switch would be on, whatever it says.
    """
    with pytest.raises(TypeError, match=f"RateLimits.{name} must be True or False"):
        RateLimits(**{name: "no"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "official", "expected"),
    [
        ("https://api.moonshot.ai/v1/", True, RateLimits()),
        ("https://openrouter.ai/api/v1/", False, RateLimits(start=ELSEWHERE)),
        ("http://127.0.0.1:8000/v1/", False, RateLimits(hold=False, start=4)),
        ("http://[::1]:8000/v1/", False, RateLimits(hold=False, start=4)),
        ("http://10.1.2.3/v1/", False, RateLimits(hold=False, start=4)),
        ("http://localhost:8000/v1/", False, RateLimits(hold=False, start=4)),
        ("http://vllm:8000/v1/", False, RateLimits(hold=False, start=4)),
        ("http://100.64.3.2/v1/", False, RateLimits(hold=False, start=4)),
        ("http://gpu.internal/v1/", False, RateLimits(hold=False, start=4)),
        ("http://8.8.8.8/v1/", False, RateLimits(start=ELSEWHERE)),
    ],
)
def test_unknown_limits_by_host(address: str, official: bool, expected: RateLimits):
    """
    Carefully at Kimi's own hosts, with more elsewhere, and at once with a server of one's own.
    """
    assert expected.hold == unknown_limits(address, official=official).hold
    assert not expected.hold or expected.start == unknown_limits(address, official=official).start


@pytest.mark.parametrize(
    ("options", "calls", "most"),
    [
        ({"base_url": "http://127.0.0.1:8000/v1"}, 500, 0.51),
        ({"provider": "vllm"}, 3_000, 0.51),
        ({"provider": "sglang", "base_url": "https://gpu.example/v1"}, 500, 0.51),
        ({"base_url": "https://host.example/v1", "limits": RateLimits(hold=False)}, 3_000, 0.51),
        ({"base_url": "https://host.example/v1"}, 500, 1.3),
        ({"base_url": "https://host.example/v1"}, 3_000, 2.5),
    ],
)
async def test_host_without_limits_is_not_held_back(options: dict[str, Any], calls: int, most: float):
    """
    Calls of half a second at once, at a server that admits all, take little more than half a second.
    """

    async def answer(_: Request) -> Reply:
        await asyncio.sleep(0.5)
        return Reply(200, {"content-type": "application/json"}, b'{"object": "list", "data": []}')

    loop = asyncio.get_running_loop()
    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(answer), **options) as client:
        await asyncio.gather(*(client.post("/chat/completions", body={}) for _ in range(calls)))

        assert loop.time() <= most
