"""
The same service without sockets, on a virtual clock.
"""

import asyncio
import json
import math
from typing import Any

import pytest

from kimi_async.errors import ConfigurationError
from kimi_async.testing.service_in_memory import in_memory
from kimi_async.testing.simulator.chat_model import generate
from kimi_async.testing.simulator.replies import Pace
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.server_limits import ServerLedger, ServerLimits, Storm
from kimi_async.testing.simulator.service import KimiService
from kimi_async.testing.simulator.words import tokenize
from kimi_async.transport.exchange import Headers, Request
from support.bare_client import chat, joined, undisturbed


def virtual(main: Any) -> Any:
    from kimi_async.testing.clock import run

    return run(main)


def request_for(body: dict[str, Any]) -> Request:
    return Request(
        "POST",
        "http://memory/v1/chat/completions",
        headers=Headers({"Authorization": "Bearer sk-simulator"}),
        body=json.dumps(body).encode(),
    )


def test_in_memory_paces_on_the_loop_clock() -> None:
    """A minute of generation passes in virtual time; the text is the one of the sockets."""

    async def main() -> tuple[float, str]:
        transport = in_memory(KimiService(pace=Pace(first_token=10, tokens_per_second=4)))
        response = await transport.send(request_for(chat(stream=True)))
        data = await response.read()
        return asyncio.get_running_loop().time(), data.decode()

    seconds, text = virtual(main())
    chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line and not line.endswith("[DONE]")]

    tokens = len(generate(undisturbed(), budget=10**6).content) + len(tokenize(undisturbed().reasoning))
    assert undisturbed().content == joined(chunks, "content")
    assert seconds == pytest.approx(10 + (tokens + 1) / 4, abs=0.5)


def test_in_memory_slot_is_held_until_the_body_is_closed() -> None:
    """The concurrency limit counts open streams, also those the client gives up."""

    async def main() -> list[int]:
        service = KimiService(limits=ServerLimits(concurrency=1))
        assert service.limits is not None
        transport = in_memory(service)
        first = await transport.send(request_for(chat(stream=True)))
        refused = await transport.send(request_for(chat(stream=True)))
        await refused.read()
        before = service.limits.in_flight
        first.close()
        return [refused.status, before, service.limits.in_flight]

    assert [429, 1, 0] == virtual(main())


def test_in_memory_storm_waits_before_it_refuses() -> None:
    """The overloaded answer arrives after its delay, on the virtual clock."""

    async def main() -> tuple[int, float]:
        limits = ServerLedger(ServerLimits(), storms=[Storm(0.0, math.inf)])
        response = await in_memory(KimiService(limits=limits)).send(request_for(chat()))
        await response.read()
        return response.status, asyncio.get_running_loop().time()

    assert (429, 8.0) == virtual(main())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_host_that_others_reach_needs_a_word(host: str) -> None:
    """
    A simulator whose key everybody knows is not opened to a network by a slip; `exposed` says that it is meant.
    """
    with pytest.raises(ConfigurationError, match="exposed=True"):
        KimiSimulator(host=host)

    assert host == KimiSimulator(host=host, exposed=True).host


@pytest.mark.parametrize("host", [None, 5, ["127.0.0.1", "0.0.0.0"]])
def test_host_that_is_no_name_is_refused(host: Any) -> None:
    """
    None and lists mean every interface to the server below.
    """
    with pytest.raises(TypeError, match="host must be a string"):
        KimiSimulator(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_host_of_this_machine_needs_none(host: str) -> None:
    """Loopback, in every spelling, is the machine's own."""
    assert host == KimiSimulator(host=host).host
