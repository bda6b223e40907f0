"""
Streams that are read for their end, and who else gets the loop: `python -m benchmarks.gather`.

`final`: so many streams at the pace of a model, of which only the whole answer is wanted. CPU a delta of the client process, and how
much later than the server's last event the last answer is there; beside the loop that a good engineer writes by hand and, with
--openai, `AsyncOpenAI`. Rounds alternate.

`fair`: streams at full speed, and the worst delay of a task that wants to run every millisecond; over sockets, beside the loop written
by hand, and from memory.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.clients.base import MESSAGES, MODEL
from benchmarks.clients.by_hand import Floor
from benchmarks.clients.ours import Ours
from benchmarks.runner import server
from benchmarks.shapes import Shape


async def ours_final(client: Ours) -> int:
    async with client.client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        return len((await stream.get_final_completion()).choices[0].message.content or "")


async def floor_final(client: Floor) -> int:
    return await client.text()


async def openai_final(client: Any) -> int:
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    return sum([len(chunk.choices[0].delta.content or "") async for chunk in stream if chunk.choices])


async def final(address: str, who: str, streams: int, seconds: float) -> tuple[float, float]:
    """Microseconds of CPU a delta, and seconds until the last answer."""
    shape = Shape("text", events=int(seconds * 50), rate=50, together=streams, seed=7)
    base = f"{address}/{shape.name}"
    if who == "openai":
        import httpx
        import openai

        client: Any = openai.AsyncOpenAI(
            api_key="sk-bench",
            base_url=base + "/v1",
            http_client=httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60),
        )
        read: Any = openai_final
    else:
        client = (Ours if who == "ours" else Floor)(base)
        await client.open()
        read = ours_final if who == "ours" else floor_final
    started, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(*(read(client) for _ in range(streams)))
    wall, cpu = time.perf_counter() - started, time.process_time() - spent
    await client.close()
    return cpu / (streams * shape.events) * 1e6, wall


async def fair(address: str | None, streams: int, who: str = "ours") -> tuple[float, float]:
    """
    The worst delay of a ticking task in milliseconds, and deltas a second. In the process's own CPU time, so that what else
    runs on the machine does not count.
    """
    worst = 0.0
    done = asyncio.Event()

    async def tick() -> None:
        nonlocal worst
        while not done.is_set():
            before = time.process_time()
            await asyncio.sleep(0.001)
            worst = max(worst, time.process_time() - before)

    shape = Shape("text", events=50_000, per_write=1024, seed=7)
    client: Any
    if address is None:
        client = from_memory(shape.events)
        read: Any = ours_text
    else:
        measured = (Floor if who == "floor" else Ours)(f"{address}/{shape.name}")
        await measured.open()
        client, read = (measured, floor_final) if who == "floor" else (measured.client, ours_text)
    ticker = asyncio.create_task(tick())
    started = time.process_time()
    await asyncio.gather(*(read(client) for _ in range(streams)))
    spent = time.process_time() - started
    done.set()
    await ticker
    await client.close()
    return worst * 1e3, streams * shape.events / spent


async def ours_text(client: Any) -> int:
    size = 0
    async for chunk in await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
        for choice in chunk.choices:
            size += len(choice.delta.content or "")
    return size


def from_memory(events: int) -> Any:
    from kimi_async import AsyncKimi
    from kimi_async.testing import MemoryTransport, Reply

    packet = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n' * 200
    end = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    async def serve(_: Any) -> Reply:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(events // 200):
                yield packet
            yield end

        return Reply(headers={"content-type": "text/event-stream"}, body=body())

    return AsyncKimi(api_key="sk-bench", transport=MemoryTransport(serve), limits=None)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gather", description=(__doc__ or "").split("\n")[1]
    )
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--openai", action="store_true", help="AsyncOpenAI as well")
    parser.add_argument("--only", choices=("final", "fair"))
    options = parser.parse_args()
    with server() as port:
        address = f"http://127.0.0.1:{port}"
        if options.only != "fair":
            who = ["floor", "ours", *(["openai"] if options.openai else [])]
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in who}
            for _ in range(options.rounds):
                for name in who:
                    found[name].append(asyncio.run(final(address, name, options.streams, options.seconds)))
            base = statistics.median(cpu for cpu, _ in found["floor"])
            sooner = statistics.median(wall for _, wall in found["floor"])
            print(f"{options.streams} streams × 50 tokens/s × {options.seconds:g} s, read for their end")
            for name in who:
                cpu = statistics.median(each for each, _ in found[name])
                wall = statistics.median(each for _, each in found[name])
                print(
                    f"  {name:8} {cpu:6.1f} µs a delta, {cpu / base:5.2f} × by hand, ends {wall - sooner:+.3f} s"
                )
        if options.only != "final":
            rows = [(name, client, streams) for streams in (1, 16) for name, client in FAIR]
            delays: dict[Any, list[tuple[float, float]]] = {row: [] for row in rows}
            for _ in range(options.rounds):
                for name, client, streams in rows:
                    where = address if name == "sockets" else None
                    delays[name, client, streams].append(asyncio.run(fair(where, streams, client)))
            for (name, client, streams), measured in delays.items():
                all_worst = " ".join(f"{each:.1f}" for each, _ in measured)
                speed = statistics.median(each for _, each in measured)
                print(
                    f"  {name}, {streams:2} at full speed, {client:5}: worst delay {all_worst} ms, "
                    f"{speed / 1e3:,.0f} k deltas a second of CPU"
                )


FAIR = (("sockets", "ours"), ("sockets", "floor"), ("memory", "ours"))


if __name__ == "__main__":
    main()
