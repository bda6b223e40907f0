"""
What is measured, each by a function that runs in a process of its own and gives plain figures.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

__all__ = ["MEASURES"]

_BODY = (
    b'{"id":"chatcmpl-abc123","object":"chat.completion","created":1770000100,"model":"kimi-k2.6","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,'
    b'"completion_tokens":2,"total_tokens":11}}'
)


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _now() -> float:
    """Memory of this process now, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- uploads --------------------------------------------------------------------------------------------


async def _uploads(how: str, port: int, files: list[str], concurrency: int) -> dict[str, float]:
    base = f"http://127.0.0.1:{port}/v1"
    slots = asyncio.Semaphore(concurrency)
    one: Callable[[str], Awaitable[Any]]
    close: Callable[[], Awaitable[Any]]
    if how == "openai":
        from openai import AsyncOpenAI, DefaultAioHttpClient

        try:
            api: Any = AsyncOpenAI(base_url=base, api_key="sk-x", http_client=DefaultAioHttpClient())
        except RuntimeError:
            api = AsyncOpenAI(base_url=base, api_key="sk-x")

        async def one(path: str) -> Any:
            async with slots:
                return await api.files.create(file=Path(path), purpose="batch")

        close = api.close
    elif how in ("by hand", "by hand, streamed"):
        import aiohttp

        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

        async def formdata(path: str) -> None:
            # What the aiohttp documentation shows: an open file in a form.
            with open(path, "rb") as file:  # noqa: ASYNC230 - as in the documentation
                form = aiohttp.FormData()
                form.add_field("purpose", "image")
                form.add_field("file", file, filename=os.path.basename(path))
                async with slots, session.post(f"{base}/files", data=form) as reply:
                    await reply.json()

        async def streamed(path: str) -> None:
            # What people write once they have read about FormData: a generator over an async file.
            import anyio

            head = (
                b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nimage\r\n--b\r\n'
                b'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            )
            tail = b"\r\n--b--\r\n"

            async def body() -> Any:
                yield head
                async with await anyio.open_file(path, "rb") as file:
                    while data := await file.read(256 * 1024):
                        yield data
                yield tail

            headers = {
                "Content-Type": "multipart/form-data; boundary=b",
                "Content-Length": str(os.stat(path).st_size + len(head) + len(tail)),
            }
            async with slots, session.post(f"{base}/files", data=body(), headers=headers) as reply:
                await reply.json()

        one = formdata if how == "by hand" else streamed
        close = session.close
    else:
        from kimi_async.client import AsyncKimi
        from kimi_async.middleware.rate_limit.limits import RateLimits

        client = AsyncKimi(base_url=base, api_key="sk-x", limits=RateLimits(hold=False))

        async def one(path: str) -> Any:
            return await client.files.create(file=path, purpose="image")

        close = client.close

    await one(files[0])
    gc.collect()
    before, cpu, wall = _peak(), time.process_time(), time.perf_counter()
    if how == "kimi-async":
        # The whole of it: looking for what is there already, samples, limits.
        results = await client.files.upload_many(files, purpose="image", concurrency=concurrency)
        assert all(result.ok for result in results)
    else:
        await asyncio.gather(*(one(path) for path in files))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await close()
    size = sum(os.stat(path).st_size for path in files) / 1e9
    return {"cpu_s_per_gb": cpu / size, "wall_s_per_gb": wall / size, "memory_mb": _peak() - before}


def uploads(how: str, port: int, files: list[str], concurrency: int) -> dict[str, float]:
    """CPU of the client a gigabyte, and how much its memory grew."""
    return asyncio.run(_uploads(how, port, files, concurrency))


# --- map ------------------------------------------------------------------------------------------------


def _silent_client(answer: bytes) -> Any:
    from kimi_async.client import AsyncKimi
    from kimi_async.middleware.rate_limit.limits import RateLimits
    from kimi_async.testing.memory_transport import MemoryTransport, Reply

    async def handler(request: Any) -> Reply:
        await asyncio.sleep(0)
        return Reply(200, {"Content-Type": "application/json"}, answer)

    class Forgetful(list[Any]):
        def append(self, item: Any) -> None:
            pass

    transport = MemoryTransport(handler)
    transport.requests = Forgetful()
    return AsyncKimi(api_key="sk-x", transport=transport, limits=RateLimits(hold=False))


async def _overhead(count: int, rounds: int, concurrency: int) -> dict[str, float]:
    client = _silent_client(_BODY % (b"Hi there. " * 20))
    messages = [{"role": "user", "content": "hello"}]

    async def bare() -> None:
        numbers = iter(range(count))

        async def work() -> None:
            for _ in numbers:
                await client.chat.completions.create(model="kimi-k2.6", messages=messages)

        await asyncio.gather(*(work() for _ in range(concurrency)))

    async def mapped(**options: Any) -> None:
        done = 0
        items = ({"messages": messages} for _ in range(count))
        async for result in client.map(items, model="kimi-k2.6", concurrency=concurrency, **options):
            done += result.ok
        assert done == count

    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds):
            path = os.path.join(directory, str(number))
            cases: dict[str, Callable[[], Awaitable[None]]] = {
                "bare": bare,
                "map": mapped,
                "ordered": lambda: mapped(ordered=True),
                "journal_process": lambda path=path: mapped(journal=path + "p", durability="process"),
                "journal_disk": lambda path=path: mapped(journal=path + "d", durability="disk"),
            }
            for name, case in cases.items():
                gc.collect()
                cpu, wall = time.process_time(), time.perf_counter()
                await case()
                found.setdefault(f"{name}_cpu_us", []).append((time.process_time() - cpu) / count * 1e6)
                found.setdefault(f"{name}_wall_us", []).append((time.perf_counter() - wall) / count * 1e6)
    await client.close()
    median = {name: sorted(values)[len(values) // 2] for name, values in found.items()}
    return {
        name: value - median["bare" + name[name.index("_cpu") if "_cpu" in name else name.index("_wall") :]]
        if not name.startswith("bare")
        else value
        for name, value in median.items()
    }


def overhead(count: int, rounds: int, concurrency: int) -> dict[str, float]:
    """Microseconds a request over the bare call at the same concurrency; `bare_…` is the call itself."""
    return asyncio.run(_overhead(count, rounds, concurrency))


async def _memory(count: int, journal: bool) -> dict[str, float]:
    client = _silent_client(_BODY % b"Hi")
    messages = [{"role": "user", "content": "hello"}]
    start = _now()
    with tempfile.TemporaryDirectory() as directory:
        options: dict[str, Any] = (
            {"journal": os.path.join(directory, "j"), "durability": "process"} if journal else {}
        )
        items = ({"custom_id": f"request-number-{n}", "messages": messages} for n in range(count))
        done = 0
        async for result in client.map(items, model="kimi-k2.6", concurrency=64, **options):
            done += result.ok
        assert done == count
    await client.close()
    return {"peak_mb": _peak(), "before_mb": start}


def memory(count: int, journal: bool) -> dict[str, float]:
    """Resident memory at its peak after so many lazy items, each with an id of its own."""
    return asyncio.run(_memory(count, journal))


# --- join -----------------------------------------------------------------------------------------------


def join(count: int) -> dict[str, float]:
    """Lines a second from a shuffled output file, joined to its requests; and with each completion decoded."""
    from kimi_async.bulk.lines import read_ids
    from kimi_async.bulk.output_files import ResultFiles
    from kimi_async.bulk.results import Result

    body = _BODY % (b"Hi there. " * 12)
    order = list(range(count))
    random.Random(1).shuffle(order)
    with tempfile.TemporaryDirectory() as directory:
        source, output = os.path.join(directory, "in"), os.path.join(directory, "out")
        with open(source, "wb") as file:
            file.writelines(
                b'{"custom_id":"request-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"kimi-k2.6",'
                b'"messages":[{"role":"user","content":"%b"}]}}\n' % (n, b"hello world " * 10)
                for n in range(count)
            )
        with open(output, "wb") as file:
            file.writelines(
                b'{"id":"request-%d","custom_id":"request-%d","response":{"status_code":200,"request_id":"","body":%b},'
                b'"error":null}\n' % (n, n, body)
                for n in order
            )
        size = os.stat(output).st_size / 1e6
        del order
        gc.collect()
        start = time.perf_counter()
        cpu = time.process_time()
        with ResultFiles([output]) as results:
            indexed = time.perf_counter()
            good = 0
            for _, answer in results.join(read_ids(source)):
                good += answer is not None and answer.ok
            joined = time.perf_counter()
            joined_cpu = time.process_time() - cpu
            assert good == count
            for index, (_, answer) in enumerate(results.join(read_ids(source))):
                assert answer is not None
                Result.of(answer, index, "batch").unwrap()
            decoded = time.perf_counter()
    return {
        "lines_per_s": count / (joined - start),
        "lines_per_cpu_s": count / joined_cpu,
        "index_us": (indexed - start) / count * 1e6,
        "join_us": (joined - indexed) / count * 1e6,
        "join_and_decode_us": (decoded - joined) / count * 1e6,
        "file_mb": size,
    }


def check(count: int) -> dict[str, float]:
    """Lines a second that the check of a request file reads."""
    from kimi_async.bulk.request_files import check_lines

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "in")
        with open(path, "wb") as file:
            file.writelines(
                b'{"custom_id":"request-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"kimi-k2.6",'
                b'"messages":[{"role":"user","content":"%b"}]}}\n' % (n, b"hello world " * 10)
                for n in range(count)
            )
        start = time.perf_counter()
        assert check_lines(path).ok
        return {"lines_per_s": count / (time.perf_counter() - start)}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "uploads": uploads,
    "overhead": overhead,
    "memory": memory,
    "join": join,
    "check": check,
}
