"""
`client.formulas` and `client.signatures`: Kimi's official tools, and the proof that Kimi answered.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_async import AsyncKimi, ConfigurationError, NotFoundError, Request
from kimi_async.resources.signatures import NONCE_HEADER, new_nonce, signature_of
from kimi_async.testing import KimiSimulator, MemoryTransport, Reply
from kimi_async.types.formulas import Fiber

URI = "moonshot/web-search:latest"


async def test_formulas_tools_and_call(kimi_simulator: KimiSimulator) -> None:
    """The definition is fetched, and a call gives what the model may read."""
    async with AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client:
        (search,) = await client.formulas.tools(URI, call_timeout=30)
        assert (search.name, search.uri, search.timeout) == ("web_search", URI, 30)
        assert search.definition["type"] == "function"
        fiber = await client.formulas.call(URI, "web_search", {"query": "kimi"})
        assert fiber.succeeded
        assert fiber.content.startswith("----MOONSHOT ENCRYPTED BEGIN----")
        failed = await client.formulas.call(URI, "web_search", "not json")
        assert not failed.succeeded
        assert failed.content == "Error: arguments is not valid JSON"
        with pytest.raises(NotFoundError):
            await client.formulas.tools("moonshot/nothing:latest")


async def test_formulas_path_and_body() -> None:
    """The URI goes into the path unescaped, arguments travel as text: the model's, byte for byte."""
    seen: list[Request] = []

    async def reply(request: Request) -> Reply:
        seen.append(request)
        return Reply(body=b'{"status":"succeeded","context":{"output":"plain","encrypted_output":"secret"}}')

    client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(reply))
    text = '{ "query" :"x"}'
    fiber = await client.formulas.call(URI, "web_search", text)
    assert seen[0].url == "https://api.moonshot.ai/v1/formulas/moonshot/web-search:latest/fibers"
    assert json.loads(seen[0].body) == {"name": "web_search", "arguments": text}  # type: ignore[arg-type]
    assert fiber.content == "plain"


@pytest.mark.parametrize("uri", ["", "web-search", "a/b/c", "../x", "a/..", "a/b?x", "a/b:c/../d", "a /b"])
async def test_formulas_refuses_what_is_no_uri(uri: str) -> None:
    """A URI cannot lead out of its place in the path."""
    client = AsyncKimi(api_key="sk-test")
    with pytest.raises(ConfigurationError, match="not the URI of a formula"):
        await client.formulas.tools(uri)
    await client.close()


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({"status": "succeeded", "context": {"encrypted_output": "e"}}, "e"),
        ({"status": "succeeded", "context": {"output": ""}}, ""),
        ({"status": "succeeded"}, ""),
        ({"status": "failed", "error": {"message": "m"}}, "Error: m"),
        ({"status": "failed", "context": {"error": "c"}}, "Error: c"),
        ({"status": "timeout"}, "Error: the tool ended with status 'timeout'"),
    ],
)
def test_fiber_content(fields: dict[str, Any], content: str) -> None:
    """Output, plain or encrypted; of a failure, its error wherever it stands."""
    assert Fiber.model_validate(fields).content == content


async def test_signatures_prove_the_request(kimi_simulator: KimiSimulator) -> None:
    """A reply to a request with a nonce carries a signature that Kimi confirms; without, there is none."""
    async with AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client:
        nonce = new_nonce()
        ask: dict[str, Any] = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hi"}]}
        raw = await client.chat.completions.with_raw_response.create(
            **ask, extra_headers={NONCE_HEADER: nonce}
        )
        found = signature_of(raw)
        assert found is not None
        assert found.nonce == nonce
        assert found.signature.startswith("reqsigv1_")
        assert (await client.signatures.verify_response(raw, model="kimi-k3")).valid
        assert not await client.signatures.verify(
            nonce=nonce, timestamp=found.timestamp, model="kimi-k2.6", signature=found.signature
        )
        stream = await client.chat.completions.create(**ask, stream=True, extra_headers={NONCE_HEADER: nonce})
        async with stream:
            assert (await client.signatures.verify_response(stream, model="kimi-k3")).valid
        asked = len(kimi_simulator.requests)
        plain = await client.chat.completions.with_raw_response.create(**ask)
        assert not await client.signatures.verify_response(plain, model="kimi-k3")
        assert len(kimi_simulator.requests) == asked + 1
