"""
What an event costs to cut out of the stream, by the branch of the decoder that its shape visits.

    python -m benchmarks.micro_sse

Each number is the best of several runs, in nanoseconds an event. "find+slice" is a bare `find(b"\\n\\n")` and a slice for each
of as many plain events, which checks nothing; "× bare" is payloads() over that.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable

from kimi_async.sse import SSEDecoder

EVENTS = 64
JSON = (
    b'{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1780000000,"model":"kimi-k2",'
    b'"choices":[{"index":0,"delta":{"content":" hello"},"finish_reason":null}],"system_fingerprint":"fpv0_0123"}'
)


def find_and_slice(stream: bytes) -> list[bytes]:
    out: list[bytes] = []
    pos = 6
    while (end := stream.find(b"\n\n", pos)) >= 0:
        out.append(stream[pos:end])
        pos = end + 8
    return out


def nanoseconds(read: Callable[[bytes], object], chunks: list[bytes], events: int) -> float:
    """
    Per event, the best of 9 runs of at least 20,000 events each.
    """
    rounds = max(1, 20_000 // events)
    best = float("inf")
    for _ in range(9):
        start = time.perf_counter_ns()
        for _ in range(rounds):
            for chunk in chunks:
                read(chunk)
        best = min(best, time.perf_counter_ns() - start)
    return best / rounds / events


def shapes() -> Iterable[tuple[str, list[bytes], int]]:
    """
    Name, the chunks that are fed again and again, and the events in them.
    """
    event = b"data: " + JSON + b"\n\n"
    stream = event * EVENTS
    yield "one event a chunk: split, nothing to split", [event], 1
    yield "8 events a chunk: split", [event * 8], 8
    yield "64 events a chunk: split", [stream], EVENTS
    yield "64 events, cut within the first and last", [stream[100:] + stream[:100]], EVENTS
    yield "64 events, CRLF: split", [stream.replace(b"\n", b"\r\n")], EVENTS
    yield "64 events, no space: line by line", [stream.replace(b"data: ", b"data:")], EVENTS
    yield (
        "64 events and comments: split refused, then lines",
        [stream.replace(event, event + b": ping\n\n")],
        EVENTS,
    )
    yield "64 events with types: line by line", [stream.replace(b"data", b"event: chunk\ndata")], EVENTS
    yield (
        "64 events in chunks of 100 bytes: held lines",
        [stream[i : i + 100] for i in range(0, len(stream), 100)],
        EVENTS,
    )


def main() -> None:
    print(
        f"CPython {platform.python_version()}, {platform.machine()}, events of {len(JSON)} bytes, ns an event\n"
    )
    print(f"{'shape':<52}{'payloads':>10}{'feed':>8}{'find+slice':>12}{'× bare':>8}")
    for name, chunks, events in shapes():
        bare = nanoseconds(find_and_slice, [(b"data: " + JSON + b"\n\n") * events], events)
        costs: list[float] = []
        for method in ("payloads", "feed"):
            decoder = SSEDecoder()
            read = getattr(decoder, method)
            for _ in range(2):  # a chunk may begin in mid-event, which the end of the one before completes
                got = sum(len(read(chunk)) for chunk in chunks)
            if got != events:
                sys.exit(f"{name}: {got} events, not {events}")
            costs.append(nanoseconds(read, chunks, events))
        print(f"{name:<52}{costs[0]:>10,.0f}{costs[1]:>8,.0f}{bare:>12,.0f}{costs[0] / bare:>8.2f}")


if __name__ == "__main__":
    main()
