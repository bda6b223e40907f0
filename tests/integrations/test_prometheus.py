"""
What Prometheus is told, and what it reads.
"""

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kimi_async import AsyncKimi, RateLimits
from kimi_async.testing import KimiService, MemoryTransport, Reply, in_memory
from kimi_async.testing.faults import Drop, Error, FaultPlan, SlowHeaders
from kimi_async.testing.simulator.chat_model import Turn
from kimi_async.testing.simulator.replies import Pace

prometheus_client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from kimi_async.integrations.prometheus import Prometheus  # noqa: E402

QUESTION: dict[str, Any] = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


pytestmark = pytest.mark.virtual_clock


@pytest.fixture
def registry() -> Any:
    return prometheus_client.CollectorRegistry()


@pytest.fixture
def metrics(registry: Any) -> Prometheus:
    return Prometheus(registry)


@pytest.fixture
def service() -> KimiService:
    return KimiService(pace=Pace(first_token=1.0, tokens_per_second=10))


def client_of(service: KimiService, metrics: Prometheus, **options: Any) -> AsyncKimi:
    return AsyncKimi(
        api_key=service.api_key,
        transport=in_memory(service),
        middleware=[metrics],
        hooks=[metrics.watch],
        **options,
    )


@pytest.fixture
async def client(service: KimiService, metrics: Prometheus) -> AsyncIterator[AsyncKimi]:
    async with client_of(service, metrics) as client:
        yield client


def value(registry: Any, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def test_calls_and_tokens_are_counted(service: KimiService, client: AsyncKimi, registry: Any) -> None:
    """A call that went well counts once, with its tokens by type and its duration."""
    service.queue.append(Turn("Rivers bend.", "Think."))
    usage = (await client.chat.completions.create(**QUESTION)).usage

    assert usage is not None
    assert 1 == value(registry, "kimi_calls_total", operation="chat", model="kimi-k3", outcome="ok")
    assert usage.prompt_tokens == value(registry, "kimi_tokens_total", model="kimi-k3", type="input")
    assert usage.completion_tokens == value(registry, "kimi_tokens_total", model="kimi-k3", type="output")
    assert 2 == value(registry, "kimi_tokens_total", model="kimi-k3", type="reasoning")
    assert 1 == value(registry, "kimi_call_seconds_count", operation="chat", model="kimi-k3")
    assert 0 == value(registry, "kimi_calls_under_way", operation="chat")


async def test_streams_are_timed(service: KimiService, client: AsyncKimi, registry: Any) -> None:
    """An open stream shows; when it has ended, so do its first event and its speed."""
    service.faults = FaultPlan([SlowHeaders(seconds=2.0)])
    async with await client.chat.completions.create(**QUESTION, stream=True) as stream:
        assert 1 == value(registry, "kimi_streams_open", model="kimi-k3")
        async for _ in stream:
            pass

    assert 0 == value(registry, "kimi_streams_open", model="kimi-k3")
    assert 2.0 == pytest.approx(value(registry, "kimi_first_token_seconds_sum", model="kimi-k3"), abs=0.1)
    rate = value(registry, "kimi_tokens_per_second_sum", model="kimi-k3")
    assert rate is not None
    assert 5 < rate < 15


async def test_failures_are_counted_by_what_they_were(
    service: KimiService, client: AsyncKimi, registry: Any
) -> None:
    """Refused, broken off and cancelled calls each count once, under their own word, and leave nothing under way."""
    service.faults = FaultPlan([Error("invalid_request"), Drop(after_events=3, how="fin")])
    with pytest.raises(Exception, match="malformed"):
        await client.chat.completions.create(**QUESTION)
    with pytest.raises(Exception, match="before"):
        async for _ in await client.chat.completions.create(**QUESTION, stream=True):
            pass
    task = asyncio.create_task(client.chat.completions.create(**QUESTION))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    for outcome in ("invalid_request_error", "IncompleteStreamError", "CancelledError"):
        assert 1 == value(registry, "kimi_calls_total", operation="chat", model="kimi-k3", outcome=outcome), (
            outcome
        )
    assert 0 == value(registry, "kimi_calls_under_way", operation="chat")
    assert 0 == value(registry, "kimi_streams_open", model="kimi-k3")


async def test_odd_replies_fail_no_call(registry: Any, metrics: Prometheus) -> None:
    """A server's slip in its usage, and a stream that is no chat, count as far as they make sense and raise nothing."""
    odd = {
        "id": "1", "object": "chat.completion", "created": 1, "model": "kimi-k3",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": -5, "completion_tokens": 2, "total_tokens": -3, "cached_tokens": -1},
    }  # fmt: skip

    async def handler(request: Any) -> Reply:
        if request.stream:
            return Reply(
                headers={"Content-Type": "text/event-stream"},
                body=[b'data: {"a": 1}\n\n', b"data: [DONE]\n\n"],
            )
        return Reply(body=json.dumps(odd))

    async with AsyncKimi(
        api_key="sk-test", transport=MemoryTransport(handler), middleware=[metrics]
    ) as client:
        assert (await client.chat.completions.create(**QUESTION)).choices
        stream = await client.post("/other", cast_to=dict, body={}, stream=True)
        assert [{"a": 1}] == [event async for event in stream]

    assert 2 == value(registry, "kimi_tokens_total", model="kimi-k3", type="output")
    assert 1 == value(registry, "kimi_calls_total", operation="post", model="", outcome="ok")


async def test_retries_are_counted_by_cause(service: KimiService, client: AsyncKimi, registry: Any) -> None:
    """A repeated request counts under what had failed, and under its model."""
    service.faults = FaultPlan([Error("unavailable", retry_after="1")])
    await client.chat.completions.create(**QUESTION)

    assert 1 == value(registry, "kimi_retries_total", model="kimi-k3", cause="unavailable")
    assert 1 == value(registry, "kimi_calls_total", operation="chat", model="kimi-k3", outcome="ok")


async def test_waits_and_limits_show(service: KimiService, metrics: Prometheus, registry: Any) -> None:
    """Seconds waited for a limit are counted by the limit, and the limiter's state is read at each scrape."""
    async with client_of(service, metrics, limits=RateLimits(concurrency=1)) as client:
        metrics.follow(client, "main")
        first = asyncio.create_task(client.chat.completions.create(**QUESTION))
        second = asyncio.create_task(client.chat.completions.create(**QUESTION))
        await asyncio.sleep(0.5)
        assert 1 == value(registry, "kimi_limiter_in_flight", client="main")
        assert 1 == value(registry, "kimi_limiter_waiting", client="main")
        assert 1 == value(registry, "kimi_limiter_limit", client="main", limit="concurrency")
        assert value(registry, "kimi_limiter_limit", client="main", limit="tpm") is None
        await asyncio.gather(first, second)

    assert 1 == value(registry, "kimi_limit_wait_seconds_count", reason="concurrency")
    waited = value(registry, "kimi_limit_wait_seconds_sum", reason="concurrency")
    assert waited is not None
    assert waited > 0.5
    assert 2 == value(registry, "kimi_limiter_admitted_total", client="main")


async def test_followed_client_is_not_kept_alive(
    service: KimiService, metrics: Prometheus, registry: Any
) -> None:
    """A client that is gone is gone from the metrics too."""
    import gc

    client = client_of(service, metrics)
    metrics.follow(client, "short")
    assert 0 == value(registry, "kimi_limiter_waiting", client="short")
    await client.close()
    del client
    gc.collect()

    assert value(registry, "kimi_limiter_waiting", client="short") is None


async def test_models_without_number_are_counted_together(
    service: KimiService, client: AsyncKimi, registry: Any, metrics: Prometheus
) -> None:
    """Whoever lets strangers name models does not fill the registry."""
    for number in range(110):
        metrics._label(f"model-{number}")
    with pytest.raises(Exception, match="model"):
        await client.chat.completions.create(model="one-more", messages=QUESTION["messages"])

    labels = {"operation": "chat", "model": "other", "outcome": "resource_not_found_error"}
    assert 1 == value(registry, "kimi_calls_total", **labels)


def test_dashboard_asks_for_metrics_that_there_are(registry: Any, metrics: Prometheus) -> None:
    """Every metric that the dashboard names exists."""
    metrics.follow(AsyncKimi(api_key="sk-test"))
    names = {
        sample
        for family in registry.collect()
        for sample in (family.name, *(each.name for each in family.samples))
    }
    known = names | {
        f"{name}{suffix}" for name in names for suffix in ("_total", "_bucket", "_sum", "_count")
    }
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"\bkimi_\w+", target["expr"])
    }

    assert len(asked) > 10
    assert set() == asked - known


@pytest.mark.frameworks
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus server on PATH")
async def test_real_server_scrapes_it(
    tmp_path: Path, metrics: Prometheus, service: KimiService, registry: Any
) -> None:
    """A Prometheus server reads the metrics, and answers the dashboard's questions with what was counted."""
    async with client_of(service, metrics) as client:
        metrics.follow(client)
        await client.chat.completions.create(**QUESTION)
        async with await client.chat.completions.create(**QUESTION, stream=True) as stream:
            async for _ in stream:
                pass
    await asyncio.to_thread(_scrape, tmp_path, registry)


def _scrape(folder: Path, registry: Any) -> None:
    server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
    port = server.server_port
    config = {
        "scrape_configs": [
            {
                "job_name": "kimi",
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            }
        ]
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    import socket
    import time

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = free.getsockname()[1]
    program = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{own}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                url = f"http://127.0.0.1:{own}/api/v1/query?query=sum(kimi_calls_total)"
                with urllib.request.urlopen(url, timeout=2) as reply:
                    result = json.load(reply)["data"]["result"]
                if result:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline, "nothing was scraped"
            time.sleep(0.2)
        assert "2" == result[0]["value"][1]
        for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                asked = target["expr"].replace("$__rate_interval", "1m")
                url = f"http://127.0.0.1:{own}/api/v1/query?" + urllib.parse.urlencode({"query": asked})
                with urllib.request.urlopen(url, timeout=2) as reply:
                    assert "success" == json.load(reply)["status"], asked
    finally:
        program.terminate()
        program.wait()
        server.shutdown()
        server.server_close()
        thread.join()
