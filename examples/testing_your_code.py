"""
Test code that talks to Kimi without talking to Kimi.

    pytest examples/testing_your_code.py

The package brings a pytest plugin: `kimi_simulator` is a server on this machine, `kimi_client` a client of it. Async tests
need a plugin that runs them, such as anyio's with `anyio_mode = "auto"` in the configuration of pytest.
"""

import json

import pytest

from kimi_async import AsyncKimi
from kimi_async.testing import KimiSimulator, MemoryTransport, Refusal, Reply
from kimi_async.transport import Request

# --- the code under test: any function that takes a client ---


async def headline(client: AsyncKimi, article: str) -> str:
    completion = await client.chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": f"Give a headline for:\n\n{article}"}]
    )
    return (completion.choices[0].message.content or "").strip().rstrip(".")


# The client is for asyncio; where trio is installed too, anyio's plugin would run each test on both.
@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- with a server: everything is real but the model ---


async def test_headline_is_what_the_model_said(kimi_simulator: KimiSimulator, kimi_client: AsyncKimi) -> None:
    kimi_simulator.say("Rivers bend.")

    assert "Rivers bend" == await headline(kimi_client, "A long article.")
    assert "A long article." in kimi_simulator.requests[-1].json()["messages"][0]["content"]


# --- without a server: a function answers, and sees exactly what was sent ---


async def test_headline_of_an_empty_answer_is_empty() -> None:
    async def handler(request: Request) -> Reply:
        assert "/v1/chat/completions" == request.path
        return Reply(body=json.dumps({"choices": [{"message": {"role": "assistant", "content": ""}}]}))

    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler)) as client:
        assert "" == await headline(client, "")


# --- when things go wrong: the server refuses once, the client tries again ---


async def test_headline_survives_a_bad_moment(kimi_simulator: KimiSimulator, kimi_client: AsyncKimi) -> None:
    kimi_simulator.say(Refusal(500, "server_error", "Out of order."), "At last.")

    assert "At last" == await headline(kimi_client, "A long article.")
