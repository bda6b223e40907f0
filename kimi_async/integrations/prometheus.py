"""
Metrics for Prometheus.

    metrics = Prometheus()
    client = AsyncKimi(middleware=[metrics], hooks=[metrics.watch])
    metrics.follow(client)

    prometheus_client.start_http_server(9464)

The middleware counts calls and tokens and times streams; the hook counts retries and waits for limits; `follow` shows what a
client's limiter knows, read at each scrape. `docs/grafana.json` is a dashboard of all of it.

Labels have few values: a model's id, an operation (`chat`, `upload_file`, …), a cause. After a hundred models others are
counted as `other`.
"""

import asyncio
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..client import AsyncKimi
from ..middleware.chain import Handler
from ..middleware.events import Event, LimiterWaited, RetryScheduled
from ..middleware.rate_limit import Limiter
from ..transport.exchange import Request, Response
from .calls import Ending, error_type, model_of, target_of

__all__ = ["Prometheus"]

VALUES = 100
"""Models, and outcomes, that get a label of their own."""

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900)
FIRST = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
RATE = (1, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500)
WAIT = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900)


class _Series:
    """The series of one operation and model, looked up once: looking up by labels costs as much as all the rest."""

    def __init__(self, metrics: "Prometheus", operation: str, model: str) -> None:
        self._metrics, self._labels = metrics, (operation, model)
        self._outcomes: dict[str, Counter] = {}
        self.under_way: Gauge = metrics.under_way.labels(operation)
        self.duration: Histogram = metrics.duration.labels(operation, model)
        self.is_chat: bool = operation == "chat"
        if self.is_chat:
            self.open: Gauge = metrics.open.labels(model)
            self.first: Histogram = metrics.first.labels(model)
            self.rate: Histogram = metrics.rate.labels(model)
            self.tokens: dict[str, Counter] = {
                kind: metrics.tokens.labels(model, kind)
                for kind in ("input", "output", "cached", "reasoning")
            }

    def ended(self, outcome: str) -> Counter:
        found = self._outcomes.get(outcome)
        if found is None:
            outcome = self._metrics.outcome(outcome)
            found = self._outcomes[outcome] = self._metrics.calls.labels(*self._labels, outcome)
        return found

    def finish(self, ending: Ending, first: float | None, began: float, clock: Callable[[], float]) -> None:
        """Takes in how a call with a reply ended."""
        elapsed = clock() - began
        self.under_way.dec()
        if first is not None:
            self.open.dec()
        self.ended(ending.error or "ok").inc()
        self.duration.observe(elapsed)
        usage = ending.usage
        if usage is None or not self.is_chat:
            return
        # A counter refuses what is below 0, and no server's slip may fail a call that went well.
        self.tokens["input"].inc(max(0, usage.prompt_tokens))
        self.tokens["output"].inc(max(0, usage.completion_tokens))
        if (usage.cached_tokens or 0) > 0:
            self.tokens["cached"].inc(usage.cached_tokens)
        details = usage.completion_tokens_details
        if details is not None and (details.reasoning_tokens or 0) > 0:
            self.tokens["reasoning"].inc(details.reasoning_tokens)
        if first is not None and elapsed > first:
            self.rate.observe(usage.completion_tokens / (elapsed - first))


class Prometheus:
    """
    Metrics of all clients whose middleware it is.

    :param registry: in place of prometheus_client's own. A registry takes each name once: make one `Prometheus` a process.
    :param namespace: what names begin with.
    """

    per_call = True

    def __init__(self, registry: CollectorRegistry | None = None, *, namespace: str = "kimi") -> None:
        registry = REGISTRY if registry is None else registry
        self._namespace = namespace
        self._models: set[str] = set()
        self._outcomes: set[str] = {"ok"}
        self._series: dict[tuple[str, str], _Series] = {}
        self._followed: dict[str, weakref.ref[Limiter]] = {}

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, namespace=namespace, registry=registry, buckets=buckets)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=namespace, registry=registry)

        self.calls: Counter = counter(
            "calls",
            "Calls that have ended, retries inside them not counted.",
            "operation",
            "model",
            "outcome",
        )
        self.tokens: Counter = counter(
            "tokens",
            "Tokens charged; `cached` is part of `input`, `reasoning` of `output`.",
            "model",
            "type",
        )
        self.retries: Counter = counter(
            "retries", "Requests sent again, by what had failed.", "model", "cause"
        )
        self.open: Gauge = Gauge(
            "streams_open",
            "Streams that have begun and not ended.",
            ("model",),
            namespace=namespace,
            registry=registry,
        )
        self.under_way: Gauge = Gauge(
            "calls_under_way",
            "Calls that have begun and not ended, those that queue for a limit included.",
            ("operation",),
            namespace=namespace,
            registry=registry,
        )
        self.duration: Histogram = histogram(
            "call_seconds", "From the call to the end of its reply.", ("operation", "model"), SECONDS
        )
        self.first: Histogram = histogram(
            "first_token_seconds", "From the call to the first event of its stream.", ("model",), FIRST
        )
        self.rate: Histogram = histogram(
            "tokens_per_second",
            "Tokens of a streamed answer by the seconds since its first event.",
            ("model",),
            RATE,
        )
        self.waits: Histogram = histogram(
            "limit_wait_seconds",
            "Waits for a limit before a request was sent, by the limit.",
            ("reason",),
            WAIT,
        )
        registry.register(self)

    def follow(self, client: AsyncKimi, name: str = "default") -> None:
        """
        Shows the state of a client's limiter under a name, as long as it lives.

        The limiter is that of the client's key and address; a view with another key has its own.
        """
        self._followed[name] = weakref.ref(client.limiter)

    def watch(self, event: Event) -> None:
        """A hook: retries, and waits for limits."""
        if isinstance(event, RetryScheduled):
            self.retries.labels(self._label(event.model), event.cause).inc()
        elif isinstance(event, LimiterWaited):
            self.waits.labels(event.reason).observe(event.wait)

    async def __call__(self, request: Request, send: Handler) -> Response:
        clock = asyncio.get_running_loop().time
        began = clock()
        operation = target_of(request.method, request.url).operation
        model = self._label(model_of(request.body)) if operation == "chat" else ""
        series = self._series.get((operation, model))
        if series is None:
            series = self._series[operation, model] = _Series(self, operation, model)
        series.under_way.inc()
        try:
            response = await send(request)
        except BaseException as exc:
            series.under_way.dec()
            series.ended(error_type(exc)).inc()
            series.duration.observe(clock() - began)
            raise
        ending = Ending(response)
        first: float | None = None
        if ending.is_stream and series.is_chat:
            first = clock() - began
            series.first.observe(first)
            series.open.inc()
        response.on_close(partial(series.finish, ending, first, began, clock))
        return response

    def _label(self, model: str | None) -> str:
        return self._few(self._models, model) if model else ""

    def outcome(self, outcome: str) -> str:
        """An outcome as a label."""
        return self._few(self._outcomes, outcome)

    def _few(self, known: set[str], label: str) -> str:
        if label not in known:
            if len(known) >= VALUES or len(label) > 100:
                return "other"
            known.add(label)
        return label

    # --- the limiter, asked at each scrape ------------------------------------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not ask limiters that are not there yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What the limiters know now; called by the registry."""

        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"{self._namespace}_limiter_{name}", text, labels=("client", *labels))

        waiting = gauge("waiting", "Requests in the queue.")
        in_flight = gauge("in_flight", "Requests under way.")
        eta = gauge("eta_seconds", "Until a request that came now would be sent, as far as can be told.")
        gate = gauge("gate_seconds", "For which the server still wants silence.")
        overloaded = gauge("overloaded", "1 while only probes are sent, because the service has no capacity.")
        limit = gauge("limit", "A limit as it is believed to be; absent while unknown.", "limit")
        allowed = gauge("allowed", "How much of a limit is ours now.", "limit")
        used = gauge("used", "Of the current minute, or day, or slots.", "limit")
        admitted = CounterMetricFamily(
            f"{self._namespace}_limiter_admitted", "Requests admitted.", labels=("client",)
        )
        refused = CounterMetricFamily(
            f"{self._namespace}_limiter_refused",
            "Requests refused, for a limit or for lack of capacity.",
            labels=("client",),
        )
        for name, ref in list(self._followed.items()):
            limiter = ref()
            if limiter is None:
                del self._followed[name]
                continue
            stats = limiter.stats()
            waiting.add_metric([name], stats.waiting)
            in_flight.add_metric([name], stats.in_flight)
            eta.add_metric([name], stats.eta)
            gate.add_metric([name], stats.gate)
            overloaded.add_metric([name], float(stats.overloaded))
            admitted.add_metric([name], stats.admitted)
            refused.add_metric([name], stats.refused)
            for kind, state in (
                ("concurrency", stats.concurrency),
                ("rpm", stats.rpm),
                ("tpm", stats.tpm),
                ("tpd", stats.tpd),
            ):
                used.add_metric([name, kind], state.used)
                if state.limit is not None:
                    limit.add_metric([name, kind], state.limit)
                if state.allowed is not None:
                    allowed.add_metric([name, kind], state.allowed)
        families: list[Any] = [
            waiting,
            in_flight,
            eta,
            gate,
            overloaded,
            limit,
            allowed,
            used,
            admitted,
            refused,
        ]
        return families
