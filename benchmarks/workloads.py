"""
What is measured: each workload is a shape, a way to drive a client through it, and the figures that come out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks import shapes
from benchmarks.clients.base import Peer
from benchmarks.measure import Cost, cost_of, percentile, resident
from benchmarks.shapes import Shape

__all__ = ["WORKLOADS", "Bench", "Mismatch", "Workload"]


class Mismatch(AssertionError):
    """The client did not deliver what was sent: it has no time worth reporting."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a workload needs from the process it runs in."""

    port: int
    quick: bool
    stats: Callable[[], dict[str, float]]
    """The server's counters, over a connection that is not measured."""
    prepare: Callable[[str], object]
    """Has the server render a shape before it is asked for."""

    def base(self, shape: Shape) -> str:
        """Where a client finds this shape."""
        self.prepare(shape.name)
        return f"http://127.0.0.1:{self.port}/{shape.name}"

    @property
    def seconds(self) -> float:
        """How long a repeated measurement goes on, at least."""
        return 0.15 if self.quick else 1.0


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    unit: str
    metric: str
    """The figure that stands in the table and the picture; lower is better."""
    path: str
    """Which path of a client this exercises, in words."""
    drive: Callable[[type[Peer], Bench, Workload], Awaitable[dict[str, float]]] | None
    size: int = 0
    quick_size: int = 0
    streams: int = 1
    rate: int = 0
    per_write: int = 1
    kind: shapes.Kind = "text"
    prompt_size: int = 50
    answer_size: int = 40
    seed: int = shapes.SEED
    quick: bool = True
    """Part of `--quick`."""
    alone: bool = False
    """In a process of its own even in `--quick`: it measures memory."""
    quick_rounds: int | None = None
    """Fewer rounds in `--quick`, where a run takes seconds whatever the client does."""
    only: frozenset[str] = field(default_factory=frozenset)
    """The clients that take part; empty: all."""

    def amount(self, bench: Bench) -> int:
        """The number of deltas, calls or streams."""
        return self.quick_size if bench.quick and self.quick_size else self.size


def _expect(expected: object, actual: object) -> None:
    if expected != actual:
        raise Mismatch(f"sent {str(expected)[:60]!r}, received {str(actual)[:60]!r}")


def _per(cost: Cost, units: int) -> dict[str, float]:
    return {
        "cpu_us": cost.cpu / units * 1e6,
        "wall_us": cost.wall / units * 1e6,
        "units": units,
        "wall_s": cost.wall,
    }


async def _opened(peer: type[Peer], base: str) -> Peer:
    client = peer(base)
    await client.open()
    return client


async def stream(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """One stream at a time, as fast as the socket goes, through plain iteration."""
    events = max(workload.amount(bench) // peer.heavy, 200)
    shape = Shape(workload.kind, events=events, per_write=workload.per_write)
    client = await _opened(peer, bench.base(shape))
    method: Callable[[], Awaitable[object]] = getattr(client, workload.kind)
    expected: object = shapes.arguments_of(shape) if workload.kind == "tools" else len(shapes.text_of(shape))

    async def once() -> None:
        _expect(expected, await method())

    try:
        await once()
        cost, times = await cost_of(once, seconds=bench.seconds)
    finally:
        await client.close()
    return _per(cost, times * events)


async def helper(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """One stream at a time, accumulated with what the library offers for it."""
    events = max(workload.amount(bench) // peer.heavy, 200)
    shape = Shape("text", events=events, per_write=workload.per_write)
    client = await _opened(peer, bench.base(shape))
    expected = shapes.text_of(shape)

    async def once() -> None:
        _expect(expected, await client.helper())

    try:
        await once()
        cost, times = await cost_of(once, seconds=bench.seconds)
    finally:
        await client.close()
    return _per(cost, times * events)


async def calls(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """Requests without stream: `streams` of them at a time."""
    shape = Shape("reply", size=workload.answer_size)
    client = await _opened(peer, bench.base(shape))
    line = 'the "moon"\n'
    messages = [{"role": "user", "content": line * (workload.prompt_size // len(line))}]

    async def row(count: int) -> None:
        for _ in range(count):
            _expect(shape.size, await client.call(messages))

    each = max(workload.amount(bench) // workload.streams, 1)

    async def once() -> None:
        if workload.streams == 1:
            await row(each)
        else:
            await asyncio.gather(*(row(each) for _ in range(workload.streams)))

    try:
        await once()
        cost, times = await cost_of(once, seconds=bench.seconds)
    finally:
        await client.close()
    return _per(cost, times * each * workload.streams)


async def first_token(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """From the call to the first text in the user's hands, when the server answers at once; connections are warm."""
    shape = Shape("text", events=2)
    client = await _opened(peer, bench.base(shape))
    took: list[float] = []

    async def once() -> None:
        first: list[float] = []
        began = time.perf_counter()
        await client.follow(lambda text: first or first.append(time.perf_counter()))
        took.append((first[0] - began) * 1e6)

    try:
        for _ in range(10):
            await once()
        took.clear()
        with Cost() as cost:
            for _ in range(workload.amount(bench)):
                await once()
    finally:
        await client.close()
    return {**_per(cost, len(took)), "p50_us": percentile(took, 0.5), "p99_us": percentile(took, 0.99)}


async def reuse(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """Streams in a row whose last bytes come 5 ms after `[DONE]`, as from the real host: connections opened."""
    count = workload.amount(bench)
    shape = Shape("text", events=5, late_ms=5)
    before = bench.stats()["accepted"]
    client = await _opened(peer, bench.base(shape))
    try:
        with Cost() as cost:
            for _ in range(count):
                _expect(len(shapes.text_of(shape)), await client.text())
    finally:
        await client.close()
    # The connection that asks for the counters is kept; `prepare` and `stats` share it.
    return {**_per(cost, count), "connections": bench.stats()["accepted"] - before}


class _Meter:
    """Counts the deltas of many paced streams; reads the clocks at the first and the last of them."""

    def __init__(self, streams: int, events: int, stamped: bool) -> None:
        self.left = streams * events
        self.stamped = stamped
        self.arrivals: list[list[tuple[int, int]]] = []
        self.begun: Callable[[], object] = lambda: None
        self.before = 0
        """Deltas that come before the clocks are read."""
        self.cpu = self.wall = 0.0
        self._started = False

    def stream(self) -> Callable[[str], object]:
        """The function that one stream calls with its texts."""
        if not self.stamped:
            return self._count
        arrivals: list[tuple[int, int]] = []
        self.arrivals.append(arrivals)

        def each(text: str) -> None:
            arrivals.append((int(text), time.monotonic_ns() // 1000))
            self._count(text)

        return each

    def _count(self, text: str) -> None:
        if not self._started:
            if self.before > 0:
                self.before -= 1
            else:
                self._started = True
                self.begun()
                self._wall, self._cpu = time.perf_counter(), time.process_time()
        self.left -= 1
        if self.left == 0:
            self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall


async def _together(client: Peer, meter: _Meter, streams: int, patience: float) -> int:
    """Runs that many streams at once, opened a hundred at a time; how many failed."""
    tasks = []
    for number in range(streams):
        tasks.append(asyncio.create_task(client.follow(meter.stream())))
        if number % 100 == 99:
            await asyncio.sleep(0.01)
    # A client that queues connections it was told not to queue would wait for the server, and the server for it.
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), patience)
    failures = [result for result in results if isinstance(result, BaseException)]
    if len(failures) == streams:
        raise failures[0]
    return len(failures)


async def paced(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """Many streams, each token a packet, at the pace of a model: latency added, gaps between tokens, CPU."""
    events, streams = workload.amount(bench), workload.streams
    stamped = workload.kind == "stamped"
    warm = await _opened(peer, bench.base(Shape("text", events=200)))
    await warm.text()
    await warm.close()
    shape = Shape(workload.kind, events=events, rate=workload.rate, together=streams, seed=workload.seed)
    client = await _opened(peer, bench.base(shape))
    meter = _Meter(streams, events, stamped)
    try:
        failed = await _together(client, meter, streams, 30 + 4 * events / workload.rate)
    finally:
        await client.close()
    _expect(0, failed)
    _expect(0, meter.left)
    units = streams * events - 1
    found: dict[str, float] = {
        "cpu_us": meter.cpu / units * 1e6,
        "wall_us": meter.wall / units * 1e6,
        "units": units,
        "core_share": meter.cpu / meter.wall,
        "wall_s": meter.wall,
    }
    if stamped:
        latencies = [(seen - sent) / 1000 for arrivals in meter.arrivals for sent, seen in arrivals]
        gaps = [
            (later[1] - sooner[1]) / 1000 - 1000 / workload.rate
            for arrivals in meter.arrivals
            for sooner, later in pairwise(arrivals)
        ]
        found |= {
            "latency_p50_ms": percentile(latencies, 0.5),
            "latency_p99_ms": percentile(latencies, 0.99),
            "gap_p99_ms": percentile(gaps, 0.99),
        }
    return found


async def final(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """Many streams at the pace of a model, read for nothing but their end; from the first call to the last answer."""
    events, streams = workload.amount(bench), workload.streams
    shape = Shape("text", events=events, rate=workload.rate, together=streams, seed=workload.seed)
    expected = len(shapes.text_of(shape))
    client = await _opened(peer, bench.base(shape))
    try:
        with Cost() as cost:
            sizes = await asyncio.gather(*(client.final() for _ in range(streams)))
    finally:
        await client.close()
    for size in sizes:
        _expect(expected, size)
    return {**_per(cost, streams * events), "core_share": cost.cpu / cost.wall}


async def fair(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """
    Streams at full speed, and beside them a task that wants to run every millisecond: how long it waited at worst.

    In the CPU time of this process, so that what else runs on the machine does not count.
    """
    events = max(workload.amount(bench) // peer.heavy, 1_000)
    shape = Shape("text", events=events, per_write=workload.per_write)
    expected = len(shapes.text_of(shape))
    client = await _opened(peer, bench.base(shape))
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = time.process_time()
            await asyncio.sleep(0.001)
            worst = max(worst, time.process_time() - before)

    try:
        _expect(expected, await client.text())
        ticking = asyncio.create_task(tick())
        with Cost() as cost:
            sizes = await asyncio.gather(*(client.text() for _ in range(workload.streams)))
        ticking.cancel()
    finally:
        await client.close()
    for size in sizes:
        _expect(expected, size)
    return {**_per(cost, workload.streams * events), "worst_ms": worst * 1e3}


async def many(peer: type[Peer], bench: Bench, workload: Workload) -> dict[str, float]:
    """Streams open at once in one process: resident memory each, and whether every one delivered its text."""
    streams = workload.quick_size if bench.quick else workload.size
    warm = await _opened(peer, bench.base(Shape("text", events=200)))
    for _ in range(3):
        await warm.text()
    shape = Shape("text", events=3, rate=1 if streams > 2_000 else 5, together=streams)
    base = bench.base(shape)
    client = await _opened(peer, base)
    meter = _Meter(streams, shape.events, stamped=False)
    held = 0

    def begun() -> None:
        nonlocal held
        held = resident()

    meter.begun = begun
    # The server goes round: when one stream has its second delta, each has its first, and is in its user's hands.
    meter.before = streams
    before = resident()
    try:
        with Cost() as cost:
            failed = await _together(client, meter, streams, 60 + streams / 100)
    finally:
        await client.close()
        await warm.close()
    _expect(0, failed)
    _expect(0, meter.left)
    return {**_per(cost, streams), "kb_each": (held - before) / streams / 1024, "failed": failed}


_BURST = {
    "unit": "delta",
    "metric": "cpu_us",
    "drive": stream,
    "size": 20_000,
    "quick_size": 10_000,
    "quick_rounds": 1,
}

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            "burst1",
            path="one event a write, back to back: the transfer coding's own cost",
            per_write=1,
            **_BURST,
        ),
        Workload(
            "burst64",
            path="64 events a write: decoding, without the loop's cost",
            per_write=64,
            **(_BURST | {"size": 100_000, "quick_rounds": None}),
        ),
        Workload(
            "burst1024", path="1,024 events a write: the read buffer's bounds", per_write=1024, **_BURST
        ),
        Workload(
            "reasoning", path="reasoning_content in every delta", kind="reasoning", per_write=64, **_BURST
        ),
        Workload("tools", path="fragments of two parallel tool calls", kind="tools", per_write=64, **_BURST),
        Workload(
            "helper",
            path="the stream helper: accumulates the completion",
            per_write=64,
            **(_BURST | {"drive": helper, "quick_rounds": None}),
        ),
        Workload(
            "trickle",
            unit="delta",
            metric="cpu_us",
            path="one event a packet, 200 streams × 20 tokens/s",
            drive=paced,
            size=100,
            quick_size=40,
            streams=200,
            rate=20,
        ),
        *(
            Workload(
                f"paced{streams}",
                unit="delta",
                metric="gap_p99_ms",
                drive=paced,
                kind="stamped",
                size=100,
                quick_size=25,
                streams=streams,
                rate=50,
                quick=streams == 300,
                quick_rounds=1,
                path=f"{streams} streams × 50 tokens/s: p99 gap between tokens above 20 ms",
            )
            for streams in (10, 100, 300, 1000)
        ),
        Workload(
            "final",
            unit="delta",
            metric="cpu_us",
            path="300 streams × 50 tokens/s × 10 s, read for nothing but their end",
            drive=final,
            size=500,
            streams=300,
            rate=50,
            quick_rounds=1,
            only=frozenset({"kimi-async", "kimi-async-uvloop", "floor", "floor-uvloop", "openai"}),
        ),
        Workload(
            "fair",
            unit="other task",
            metric="worst_ms",
            path="16 streams at full speed: worst delay of a task that wants to run every millisecond",
            drive=fair,
            size=50_000,
            quick_size=10_000,
            streams=16,
            per_write=1024,
            quick_rounds=1,
        ),
        Workload(
            "small",
            unit="call",
            metric="cpu_us",
            path="a small request without stream, one at a time",
            drive=calls,
            size=50,
        ),
        Workload(
            "small64",
            unit="call",
            metric="cpu_us",
            path="the same, 64 at a time",
            drive=calls,
            size=640,
            quick_size=64,
            quick_rounds=1,
            streams=64,
        ),
        Workload(
            "large",
            unit="call",
            metric="cpu_us",
            path="a prompt of 1 MB, an answer of 100,000 characters",
            drive=calls,
            size=4,
            quick_size=2,
            quick_rounds=1,
            prompt_size=1_000_000,
            answer_size=100_000,
        ),
        Workload(
            "ttft",
            unit="stream",
            metric="p50_us",
            path="call to first text, on a warm connection",
            drive=first_token,
            size=600,
            quick_size=300,
        ),
        Workload(
            "reuse",
            unit="20 streams",
            metric="connections",
            path="connections that 20 streams in a row open",
            drive=reuse,
            size=20,
            quick_rounds=1,
        ),
        Workload(
            "many",
            unit="open stream",
            metric="kb_each",
            path="1,000 streams open (300 in --quick): memory of each",
            drive=many,
            size=1_000,
            quick_size=300,
            alone=True,
            quick_rounds=1,
        ),
        Workload(
            "many9000",
            unit="open stream",
            metric="kb_each",
            path="9,000 streams open: memory of each",
            drive=many,
            size=9_000,
            alone=True,
            quick=False,
            only=frozenset(
                {"kimi-async", "kimi-async-uvloop", "raw", "floor", "floor-uvloop", "aiohttp-json"}
            ),
        ),
        Workload(
            "import",
            unit="process",
            metric="cpu_ms",
            path="importing the client's class",
            drive=None,
            quick_rounds=1,
        ),
        Workload(
            "cold",
            unit="process",
            metric="cpu_ms",
            path="import, client, and a first small call",
            drive=None,
            quick=False,
        ),
    )
}
"""Every workload, in the order of the table. `drive` is None where a bare interpreter is measured instead (`cold.py`)."""
