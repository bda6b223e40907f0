"""
Spans and metrics: their names are the conventions', and they say what happened.
"""

import asyncio
import gc
import importlib
import json
import pkgutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi, tool
from kimi_async.testing import KimiService, MemoryTransport, Reply, in_memory
from kimi_async.testing.faults import Drop, Error, FaultPlan, SlowHeaders
from kimi_async.testing.simulator.chat_model import ToolCall, Turn
from kimi_async.testing.simulator.replies import Pace

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kimi_async.integrations.opentelemetry import OpenTelemetry

BASE = "https://api.moonshot.ai/v1"
QUESTION: dict[str, Any] = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}


pytestmark = pytest.mark.virtual_clock


class Telemetry:
    """Providers of our own, and what they were told."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider(metric_readers=[self.reader])
        self.middleware = OpenTelemetry(self.tracer_provider, self.meter_provider, **options)

    @property
    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[Any]:
        return list(self.metrics()[name].data.data_points)


@pytest.fixture
def told() -> Telemetry:
    return Telemetry()


@pytest.fixture
def service() -> KimiService:
    return KimiService(pace=Pace(first_token=2.0, tokens_per_second=10))


@pytest.fixture
async def client(service: KimiService, told: Telemetry) -> AsyncIterator[AsyncKimi]:
    async with AsyncKimi(
        base_url=BASE, api_key=service.api_key, transport=in_memory(service), middleware=[told.middleware]
    ) as client:
        yield client


def names_of_the_conventions() -> set[str]:
    """Every attribute and metric that the installed conventions know."""
    names: set[str] = set()
    for package in (
        "opentelemetry.semconv._incubating.attributes",
        "opentelemetry.semconv._incubating.metrics",
    ):
        folder = importlib.import_module(package)
        for module in pkgutil.iter_modules(folder.__path__):
            loaded = importlib.import_module(f"{package}.{module.name}")
            names |= {value for value in vars(loaded).values() if isinstance(value, str)}
    return names


async def test_chat_span_says_what_was_asked_and_answered(
    service: KimiService, client: AsyncKimi, told: Telemetry
) -> None:
    """The span of a whole answer has the attributes that the conventions require and recommend."""
    service.queue.append(Turn("Rivers bend.", "Think."))
    completion = await client.chat.completions.create(
        **QUESTION, max_completion_tokens=100, stop=["x"], prompt_cache_key="session-1", seed=7
    )

    (span,) = told.spans
    assert ("chat kimi-k3", trace.SpanKind.CLIENT) == (span.name, span.kind)
    assert completion.usage is not None
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "moonshot_ai",
        "gen_ai.request.model": "kimi-k3",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.request.seed": 7,
        "gen_ai.conversation.id": "session-1",
        "gen_ai.response.model": "kimi-k3",
        "gen_ai.response.id": completion.id,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": completion.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": completion.usage.completion_tokens,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "server.address": "api.moonshot.ai",
        "server.port": 443,
        "kimi.request_id": completion._request_id,
    } == dict(span.attributes)
    assert span.status.is_unset


async def test_streamed_chat_is_measured_to_its_end(
    service: KimiService, client: AsyncKimi, told: Telemetry
) -> None:
    """A stream's span ends with the stream, and knows how long the first chunk took, and each of the others."""
    service.queue.append(Turn("One two three four five six seven.", ""))
    service.faults = FaultPlan([SlowHeaders(seconds=2.0)])
    async with await client.chat.completions.create(**QUESTION, stream=True) as stream:
        async for _ in stream:
            assert [] == told.spans
    (span,) = told.spans

    assert span.attributes["gen_ai.request.stream"] is True
    assert ("stop",) == span.attributes["gen_ai.response.finish_reasons"]
    first = span.attributes["gen_ai.response.time_to_first_chunk"]
    assert 2.0 == pytest.approx(first, abs=0.2)
    (point,) = told.points("gen_ai.client.operation.time_to_first_chunk")
    assert first == point.sum
    (point,) = told.points("gen_ai.client.operation.time_per_output_chunk")
    (duration,) = told.points("gen_ai.client.operation.duration")
    assert (duration.sum - first) / (stream.chunks - 1) == pytest.approx(point.sum)


async def test_tokens_are_counted_by_type(client: AsyncKimi, told: Telemetry) -> None:
    """The token metric has one series for what went in and one for what came out."""
    completion = await client.chat.completions.create(**QUESTION)

    assert completion.usage is not None
    points = told.points("gen_ai.client.token.usage")
    assert {
        "input": completion.usage.prompt_tokens,
        "output": completion.usage.completion_tokens,
    } == {point.attributes["gen_ai.token.type"]: point.sum for point in points}
    assert {"kimi-k3"} == {point.attributes["gen_ai.response.model"] for point in points}


async def test_every_name_is_in_the_installed_conventions(service: KimiService, told: Telemetry) -> None:
    """No attribute and no metric is of our own making, but for those that begin with `kimi.`."""
    known = names_of_the_conventions()
    telling = Telemetry(capture_content=True)
    service.faults = FaultPlan(
        [None, None, None, Error("rpm", retry_after="1"), None, Error("invalid_request")]
    )
    service.queue.extend(
        [
            Turn("", "Hm.", (ToolCall("add:0", "add", '{"a": 1}'),)),
            Turn("Done.", "Well."),
            Turn("Hi."),
            Turn("Yes"),
        ]
    )

    @tool
    def add(a: int) -> int:
        """Adds."""
        return a + 1

    async with AsyncKimi(
        base_url=BASE, api_key=service.api_key, transport=in_memory(service), middleware=[telling.middleware]
    ) as client:
        await client.chat.completions.run_tools(**QUESTION, tools=[add])
        async with await client.chat.completions.create(
            **QUESTION,
            stream=True,
            temperature=1,
            top_p=0.95,
            n=1,
            prompt_cache_key="1",
            seed=1,
            stop="x",
            response_format={"type": "json_object"},
            frequency_penalty=0,
            presence_penalty=0,
            max_tokens=1000,
        ) as stream:
            async for _ in stream:
                pass
        await client.models.list()
        await client.files.create(file=("a.txt", b"x"), purpose="file-extract")
        await client.chat.completions.create(**QUESTION)
        with pytest.raises(Exception, match="malformed"):
            await client.chat.completions.create(**QUESTION)

    used = {name for span in telling.spans for name in span.attributes}
    used |= {
        name
        for metric in telling.metrics().values()
        for point in metric.data.data_points
        for name in point.attributes
    }
    used |= set(telling.metrics())
    assert {
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.definitions",
        "gen_ai.tool.call.arguments",
        "gen_ai.request.temperature",
        "gen_ai.output.type",
        "error.type",
    } <= used
    assert {"kimi.request_id", "kimi.attempts"} == {name for name in used if name not in known}


def test_metrics_have_the_units_of_the_conventions(told: Telemetry) -> None:
    """Each instrument is declared as the conventions declare it."""
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

    theirs = MeterProvider(metric_readers=[])
    meter = theirs.get_meter("theirs")
    makers = [
        (gen_ai_metrics.create_gen_ai_client_operation_duration, told.middleware._duration),
        (gen_ai_metrics.create_gen_ai_client_token_usage, told.middleware._tokens),
        (gen_ai_metrics.create_gen_ai_client_operation_time_to_first_chunk, told.middleware._first_chunk),
        (gen_ai_metrics.create_gen_ai_client_operation_time_per_output_chunk, told.middleware._per_chunk),
    ]
    for make, ours in makers:
        their: Any = make(meter)
        mine: Any = ours
        assert (their.name, their.unit) == (mine.name, mine.unit)


async def test_retries_are_inside_the_span(service: KimiService, client: AsyncKimi, told: Telemetry) -> None:
    """One span a call, however often it is sent, and it says how often."""
    service.faults = FaultPlan([Error("unavailable", retry_after="1")])
    await client.chat.completions.create(**QUESTION)

    (span,) = told.spans
    assert 2 == span.attributes["kimi.attempts"]
    assert "error.type" not in span.attributes


async def test_refusal_is_an_error_of_the_server_s_name(
    service: KimiService, client: AsyncKimi, told: Telemetry
) -> None:
    """A refused call ends its span with the server's word for it, in the metric too."""
    service.faults = FaultPlan([Error("invalid_request")])
    with pytest.raises(Exception, match="malformed"):
        await client.chat.completions.create(**QUESTION)

    (span,) = told.spans
    assert "invalid_request_error" == span.attributes["error.type"]
    assert not span.status.is_ok
    (point,) = told.points("gen_ai.client.operation.duration")
    assert "invalid_request_error" == point.attributes["error.type"]


async def test_connection_error_is_named(told: Telemetry) -> None:
    """A call without a reply ends its span with the name of the error, which shows no key."""

    async def handler(_: Any) -> Reply:
        raise ConnectionResetError("sk-secret-0123456789")

    async with AsyncKimi(
        base_url=BASE,
        api_key="sk-secret-0123456789",
        max_retries=0,
        transport=MemoryTransport(handler),
        middleware=[told.middleware],
    ) as client:
        with pytest.raises(Exception, match="onnection"):
            await client.chat.completions.create(**QUESTION)

    (span,) = told.spans
    assert "APIConnectionError" == span.attributes["error.type"]
    assert "0123456789" not in span.to_json()


async def test_broken_stream_is_an_error_with_what_was_known(
    service: KimiService, client: AsyncKimi, told: Telemetry
) -> None:
    """A stream that breaks off ends its span with the error."""
    service.faults = FaultPlan([Drop(after_events=3, how="fin")])
    with pytest.raises(Exception, match="before"):
        async for _ in await client.chat.completions.create(**QUESTION, stream=True):
            pass

    (span,) = told.spans
    assert "IncompleteStreamError" == span.attributes["error.type"]


@pytest.mark.parametrize("leave", ["close", "drop"])
async def test_stream_left_early_ends_its_span(client: AsyncKimi, told: Telemetry, leave: str) -> None:
    """A stream that is closed, or merely dropped, ends its span, and is not kept alive by it."""
    stream = await client.chat.completions.create(**QUESTION, stream=True)
    async for _ in stream:
        break
    if leave == "close":
        await stream.close()
    else:
        gc.disable()
        try:
            with pytest.warns(ResourceWarning):
                del stream
        finally:
            gc.enable()

    (span,) = told.spans
    assert "error.type" not in span.attributes


async def test_cancelled_call_ends_its_span(client: AsyncKimi, told: Telemetry) -> None:
    """A cancelled call is an error of that name, and the cancellation passes."""
    task = asyncio.create_task(client.chat.completions.create(**QUESTION))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ["CancelledError"] == [span.attributes["error.type"] for span in told.spans]


async def test_context_goes_to_the_server_and_to_what_happens_inside(
    service: KimiService, told: Telemetry
) -> None:
    """The request carries the span's `traceparent`, and spans made on the way are its children. Baggage stays here."""
    from opentelemetry import baggage, context

    inner: list[int] = []
    transport = in_memory(service)

    async def inside(request: Any, send: Any) -> Any:
        inner.append(trace.get_current_span().get_span_context().span_id)
        return await send(request)

    token = context.attach(baggage.set_baggage("secret", "value"))
    try:
        async with AsyncKimi(
            base_url=BASE, api_key=service.api_key, transport=transport, middleware=[told.middleware, inside]
        ) as client:
            with told.tracer_provider.get_tracer("test").start_as_current_span("outer") as outer:
                await client.chat.completions.create(**QUESTION)
                assert outer is trace.get_current_span()
    finally:
        context.detach(token)

    span = next(each for each in told.spans if each.name == "chat kimi-k3")
    assert outer.get_span_context().span_id == span.parent.span_id
    assert [span.context.span_id] == inner
    sent = transport.requests[0].headers
    assert f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}" == sent["traceparent"][:-3]
    assert int(sent["traceparent"][-2:], 16) & 1  # sampled
    assert "baggage" not in sent


async def test_tools_have_spans_of_their_own(
    service: KimiService, client: AsyncKimi, told: Telemetry
) -> None:
    """Each tool that `run_tools` runs has a span, with its error if it raised."""
    service.queue.extend(
        [Turn("", "", (ToolCall("a:0", "good", "{}"), ToolCall("b:1", "bad", "{}"))), Turn("Done.")]
    )

    @tool
    def good() -> str:
        """Works."""
        assert "execute_tool good" == trace.get_current_span().name  # type: ignore[attr-defined]
        return "ok"

    @tool
    def bad() -> str:
        """Raises."""
        raise LookupError("no")

    await client.chat.completions.run_tools(**QUESTION, tools=[good, bad])

    spans = {span.name: span for span in told.spans}
    assert {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "good",
        "gen_ai.tool.call.id": "a:0",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.description": "Works.",
    } == dict(spans["execute_tool good"].attributes)
    assert spans["execute_tool bad"].attributes["error.type"] != ""
    assert not spans["execute_tool bad"].status.is_ok


async def test_files_and_batches_have_spans(client: AsyncKimi, told: Telemetry) -> None:
    """Other calls have one span each, whose name holds no id."""
    file = await client.files.create(file=("a.txt", b"text"), purpose="file-extract")
    await client.files.retrieve(file.id)
    await client.files.content(file.id)
    await client.files.delete(file.id)
    await client.batches.list()

    assert ["upload_file", "retrieve_file", "download_file", "delete_file", "list_batches"] == [
        span.name for span in told.spans
    ]


async def test_content_is_captured_only_where_asked_for(service: KimiService, told: Telemetry) -> None:
    """Without `capture_content` no word of prompt or answer is in a span; with it they stand in the conventions' shape."""
    telling = Telemetry(capture_content=True)
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Look.",
            "tool_calls": [ToolCall("w:0", "weather", '{"city": "Oslo"}').wire()],
        },
        {"role": "tool", "tool_call_id": "w:0", "content": "sunny"},
    ]
    for each in (told, telling):
        service.queue.append(Turn("Sunny day.", "Easy one."))
        async with AsyncKimi(
            base_url=BASE, api_key=service.api_key, transport=in_memory(service), middleware=[each.middleware]
        ) as client:
            await client.chat.completions.create(model="kimi-k3", messages=messages)

    plain = told.spans[0].to_json()
    assert not any(word in plain for word in ("brief", "Weather", "Oslo", "Sunny", "Easy"))
    attributes = telling.spans[0].attributes
    assert [{"type": "text", "content": "Be brief."}] == json.loads(attributes["gen_ai.system_instructions"])
    assert [
        {"role": "user", "parts": [{"type": "text", "content": "Weather?"}, {"type": "image_url"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Look."},
                {"type": "tool_call", "id": "w:0", "name": "weather", "arguments": {"city": "Oslo"}},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "w:0", "response": "sunny"}]},
    ] == json.loads(attributes["gen_ai.input.messages"])
    assert [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Easy one."},
                {"type": "text", "content": "Sunny day."},
            ],
            "finish_reason": "stop",
        }
    ] == json.loads(attributes["gen_ai.output.messages"])


async def test_calls_through_httpx_are_seen(client: AsyncKimi, told: Telemetry) -> None:
    """What comes through another client over ours has the same spans."""
    pytest.importorskip("httpx")
    from kimi_async.integrations.httpx import httpx_client

    async with httpx_client(client, "httpx") as http:
        await http.post("chat/completions", json=QUESTION)
        await http.post("chat/completions", json={**QUESTION, "stream": True})

    assert ["chat kimi-k3", "chat kimi-k3"] == [span.name for span in told.spans]
    assert all(span.attributes["gen_ai.response.finish_reasons"] == ("stop",) for span in told.spans)
    assert all(span.attributes["gen_ai.usage.output_tokens"] > 0 for span in told.spans)


async def test_global_providers_are_used_where_none_are_given(service: KimiService) -> None:
    """Without a provider set up anywhere, calls work and nothing is recorded."""
    async with AsyncKimi(
        base_url=BASE, api_key=service.api_key, transport=in_memory(service), middleware=[OpenTelemetry()]
    ) as client:
        assert (await client.chat.completions.create(**QUESTION)).choices
