"""The virtual clock: what jumps, what stands still, and what is called a deadlock."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import anyio.to_thread
import pytest

from kimi_async.testing.clock import DeadlockError, VirtualClockLoop, run


def test_run_long_sleeps_cost_no_real_time():
    """Ten sleeps of an hour pass in order, to the second, and in no time."""
    order: list[tuple[int, float]] = []

    async def sleeper(n: int) -> None:
        await asyncio.sleep(n * 3600)
        order.append((n, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(*[sleeper(n) for n in reversed(range(10))])

    began = time.perf_counter()
    run(main(), start=100.0)

    assert [(n, 100.0 + n * 3600) for n in range(10)] == order
    assert time.perf_counter() - began < 1


def test_run_timeouts_follow_the_virtual_clock():
    """`asyncio.timeout` and anyio's `move_on_after` end at their virtual instant."""

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        first = loop.time()
        with anyio.move_on_after(12.5):
            await anyio.sleep_forever()
        return first, loop.time()

    assert (30.0, 42.5) == run(main())


def test_run_clock_far_from_zero_never_stalls():
    """A step smaller than the clock's resolution still comes due."""

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        due = asyncio.Event()
        loop.call_at(loop.time() + 1e-7, due.set)
        await due.wait()
        await asyncio.sleep(1e-12)
        return True

    assert run(main(), start=1e12)


def test_run_thread_at_work_holds_the_clock():
    """A timer of an hour does not overtake a thread that works for a few milliseconds."""

    async def main() -> list[str]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(3600, seen.append, "timer")
        await asyncio.to_thread(time.sleep, 0.005)
        seen.append("thread")
        await anyio.to_thread.run_sync(time.sleep, 0.005)
        seen.append("anyio thread")
        assert loop.time() == 0
        await asyncio.sleep(3600)
        return seen

    assert ["thread", "anyio thread", "timer"] == run(main())


def test_run_foreign_thread_wakes_the_loop():
    """A thread of the caller's own may wake the loop through `call_soon_threadsafe`."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(answer.set_result, "hello"))
        thread.start()
        try:
            return await answer
        finally:
            thread.join()

    assert "hello" == run(main())


def test_run_nothing_left_to_wait_for_is_a_deadlock():
    """A future nobody will resolve ends the run at once, with the waiting task named."""

    async def main() -> None:
        await asyncio.sleep(5)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError, match=r"virtual time 5 s.*\n.*main") as caught:
        run(main())

    assert "test_clock.py" in str(caught.value)


def test_loop_real_sockets_still_answer():
    """A loopback server and its client in one virtual loop exchange bytes, with timers set."""

    async def main() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readexactly(4))[::-1])
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(60):
                writer.write(b"kimi")
                answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer

    assert b"imik" == run(main())


def test_loop_serves_as_loop_factory():
    """The class itself is a loop factory for `asyncio.Runner` and anyio."""

    async def main() -> float:
        await anyio.sleep(60)
        return asyncio.get_running_loop().time()

    assert 60.0 == anyio.run(main, backend_options={"loop_factory": VirtualClockLoop})
