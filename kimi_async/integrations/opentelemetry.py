"""
Traces and metrics after OpenTelemetry's conventions for generative AI.

    client = AsyncKimi(middleware=[OpenTelemetry()])

One span a call, retries and waits inside it: `chat kimi-k3` for chat, and one for each call about files, batches and the rest;
`execute_tool get_weather` for each tool that `run_tools` runs. The span is current while the call is made, and its W3C context
(`traceparent`, `tracestate`; no baggage, which is nobody else's business) goes to the server. Metrics are those of the
conventions. Neither prompts, answers nor keys are recorded, unless `capture_content` asks for the first two.

Names are written out here and compared in the tests with those of the installed `opentelemetry-semantic-conventions`, which
changes faster than it may be depended on.
"""

import asyncio
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import msgspec
from opentelemetry import context, metrics, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .._version import __version__
from ..errors import KimiError
from ..middleware.chain import Handler
from ..redact import redact, secrets_of
from ..tools.base import Tool
from ..transport.exchange import Request, Response
from ..types.completions import ChatCompletionMessageToolCall
from . import opentelemetry_content as content
from .calls import Ending, error_type, target_of

__all__ = ["OpenTelemetry"]

# The boundaries that the conventions ask for.
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_CHUNK = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_CHUNK = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

CLIENT = trace.SpanKind.CLIENT
_propagator = TraceContextTextMapPropagator()
_set_span = trace.set_span_in_context


class OpenTelemetry:
    """
    A middleware, one for as many clients as you like.

    :param tracer_provider: in place of the global one.
    :param meter_provider: in place of the global one.
    :param capture_content: record messages, answers and tool arguments too. They may hold what nobody should read in a trace.
    """

    per_call = True

    def __init__(
        self, tracer_provider: Any = None, meter_provider: Any = None, *, capture_content: bool = False
    ) -> None:
        self.capture_content: bool = capture_content
        self._tracer = trace.get_tracer("kimi_async", __version__, tracer_provider)
        meter = metrics.get_meter("kimi_async", __version__, meter_provider)

        def histogram(name: str, unit: str, description: str, boundaries: tuple[float, ...]) -> Any:
            return meter.create_histogram(
                name, unit, description, explicit_bucket_boundaries_advisory=list(boundaries)
            )

        self._duration = histogram(
            "gen_ai.client.operation.duration", "s", "GenAI operation duration.", SECONDS
        )
        self._tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", TOKENS
        )
        self._first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to receive the first chunk, measured from when the client issues the generation request to when the first "
            "chunk is received in the response stream.",
            FIRST_CHUNK,
        )
        self._per_chunk = histogram(
            "gen_ai.client.operation.time_per_output_chunk",
            "s",
            "Time per output chunk after the first one: the mean of a stream, recorded once at its end.",
            PER_CHUNK,
        )

    async def __call__(self, request: Request, send: Handler) -> Response:
        clock = asyncio.get_running_loop().time
        began = clock()
        target = target_of(request.method, request.url)
        operation = target.operation
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": target.provider,
            "server.address": target.address,
            "server.port": target.port,
        }
        name = operation
        if operation == "chat":
            asked = _asked(request.body)
            name = f"chat {asked.model}"
            attributes["gen_ai.request.model"] = asked.model
            measured = attributes.copy()
            _describe(attributes, asked)
            if self.capture_content:
                content.record_request(attributes, cast("bytes", request.body))
        else:
            measured = attributes.copy()
        span = self._tracer.start_span(name, kind=CLIENT, attributes=attributes)
        within = _set_span(span)
        _propagator.inject(cast("Any", request.headers), within)
        token = context.attach(within)
        try:
            response = await send(request)
        except BaseException as exc:
            self._failed(span, measured, exc, clock() - began, request)
            raise
        finally:
            context.detach(token)
        ending = Ending(response)
        first = clock() - began if ending.is_stream else None
        response.on_close(partial(self._ended, request, span, measured, ending, first, began, clock))
        return response

    @contextmanager
    def around_tool(self, call: ChatCompletionMessageToolCall, tool: Tool | None) -> Generator[None]:
        """Entered by `run_tools` around each tool: the span `execute_tool`."""
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.function.name,
            "gen_ai.tool.call.id": call.id,
            "gen_ai.tool.type": "function",
        }
        description: object = None if tool is None else tool.definition.get("function", {}).get("description")
        if isinstance(description, str):
            attributes["gen_ai.tool.description"] = description
        if self.capture_content:
            attributes["gen_ai.tool.call.arguments"] = call.function.arguments
        span = self._tracer.start_span(f"execute_tool {call.function.name}", attributes=attributes)
        token = context.attach(_set_span(span))
        try:
            yield
        except BaseException as exc:
            span.set_attribute("error.type", error_type(exc))
            span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            context.detach(token)
            span.end()

    def _failed(
        self,
        span: trace.Span,
        measured: dict[str, object],
        exc: BaseException,
        elapsed: float,
        request: Request,
    ) -> None:
        kind = measured["error.type"] = error_type(exc)
        span.set_attribute("error.type", kind)
        if request.history:
            span.set_attribute("kimi.attempts", len(request.history) + 1)
        span.set_status(trace.StatusCode.ERROR, redact(str(exc)) if isinstance(exc, KimiError) else None)
        span.end()
        self._duration.record(elapsed, measured)

    def _ended(
        self,
        request: Request,
        span: trace.Span,
        measured: dict[str, object],
        ending: Ending,
        first: float | None,
        began: float,
        clock: Callable[[], float],
    ) -> None:
        elapsed = clock() - began
        told: dict[str, Any] = {}
        if (request_id := ending.response.request_id) is not None:
            told["kimi.request_id"] = redact(request_id, secrets_of(request))
        if request.history:
            told["kimi.attempts"] = len(request.history) + 1
        error = ending.error
        if error is not None:
            told["error.type"] = measured["error.type"] = error
            fault = ending.fault
            span.set_status(
                trace.StatusCode.ERROR,
                f"{ending.response.status} {error}" if fault is None else redact(str(fault)),
            )
        elif measured["gen_ai.operation.name"] == "chat" and (said := ending.said) is not None:
            model, id, reasons = said
            measured["gen_ai.response.model"] = told["gen_ai.response.model"] = model
            if id:
                told["gen_ai.response.id"] = id
            if reasons:
                told["gen_ai.response.finish_reasons"] = reasons
            if self.capture_content and (answer := ending.answer) is not None:
                content.record_answer(told, answer)
        usage = ending.usage
        if usage is not None:
            _describe_usage(told, usage)
        if first is not None:
            told["gen_ai.response.time_to_first_chunk"] = first
        span.set_attributes(told)
        span.end()
        self._duration.record(elapsed, measured)
        if usage is not None:
            self._tokens.record(usage.prompt_tokens, {**measured, "gen_ai.token.type": "input"})
            self._tokens.record(usage.completion_tokens, {**measured, "gen_ai.token.type": "output"})
        if first is not None:
            self._first_chunk.record(first, measured)
            if ending.chunks > 1:
                # One record a chunk, as the conventions have it, costs several times what decoding the chunk does.
                self._per_chunk.record((elapsed - first) / (ending.chunks - 1), measured)


# --- what a request says ---------------------------------------------------------------------------------------------


class _Asked(msgspec.Struct):
    """What a span says of a chat request. Anything may stand there: it is the server's to refuse."""

    model: object = ""
    stream: object = None
    temperature: object = None
    top_p: object = None
    max_tokens: object = None
    max_completion_tokens: object = None
    frequency_penalty: object = None
    presence_penalty: object = None
    seed: object = None
    stop: object = None
    n: object = None
    response_format: object = None
    prompt_cache_key: object = None


_decode_asked = msgspec.json.Decoder(_Asked).decode
_NOTHING = _Asked()


def _asked(body: Any) -> _Asked:
    try:
        asked = _decode_asked(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        return _NOTHING
    if not isinstance(asked.model, str):
        asked.model = ""
    return asked


NUMBERS = (
    ("temperature", "gen_ai.request.temperature"),
    ("top_p", "gen_ai.request.top_p"),
    ("frequency_penalty", "gen_ai.request.frequency_penalty"),
    ("presence_penalty", "gen_ai.request.presence_penalty"),
    ("seed", "gen_ai.request.seed"),
    ("max_tokens", "gen_ai.request.max_tokens"),
    ("max_completion_tokens", "gen_ai.request.max_tokens"),
)


def _describe(attributes: dict[str, object], asked: _Asked) -> None:
    if asked.stream is True:
        attributes["gen_ai.request.stream"] = True
    for field, name in NUMBERS:
        value = getattr(asked, field)
        if isinstance(value, int | float):
            attributes[name] = value
    if isinstance(asked.n, int) and asked.n != 1:
        attributes["gen_ai.request.choice.count"] = asked.n
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if isinstance(stop, list):
        attributes["gen_ai.request.stop_sequences"] = [str(each) for each in cast("Iterable[object]", stop)]
    if isinstance(asked.prompt_cache_key, str):
        # Kimi's word for what belongs together: "the id of the session or task" (platform.kimi.ai/docs/api/chat).
        attributes["gen_ai.conversation.id"] = asked.prompt_cache_key
    form: object = asked.response_format
    if isinstance(form, dict):
        kind = cast("Any", form).get("type")
        attributes["gen_ai.output.type"] = "text" if kind == "text" else "json"


# --- what a reply says ----------------------------------------------------------------------------------------------


def _describe_usage(told: dict[str, object], usage: Any) -> None:
    told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
    told["gen_ai.usage.output_tokens"] = usage.completion_tokens
    cached = usage.cached_tokens
    if cached:
        told["gen_ai.usage.cache_read.input_tokens"] = cached
    details = usage.completion_tokens_details
    reasoning = None if details is None else details.reasoning_tokens
    if reasoning:
        told["gen_ai.usage.reasoning.output_tokens"] = reasoning
