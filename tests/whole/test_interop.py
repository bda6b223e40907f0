"""
Talks to an OpenAI-compatible server that we did not write. Opt-in: tests/README.md has the commands.

`KIMI_ASYNC_LITELLM` is the path of a `litellm` executable: its proxy is started with a mock answer.
`KIMI_ASYNC_INTEROP_URL` (with `_MODEL` and `_KEY`) is the base URL of a server that runs already, such as llama.cpp's.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from kimi_async import APIStatusError, AsyncKimi

LITELLM = os.environ.get("KIMI_ASYNC_LITELLM")
URL = os.environ.get("KIMI_ASYNC_INTEROP_URL")

pytestmark = pytest.mark.skipif(
    not (LITELLM or URL), reason="needs a server that we did not write; see tests/README.md"
)

ANSWER = "Rivers remember the mountains — 雪 and 🏔️ — that they left."


@dataclass(frozen=True)
class Server:
    base_url: str
    api_key: str
    model: str
    answer: str | None  # None: whatever it says


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if URL:
        model, key = (
            os.environ.get("KIMI_ASYNC_INTEROP_MODEL", "kimi"),
            os.environ.get("KIMI_ASYNC_INTEROP_KEY", "none"),
        )
        yield Server(URL, key, model, None)
        return
    assert LITELLM is not None
    home = tmp_path_factory.mktemp("litellm")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "config.yaml").write_text(
        "model_list:\n"
        "  - model_name: kimi-k3\n"
        f'    litellm_params: {{model: openai/kimi-k3, api_key: none, mock_response: "{ANSWER}"}}\n'
        "general_settings: {master_key: sk-interop}\n",
        "utf-8",
    )
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            [LITELLM, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_alive(f"http://127.0.0.1:{port}/health/liveliness", process, home / "log")
            yield Server(f"http://127.0.0.1:{port}/v1", "sk-interop", "kimi-k3", ANSWER)
        finally:
            process.terminate()
            process.wait(20)


def wait_until_alive(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    pause = threading.Event()  # another process starts: there is nothing here to wait for but its port
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            pause.wait(0.1)
    print(log.read_text("utf-8", "replace"), file=sys.stderr)
    raise AssertionError("the server did not start")


async def test_interop_create_returns_the_answer(server: Server) -> None:
    """A whole answer is decoded, with its usage."""
    async with AsyncKimi(base_url=server.base_url, api_key=server.api_key) as client:
        completion = await client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "Speak."}], max_tokens=64
        )

    assert "assistant" == completion.choices[0].message.role
    assert completion.choices[0].message.content
    assert server.answer in (None, completion.choices[0].message.content)
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0


async def test_interop_stream_is_complete(server: Server) -> None:
    """A streamed answer ends by itself, with a reason, and its text is what the server was told to say."""
    text, reasons = "", []
    async with AsyncKimi(base_url=server.base_url, api_key=server.api_key) as client:
        stream = await client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "Speak."}], max_tokens=64, stream=True
        )
        async for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasons.append(choice.finish_reason)

    assert text
    assert server.answer in (None, text)
    assert {"stop", "length"} & set(reasons)


async def test_interop_many_streams_at_once(server: Server) -> None:
    """Concurrent streams do not mix."""
    texts: list[str] = []

    async def one(client: AsyncKimi) -> None:
        async with client.chat.completions.stream(
            model=server.model, messages=[{"role": "user", "content": "Speak."}], max_tokens=16
        ) as stream:
            texts.append(await stream.get_final_text())

    async with (
        AsyncKimi(base_url=server.base_url, api_key=server.api_key) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(10):
            group.start_soon(one, client)

    assert 10 == len(texts)
    assert all(server.answer in (None, text) for text in texts)


async def test_interop_models_lists_the_model(server: Server) -> None:
    """The list of models is read."""
    async with AsyncKimi(base_url=server.base_url, api_key=server.api_key) as client:
        ids = [model.id async for model in client.models.list()]

    assert ids
    assert server.answer is None or server.model in ids


async def test_interop_refusal_is_a_status_error_with_its_message(server: Server) -> None:
    """A foreign server's refusal becomes a typed error that says what the server said."""
    async with AsyncKimi(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.post(
                "/chat/completions", cast_to=object, body={"model": server.model, "messages": "not a list"}
            )

    assert 400 <= caught.value.status_code < 600
    assert caught.value.message
