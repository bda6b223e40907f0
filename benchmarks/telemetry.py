"""
What watching costs: CPU of a call, and of a delta of a stream, without telemetry and with it.

    .venv/bin/python -m benchmarks.telemetry

No socket: replies come from memory, so that what is left is the client. `api` is OpenTelemetry without an SDK, where spans go
nowhere: our own share. `sdk` records spans (batched, exported to nowhere) and metrics: most of it is the SDK's, for one span
and three measurements a call. Rounds take turns, and the best of each is taken.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from kimi_async import AsyncKimi
from kimi_async.testing import MemoryTransport, Reply

CALLS, DELTAS, ROUNDS = 1000, 2000, 7
QUESTION: dict[str, Any] = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
USAGE = b'"usage":{"prompt_tokens":90,"completion_tokens":2,"total_tokens":92}'
ANSWER = (
    b'{"id":"1","object":"chat.completion","created":1,"model":"kimi-k3","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],' + USAGE + b"}"
)
HEAD = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"kimi-k3","choices":[{"index":0,'
)
DELTA = HEAD + b'"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
END = HEAD + b'"delta":{},"finish_reason":"stop",' + USAGE + b"}]}\n\ndata: [DONE]\n\n"


async def answer(request: Any) -> Reply:
    if request.stream:
        return Reply(headers={"Content-Type": "text/event-stream"}, body=[DELTA] * DELTAS + [END])
    return Reply(body=ANSWER)


def watchers() -> dict[str, Callable[[], dict[str, Any]]]:
    """Arguments of a client by how it is watched; what is not installed is left out with a word."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "off": dict,
        "hook": lambda: {"hooks": [lambda _: None]},
    }
    try:
        from kimi_async.integrations.opentelemetry import OpenTelemetry

        found["opentelemetry api"] = lambda: {"middleware": [OpenTelemetry()]}
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        def sdk() -> dict[str, Any]:
            traces = TracerProvider()
            traces.add_span_processor(BatchSpanProcessor(Nowhere()))
            return {"middleware": [OpenTelemetry(traces, MeterProvider([InMemoryMetricReader()]))]}

        found["opentelemetry sdk"] = sdk
    except ImportError as exc:
        print(f"without OpenTelemetry ({exc})")
    try:
        from prometheus_client import CollectorRegistry

        from kimi_async.integrations.prometheus import Prometheus

        def prometheus() -> dict[str, Any]:
            metrics = Prometheus(CollectorRegistry())
            return {"middleware": [metrics], "hooks": [metrics.watch]}

        found["prometheus"] = prometheus
    except ImportError as exc:
        print(f"without Prometheus ({exc})")
    return found


async def calls(client: AsyncKimi, transport: MemoryTransport) -> float:
    """Microseconds of CPU a call."""
    began = time.process_time()
    for _ in range(CALLS):
        await client.chat.completions.create(**QUESTION)
    transport.requests.clear()
    return (time.process_time() - began) / CALLS * 1e6


async def deltas(client: AsyncKimi, transport: MemoryTransport) -> float:
    """Microseconds of CPU a delta."""
    began = time.process_time()
    for _ in range(5):
        async with await client.chat.completions.create(**QUESTION, stream=True) as stream:
            async for _ in stream:
                pass
    transport.requests.clear()
    return (time.process_time() - began) / (5 * DELTAS) * 1e6


async def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    made: dict[str, tuple[AsyncKimi, MemoryTransport]] = {}
    for name, options in watchers().items():
        transport = MemoryTransport(answer)
        made[name] = AsyncKimi(api_key="sk-benchmark", transport=transport, **options()), transport
        await calls(*made[name])
    best = {name: (float("inf"), float("inf")) for name in made}
    for _ in range(ROUNDS):
        for name, one in made.items():
            best[name] = min(best[name][0], await calls(*one)), min(best[name][1], await deltas(*one))
    off = best["off"]
    print(f"{'':18}  µs a call      µs a delta")
    for name, (call, delta) in best.items():
        print(f"{name:18}  {call:6.1f} ({call - off[0]:+5.1f})  {delta:5.3f} ({delta - off[1]:+.3f})")
    for client, _ in made.values():
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
