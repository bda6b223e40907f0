"""
Fuzzes the way in: any bytes, cut anywhere, as a stream and as a reply. Opt-in; needs atheris (Linux, Python 3.11 to 3.13).

    .venv/bin/pip install atheris
    .venv/bin/python tests/fuzz/fuzz_stream.py -max_total_time=600 tests/fuzz/corpus

Without atheris it replays the files it is given, such as a crash that was found: `fuzz_stream.py crash-…`.

What must hold is in `check`: only our own errors come out, whole and byte by byte are the same, and nothing stays open.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None:
    with atheris.instrument_imports(include=["kimi_async"]):
        import kimi_async.codec.json
        import kimi_async.sse
        import kimi_async.streaming.fold
        import kimi_async.streaming.stream  # noqa: F401

from kimi_async.codec import decode_reply, error_from
from kimi_async.errors import APIError, APIResponseValidationError
from kimi_async.streaming.stream import AsyncStream
from kimi_async.transport.exchange import Request, Response, Timeout
from kimi_async.types import ChatCompletion

REQUEST = Request("POST", "http://fuzz/v1/chat/completions", timeout=Timeout(None, None, None, None, None))


async def outcome(pieces: list[bytes]) -> Any:
    """
    The chunks, the answer, and the class of the error if there was one.
    """
    left = list(pieces)

    async def reader() -> bytes:
        return left.pop(0) if left else b""

    closed: list[bool] = []
    response = Response(200, request=REQUEST, reader=reader, closer=lambda: closed.append(True))
    stream: AsyncStream[Any] = AsyncStream(response, max_event_size=1 << 16)
    got: list[str] = []
    failed = None
    try:
        async for chunk in stream:
            got.append(repr(chunk))
            chunk.model_dump_json().encode()
    except APIError as error:
        failed = type(error).__name__
        str(error).encode()
    assert closed == [True]
    return got, repr(stream.snapshot()), failed


def check(data: bytes) -> None:
    cut, body = (data[0], data[1:]) if data else (0, data)
    pieces = [body[i : i + cut] for i in range(0, len(body), cut)] if cut else [body]

    async def both() -> None:
        whole = await outcome([body])
        assert whole == await outcome(pieces)

    asyncio.run(both())
    try:
        decode_reply(body, ChatCompletion)
    except APIResponseValidationError:
        pass
    str(error_from(500, {}, body)).encode()


def main() -> None:
    if atheris is not None:
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
        return
    for name in sys.argv[1:]:
        check(Path(name).read_bytes())
        print(f"{name}: holds")


if __name__ == "__main__":
    main()
