"""
A stream handed on to a browser, and what a piece of it costs the service: `python -m benchmarks.relay`.

So many readers at once, each of a stream at the pace of a model, through a service that asks the model for them. Printed is the CPU
time of the service's process for each delta that it handed on; every reader's bytes are looked at. Services, each a process of
its own, in which nothing else runs:

    copied    the bytes copied by hand: aiohttp's client in, `StreamingResponse` or `aiohttp.web` out. Nothing is watched: an error,
              a cut stream and a lost browser in silence go unseen
    ours      `EventStreamResponse`
    gathered  the same with `gather=0.05`
    openai    FastAPI over `AsyncOpenAI`, as it is commonly written: `chunk.model_dump_json()`

Rounds alternate, and a ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from typing import Any

from benchmarks.clients.base import MESSAGES, MODEL
from benchmarks.measure import settle_memory
from benchmarks.runner import server
from benchmarks.shapes import Shape, events

SERVICES = ("copied", "ours", "gathered", "openai")
FRAMEWORKS = ("starlette", "aiohttp")
# As relays over AsyncOpenAI are written; nobody writes one on aiohttp.web.
PAIRS = [(who, on) for on in FRAMEWORKS for who in SERVICES if (who, on) != ("openai", "aiohttp")]


# --- the services -----------------------------------------------------------------------------------------------------


async def copying(base: str, on: str) -> Callable[..., Awaitable[Any]]:
    import aiohttp
    import msgspec

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Authorization": "Bearer sk-bench", "Content-Type": "application/json"},
    )
    body = msgspec.json.encode({"model": MODEL, "messages": MESSAGES, "stream": True})

    async def starlette(shape: str) -> Any:
        from starlette.responses import StreamingResponse

        async def copied() -> AsyncIterator[bytes]:
            async with session.post(f"{base}/{shape}/v1/chat/completions", data=body) as reply:
                reply.raise_for_status()
                async for data in reply.content.iter_any():
                    yield data

        return StreamingResponse(copied(), media_type="text/event-stream")

    async def aiohttp_web(shape: str, request: Any) -> Any:
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        async with session.post(f"{base}/{shape}/v1/chat/completions", data=body) as reply:
            reply.raise_for_status()
            await response.prepare(request)
            async for data in reply.content.iter_any():
                await response.write(data)
        return response

    return starlette if on == "starlette" else aiohttp_web


async def relaying(base: str, on: str, **options: Any) -> Callable[..., Awaitable[Any]]:
    from kimi_async import AsyncKimi

    if on == "starlette":
        from kimi_async.integrations.starlette import EventStreamResponse
    else:
        from kimi_async.integrations.aiohttp import EventStreamResponse  # type: ignore[assignment]
    client = AsyncKimi(api_key="sk-bench", base_url=base + "/v1")

    @cache
    def there(shape: str) -> AsyncKimi:
        return client.with_options(base_url=f"{base}/{shape}/v1")

    async def answer(shape: str, request: Any = None) -> Any:
        return EventStreamResponse(
            there(shape).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, **options)
        )

    return answer


async def over_openai(base: str) -> Callable[..., Awaitable[Any]]:
    import httpx
    import openai
    from fastapi.responses import StreamingResponse

    client = openai.AsyncOpenAI(
        api_key="sk-bench",
        base_url=base + "/v1",
        http_client=httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60),
    )

    @cache
    def there(shape: str) -> openai.AsyncOpenAI:
        return client.with_options(base_url=f"{base}/{shape}/v1")

    async def answer(shape: str) -> Any:
        async def encoded() -> AsyncIterator[str]:
            stream = await there(shape).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            async for chunk in stream:
                yield f"data: {chunk.model_dump_json()}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(encoded(), media_type="text/event-stream")

    return answer


async def serve(who: str, on: str, base: str) -> None:
    """Runs one service until it is ended, and prints its port."""
    settle_memory()
    if who == "copied":
        answer = await copying(base, on)
    elif who == "openai":
        answer = await over_openai(base)
    else:
        answer = await relaying(base, on, **({"gather": 0.05} if who == "gathered" else {}))
    if on == "aiohttp":
        from aiohttp import web

        app = web.Application()

        async def handle(request: web.Request) -> Any:
            return await answer(request.match_info["shape"], request)

        async def spent_here(_: web.Request) -> web.Response:
            return web.Response(text=repr(time.process_time()))

        app.router.add_post("/{shape}", handle)
        app.router.add_get("/cpu", spent_here)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    import socket

    import uvicorn
    from fastapi import FastAPI
    from starlette.responses import PlainTextResponse, Response

    fast = FastAPI()

    @fast.post("/{shape}")
    async def chat(shape: str) -> Response:
        found: Response = await answer(shape)
        return found

    @fast.get("/cpu")
    async def spent() -> PlainTextResponse:
        return PlainTextResponse(repr(time.process_time()))

    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(fast, log_level="error", access_log=False)).serve(sockets=[listening])


# --- the readers ------------------------------------------------------------------------------------------------------


async def measure(port: int, shape: Shape, exact: bytes | None) -> float:
    """Microseconds of the service's CPU time for each delta. `exact`: what every reader must have got."""
    import aiohttp

    address = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:

        async def spent() -> float:
            async with session.get(f"{address}/cpu") as reply:
                return float(await reply.text())

        async def read() -> bytes:
            async with session.post(f"{address}/{shape.name}") as reply:
                return await reply.read()

        before = await spent()
        found = await asyncio.gather(*(read() for _ in range(shape.together)))
        after = await spent()
    for body in found:
        if not body.endswith(b"data: [DONE]\n\n") or (exact is not None and body != exact):
            raise SystemExit("a reader got something else than the model wrote")
    return (after - before) / (shape.events * shape.together) * 1e6


def ratios(found: dict[tuple[str, str], list[float]], base: str) -> dict[tuple[str, str], float]:
    """The median of the rounds' ratios to `base` on the same framework; to that on Starlette where there is none."""
    return {
        (who, on): statistics.median(
            mine / theirs
            for mine, theirs in zip(values, found.get((base, on)) or found[base, "starlette"], strict=True)
        )
        for (who, on), values in found.items()
    }


def report(found: dict[tuple[str, str], list[float]]) -> list[str]:
    """One line a service."""
    by_hand = ratios(found, "copied")
    openai = ratios(found, "openai") if ("openai", "starlette") in found else {}
    lines = []
    for (who, on), values in found.items():
        against = f", 1/{1 / openai[who, on]:.1f} of openai" if openai else ""
        lines.append(
            f"  {on:9} {who:8} {statistics.median(values):6.1f} µs a delta ({min(values):.1f} to {max(values):.1f}), "
            f"{by_hand[who, on]:5.2f} × copied{against}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.relay", description=(__doc__ or "").split("\n")[1]
    )
    parser.add_argument("--streams", type=int, default=40, help="readers at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="of 50 tokens a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--on", choices=FRAMEWORKS, help="one framework alone")
    parser.add_argument("--without-openai", action="store_true")
    parser.add_argument(
        "--serve", nargs=3, metavar=("SERVICE", "FRAMEWORK", "ADDRESS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args(argv)
    if options.serve:
        asyncio.run(serve(*options.serve))
        return
    shape = Shape("text", events=int(options.seconds * 50), rate=50, together=options.streams)
    warm = Shape("text", events=20, rate=50, together=4)
    pairs = [
        (who, on)
        for who, on in PAIRS
        if options.on in (None, on) and not (who == "openai" and options.without_openai)
    ]
    running: dict[tuple[str, str], tuple[subprocess.Popen[str], int]] = {}
    found: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    with server() as port:
        address = f"http://127.0.0.1:{port}"
        try:
            for who, on in pairs:
                process = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.relay", "--serve", who, on, address],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert process.stdout is not None
                running[who, on] = process, int(process.stdout.readline())
                asyncio.run(measure(running[who, on][1], warm, None))
            for number in range(options.rounds):
                for who, on in [*pairs[number % len(pairs) :], *pairs[: number % len(pairs)]]:
                    exact = None if who == "openai" else b"".join(events(shape))
                    found[who, on].append(asyncio.run(measure(running[who, on][1], shape, exact)))
        finally:
            for process, _ in running.values():
                process.terminate()
                process.communicate()
    print(f"{options.streams} readers × 50 tokens/s × {options.seconds:g} s, CPU of the service's process")
    print("\n".join(report(found)))


if __name__ == "__main__":
    main()
