"""
Faults of lines, bytes and time are on the wire as their names say.
"""

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest

from kimi_async.testing.faults import (
    BadFraming,
    Bomb,
    CloseIdle,
    Comments,
    Compress,
    Drop,
    FaultPlan,
    Garbage,
    InvalidUtf8,
    JoinedEvents,
    LateTerminator,
    LineEndings,
    Pings,
    Stall,
    Trickle,
)
from kimi_async.testing.simulator.replies import Pace
from kimi_async.testing.simulator.server import KimiSimulator
from support.bare_socket import (
    TEXT,
    Seen,
    ask,
    body,
)

# --- lines ---------------------------------------------------------------------------------------------


async def test_comments_flood_without_disturbing_events(sim: KimiSimulator) -> None:
    """A thousand comment lines; the events are the same."""
    seen = await ask(sim, Comments(count=1_000, after_events=4))
    everywhere = await ask(sim, Comments(count=2, after_events=-1))

    assert 1_000 == seen.body.count(b": KIMI PROCESSING\n\n")
    assert 4 == seen.body.partition(b": KIMI")[0].count(b"\n\n")
    assert 2 * len(everywhere.data) == everywhere.body.count(b": KIMI PROCESSING\n\n")
    assert [TEXT, TEXT] == [seen.text, everywhere.text]


async def test_comments_without_end_stop_when_the_client_leaves(sim: KimiSimulator) -> None:
    """An endless flood ends with its reader, on the server too."""
    seen = await ask(sim, Comments(count=-1, after_events=2), limit=1 << 16)
    await sim.until(lambda stats: stats.in_flight == 0)

    assert ("limit", 2) == (seen.ending, len(seen.data))
    assert sim.requests[0].client_gone


@pytest.mark.parametrize("style", ["event", "empty", "null", "blank", "retry", "id"])
async def test_pings_stand_between_events(sim: KimiSimulator, style: Any) -> None:
    """Blocks without a chunk; [DONE] is still the last event."""
    seen = await ask(sim, Pings(style))

    chunks = [json.loads(data) for data in seen.data if data not in (b"", b"null", b"[DONE]")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert (TEXT, b"[DONE]") == (text, seen.data[-1])
    assert (style == "null") == (b"null" in seen.data)


@pytest.mark.parametrize("style", ["crlf", "cr", "no_space", "bom"])
async def test_line_endings_are_the_same_stream(sim: KimiSimulator, style: Any) -> None:
    """The standard allows them all."""
    plain = await ask(sim)
    seen = await ask(sim, LineEndings(style))

    assert plain.body != seen.body
    assert TEXT == seen.text


async def test_line_endings_unterminated_leaves_done_open(sim: KimiSimulator) -> None:
    """The last event lacks its blank line."""
    seen = await ask(sim, LineEndings("unterminated"))

    assert seen.body.endswith(b"\n\ndata: [DONE]")


async def test_joined_events_hold_two_chunks(sim: KimiSimulator) -> None:
    """In one line, or in two lines of one event."""
    line = await ask(sim, JoinedEvents("one_line"))
    lines = await ask(sim, JoinedEvents("two_lines"))

    assert line.data[0].count(b'"object"') == lines.data[0].count(b'"object"') == 2
    assert b"}{" in line.data[0]
    assert b"}\n{" in lines.data[0]
    assert [b"[DONE]"] * 2 == [line.data[-1], lines.data[-1]]


async def test_garbage_and_invalid_utf8_are_in_place(sim: KimiSimulator) -> None:
    """Broken events after the number of good ones that was asked for."""
    event = await ask(sim, Garbage(after_events=2))
    raw = await ask(sim, Garbage(after_events=2, raw=True, data=b"\xde\xad"))
    utf8 = await ask(sim, InvalidUtf8(after_events=2))

    with pytest.raises(json.JSONDecodeError):
        json.loads(event.data[2].decode())
    assert b"\n\n\xde\xaddata: " in raw.body
    with pytest.raises(UnicodeDecodeError):
        utf8.data[2].decode()


# --- bytes and time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "ending", "complete"), [("fin", "fin", False), ("rst", "rst", False), ("clean", "fin", True)]
)
async def test_drop_after_events(sim: KimiSimulator, how: Any, ending: str, complete: bool) -> None:
    """Exactly so many events arrive; the end is as ordered."""
    seen = await ask(sim, Drop(after_events=7, how=how))

    assert (ending, complete) == (seen.ending, seen.complete)
    # A reset may throw away what the kernel still held; it never adds anything.
    assert 7 == len(seen.data) or (how == "rst" and len(seen.data) < 7)


@pytest.mark.parametrize("size", [0, 1, 100, 777, 3_000])
async def test_drop_after_bytes(sim: KimiSimulator, size: int) -> None:
    """Exactly so many bytes of the body arrive."""
    whole = await ask(sim)
    seen = await ask(sim, Drop(after_bytes=size, how="fin"))

    assert (size, False) == (len(seen.body), seen.complete)
    assert whole.body[: min(size, 20)] == seen.body[:20]


async def test_drop_beyond_the_end_does_nothing(sim: KimiSimulator) -> None:
    """A place past the body's end is never reached."""
    seen = await ask(sim, Drop(after_bytes=10**9))

    assert (TEXT, True) == (seen.text, seen.complete)


async def test_drop_truncated_breaks_inside_a_chunk(sim: KimiSimulator) -> None:
    """The last chunk promised more bytes than came."""
    seen = await ask(sim, Drop(after_events=3, how="truncated"))

    assert sum(seen.sizes) > len(seen.body)
    assert (3, False) == (len(seen.data), seen.complete)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_drop_before_headers_sends_nothing(sim: KimiSimulator, how: Any) -> None:
    """The connection ends without a status line."""
    seen = await ask(sim, Drop(before_headers=True, how=how))

    assert (b"", how) == (seen.raw, seen.ending)
    assert {0: 1} == sim.stats.by_status


async def test_drop_splits_writes_of_many_events() -> None:
    """Places are exact also where several events share a write."""
    async with KimiSimulator(pace=Pace(events_per_write=16)) as sim:
        seen = await ask(sim, Drop(after_events=21, how="fin"))

    assert 21 == len(seen.data)


async def test_drop_in_a_reply_that_is_not_a_stream(sim: KimiSimulator) -> None:
    """The body is shorter than its Content-Length."""
    seen = await ask(sim, Drop(after_events=1, how="fin"), sent=body(stream=False))

    assert 0 < len(seen.body) < int(seen.headers["Content-Length"])


@pytest.mark.parametrize(
    "place", [{"before_headers": True}, {"after_events": 0}, {"after_events": 4}, {"after_bytes": 10}]
)
async def test_stall_is_silent_and_goes_on(sim: KimiSimulator, place: Any) -> None:
    """A stall costs time and nothing else."""
    seen = await ask(sim, Stall(**place, seconds=0.05))

    assert (TEXT, True) == (seen.text, seen.complete)
    assert seen.seconds >= 0.05


async def test_stall_lasts_as_long_late_in_a_stream() -> None:
    """A stall is counted from the moment it begins, however long the stream has been going."""
    async with KimiSimulator(pace=Pace(headers=0.1)) as sim:
        seen = await ask(sim, [Stall(after_events=10, seconds=0.05), Stall(after_events=20, seconds=0.05)])

    assert seen.seconds >= 0.2


async def test_stall_without_end_frees_the_server_when_the_client_leaves(sim: KimiSimulator) -> None:
    """Events before the stall arrive, then nothing; the handler ends with the connection."""
    sim.faults = FaultPlan([Stall(after_events=2)])
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body()), body())
    )
    await reader.readuntil(b"\n\n\r\n")
    await reader.readuntil(b"\n\n\r\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.read(1)
    writer.close()
    await sim.until(lambda stats: stats.in_flight == 0 and stats.connections_open == 0)

    assert sim.requests[0].client_gone


async def test_trickle_sends_single_bytes(sim: KimiSimulator) -> None:
    """Each byte is a chunk of its own; the stream is the same."""
    seen = await ask(sim, Trickle())

    assert {1} == set(seen.sizes)
    assert (TEXT, True) == (seen.text, seen.complete)


async def test_compress_unpacks_to_the_stream(sim: KimiSimulator) -> None:
    """Sound gzip, flushed with every event."""
    plain = await ask(sim)
    seen = await ask(sim, Compress())

    assert "gzip" == seen.headers["Content-Encoding"]
    assert len(plain.data) == gzip.decompress(seen.body).count(b"\n\n")
    assert len(seen.sizes) > 20


async def test_compress_broken(sim: KimiSimulator) -> None:
    """Cut short without a sign in HTTP, wrong in the middle, or not gzip at all."""
    truncated = await ask(sim, Compress("truncated"))
    corrupt = await ask(sim, Compress("corrupt"))
    lie = await ask(sim, Compress("lie"))

    assert truncated.complete
    with pytest.raises(EOFError):
        gzip.decompress(truncated.body)
    with pytest.raises((zlib.error, EOFError, gzip.BadGzipFile)):
        gzip.decompress(corrupt.body)
    assert ("gzip", TEXT) == (lie.headers["Content-Encoding"], lie.text)


async def test_bomb_unpacks_a_thousandfold(sim: KimiSimulator) -> None:
    """Little travels, much comes out."""
    seen = await ask(sim, Bomb(size=16 << 20))

    assert len(seen.body) < 40_000
    assert 16 << 20 == len(gzip.decompress(seen.body))


@pytest.mark.parametrize(
    ("kind", "sign"),
    [
        ("status_line", b"HTTP/9.x maybe\r\n"),
        ("header", b"\r\nthis is no header\r\n"),
        ("chunk_size", b"\r\nzz\r\n"),
        ("two_lengths", b"Content-Length: 5\r\nContent-Length: 7"),
    ],
)
async def test_bad_framing_is_on_the_wire(sim: KimiSimulator, kind: Any, sign: bytes) -> None:
    """HTTP broken at the place that was named."""
    seen = await ask(sim, BadFraming(kind))

    assert sign in seen.raw
    assert "fin" == seen.ending


async def test_bad_framing_short_length(sim: KimiSimulator) -> None:
    """A hundred bytes are promised that never come."""
    seen = await ask(sim, BadFraming("short_length"), sent=body(stream=False))

    assert 100 == int(seen.headers["Content-Length"]) - len(seen.body)


async def test_late_terminator_keeps_the_connection_open_meanwhile(sim: KimiSimulator) -> None:
    """[DONE] arrives at once, the end of the body later."""
    sim.faults = FaultPlan([LateTerminator(0.05)])
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body()), body())
    )
    loop = asyncio.get_running_loop()
    await reader.readuntil(b"data: [DONE]\n\n\r\n")
    done_at = loop.time()
    end = await reader.readexactly(5)
    writer.close()

    assert b"0\r\n\r\n" == end
    assert loop.time() - done_at >= 0.04


async def test_close_idle_ends_the_connection_after_the_reply(sim: KimiSimulator) -> None:
    """The reply says nothing of closing; then the server hangs up."""
    sim.faults = FaultPlan([CloseIdle(0.01)])
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body()), body())
    )
    raw = await reader.read(-1)
    writer.close()
    seen = Seen(raw, "fin", 0.0)

    assert (TEXT, True) == (seen.text, seen.complete)
    assert "Connection" not in seen.headers
