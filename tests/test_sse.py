"""
Every cut is the same stream, and no stream takes more than it is allowed.
"""

from __future__ import annotations

import itertools
import json
import pickle
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_async.errors import KimiError
from kimi_async.sse import EventTooLargeError, ServerSentEvent, SSEDecoder, encode_comment, encode_event
from support.sse_corpus import AWKWARD, CASES, Case, Expected

RECORDINGS = sorted(Path(__file__).parent.glob("recordings/*.raw"))
MEBI = 1024 * 1024
JSON = b'{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"hello"}}]}'


def plain(events: Iterable[ServerSentEvent]) -> list[Expected]:
    return [Expected(bytes(e.data), e.event, e.id, e.retry) for e in events]


def fed(cut: Iterable[bytes], limit: int = 16 * MEBI) -> list[Expected]:
    decoder = SSEDecoder(limit)
    return [event for data in cut for event in plain(decoder.feed(data))]


def payloads(cut: Iterable[bytes], limit: int = 16 * MEBI) -> list[bytes | memoryview]:
    decoder = SSEDecoder(limit)
    return [payload for data in cut for payload in decoder.payloads(data)]


def single(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def pieces(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[i : i + size] for i in range(0, len(stream), size))


def by_the_book(stream: bytes) -> list[Expected]:
    """
    The rules once more, in the order in which the standard tells them, with no thought of speed or of cuts.
    """
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    events: list[Expected] = []
    data, event, last_id, retry = b"", b"", b"", None
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            if data != b"":
                kind = event.decode(errors="replace") or "message"
                events.append(Expected(data[:-1], kind, last_id.decode(errors="replace"), retry))
            data, event, retry = b"", b"", None
        elif name == b"data":
            data += value + b"\n"
        elif name == b"event":
            event = value
        elif name == b"id" and b"\0" not in value:
            last_id = value
        elif name == b"retry" and re.fullmatch(rb"[0-9]+", value) and int(value) < 10**19:
            retry = int(value)
    return events


# The corpus


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_feed_corpus_however_cut(case: Case) -> None:
    """
    The rules give these events, and the cut has no say: whole, byte by byte, in any two places.
    """
    assert case.expected == by_the_book(case.stream), "the book and the corpus disagree"
    assert case.expected == fed([case.stream])
    assert case.expected == fed(single(case.stream))
    for i, j in itertools.combinations_with_replacement(range(len(case.stream) + 1), 2):
        cut = [case.stream[:i], case.stream[i:j], case.stream[j:]]
        assert case.expected == fed(cut), cut


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_payloads_corpus_however_cut(case: Case) -> None:
    """
    The quick way gives the data of the same events, whatever the cut.
    """
    expected = [event.data for event in case.expected]

    assert expected == payloads([case.stream])
    assert expected == payloads(single(case.stream))
    for i, j in itertools.combinations_with_replacement(range(len(case.stream) + 1), 2):
        cut = [case.stream[:i], case.stream[i:j], case.stream[j:]]
        assert expected == payloads(cut), cut


def test_corpus_names_unique() -> None:
    """
    A failing case can be found by its name.
    """
    names = [case.name for case in CASES]

    assert sorted(set(names)) == sorted(names)


def test_awkward_text_cut_in_every_two_places() -> None:
    """
    A text with everything in it comes to the same events at each of several thousand cuts.
    """
    expected = [
        Expected(b"1\n", "a"),
        Expected(b"{}", id="7"),
        Expected("月".encode(), id="7"),
        Expected(b"[DONE]", id="7"),
    ]

    for i, j in itertools.combinations_with_replacement(range(len(AWKWARD) + 1), 2):
        cut = [AWKWARD[:i], AWKWARD[i:j], AWKWARD[j:]]
        assert expected == fed(cut), cut
        assert [event.data for event in expected] == payloads(cut), cut


# Any stream. The alphabet is what the decoder looks for, so that chance finds the corners.

TOKENS = [
    *(
        b"data: ",
        b"data:",
        b"data",
        b"dat",
        b"event: ",
        b"event",
        b"id: ",
        b"id",
        b"retry: ",
        b": ",
        b":",
        b" ",
    ),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\ndata: ", b"\r\n\r\ndata: ", b"\n\r"),
    *(b"a", b"7", b"12", b"\0", b"\xef\xbb\xbf", b"\xef", b"\xe2\x80\xa8", b"\xff", b"{}", b"[DONE]"),
]
EVENTS = [
    *(
        b"data: {}\n\n",
        b"data: [DONE]\n\n",
        b"data: a\r\n\r\n",
        b"data: a\r\r",
        b": ping\n\n",
        b"data: a\ndata: b\n\n",
    ),
    *(b"event: e\ndata: a\n\n", b"id: 1\ndata\n\n", b"retry: 5\n\n", b"\n", b"data:\n\n", b"data: \n\n"),
]
streams = st.one_of(
    st.lists(st.sampled_from(TOKENS), max_size=24).map(b"".join),
    st.lists(st.sampled_from(EVENTS), max_size=12).map(b"".join),
    st.lists(st.sampled_from(EVENTS + TOKENS), max_size=24).map(b"".join),
    st.binary(max_size=60),
)


def cuts(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    return [stream[i:j] for i, j in itertools.pairwise([0, *places, len(stream)])]


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    return cuts(draw, draw(streams))


@settings(max_examples=400, deadline=None)
@given(cut_streams())
def test_feed_and_payloads_any_stream_any_cut(cut: list[bytes]) -> None:
    """
    Whole, cut anywhere or byte by byte, by feed or by payloads: what the book says.
    """
    stream = b"".join(cut)
    expected = by_the_book(stream)

    for way in (cut, [stream], single(stream)):
        assert expected == fed(way)
        assert [event.data for event in expected] == payloads(way)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EVENTS + TOKENS), max_size=24))
def test_lone_is_what_payloads_gives(pieces: list[bytes]) -> None:
    """
    Where `lone` takes a packet for one event, so does the book; elsewhere it has taken nothing in.
    """
    decoder = SSEDecoder()
    got: list[bytes] = []
    for piece in pieces:
        lone = decoder.lone(piece)
        got += map(bytes, decoder.payloads(piece) if lone is None else [lone])

    assert [event.data for event in by_the_book(b"".join(pieces))] == got
    decoder = SSEDecoder()
    decoder.payloads(b": hello\n\n")
    assert b"{}" == decoder.lone(b"data: {}\n\n")


@settings(max_examples=150, deadline=None)
@given(cut_streams(), st.data())
def test_feed_and_payloads_mixed_in_one_stream(cut: list[bytes], data: st.DataObject) -> None:
    """
    Each takes up where the other stopped, with type, id and half lines in hand.
    """
    expected = by_the_book(b"".join(cut))
    decoder = SSEDecoder()
    got: list[bytes] = []
    ids = set()
    for piece in cut:
        if data.draw(st.booleans()):
            got += map(bytes, decoder.payloads(piece))
        else:
            events = decoder.feed(piece)
            got += [bytes(event.data) for event in events]
            ids |= {event.id for event in events}

    assert [event.data for event in expected] == got
    assert ids <= {event.id for event in expected}


@settings(max_examples=300, deadline=None)
@given(cut_streams(), st.integers(1, 12))
def test_limit_any_stream_any_cut(cut: list[bytes], limit: int) -> None:
    """
    Whether a stream is too large, and what comes out before, does not depend on how it is cut or read.
    """

    def outcome(way: list[bytes], method: str) -> tuple[list[bytes], bool]:
        decoder = SSEDecoder(limit)
        got: list[bytes] = []
        try:
            for data in [*way, b""]:
                events = decoder.feed(data) if method == "feed" else decoder.payloads(data)
                got += [bytes(e.data if isinstance(e, ServerSentEvent) else e) for e in events]
        except EventTooLargeError:
            return got, True
        return got, False

    stream = b"".join(cut)
    expected = outcome([stream], "feed")

    assert all(len(data) <= limit for data in expected[0])
    for way in (cut, single(stream)):
        assert expected == outcome(way, "feed")
    for way in (cut, [stream], single(stream)):
        assert expected == outcome(way, "payloads")


@settings(max_examples=200, deadline=None)
@given(cut_streams())
def test_finish_any_stream_any_cut(cut: list[bytes]) -> None:
    """
    finish() adds what a last line ending and a blank line would have brought, and nothing else.
    """
    stream = b"".join(cut)
    decoder = SSEDecoder()
    got = [event for data in cut for event in plain(decoder.feed(data))]

    # After a CR, an LF would be the rest of its CRLF.
    assert by_the_book(stream + b"\r\r") == got + plain(decoder.finish())
    assert decoder.finish() == []


# What an event is


def test_feed_data_is_a_view_into_the_chunk() -> None:
    """
    One data line within one chunk is not copied.
    """
    chunk = b"data: " + JSON + b"\n\n"

    decoder = SSEDecoder()
    decoder.feed(b"\n")
    (event,) = decoder.feed(chunk)

    assert isinstance(event.data, memoryview)
    assert event.data.obj is chunk
    assert event.data == JSON
    assert event.data.readonly


def test_feed_first_chunk_of_a_stream_is_a_view_too() -> None:
    """
    Looking for a byte order mark does not copy the chunk.
    """
    chunk = b"data: " + JSON + b"\n\n"

    (event,) = SSEDecoder().feed(chunk)

    assert isinstance(event.data, memoryview)
    assert event.data.obj is chunk


@pytest.mark.parametrize("cut", [[b"data: a\ndata: b\n\n"], [b"data: a", b"\n\n"], [b"da", b"ta: a\n\n"]])
def test_feed_data_is_bytes_when_joined(cut: list[bytes]) -> None:
    """
    Data that lay in several lines or chunks is plain bytes, not a view on something that changes.
    """
    decoder = SSEDecoder()
    (event,) = [event for data in cut for event in decoder.feed(data)]

    assert isinstance(event.data, bytes)


def test_typed_is_of_the_last_packet() -> None:
    """
    Types are told of the events of one packet, and not of those before it.
    """
    decoder = SSEDecoder()

    decoder.payloads(b"event: error\ndata: a\n\n")
    assert [("error", b"a")] == decoder.typed
    decoder.payloads(b"data: b\n\n")
    assert [] == decoder.typed


def test_payloads_are_bytes() -> None:
    """
    payloads() gives bytes on every way through, so that `== b"[DONE]"` is the quick comparison.
    """
    stream = b"data: a\n\ndata: b\ndata: c\n\n: x\n\ndata:d\r\n\r\n" * 3

    for way in ([stream], single(stream), list(pieces(stream, 5))):
        assert {bytes} == {type(payload) for payload in payloads(way)}


def test_feed_lone_cr_at_the_end_of_a_chunk_dispatches_at_once() -> None:
    """
    A blank line that ends in CR does not wait for a possible LF, and the LF is no second blank line.
    """
    decoder = SSEDecoder()

    assert [] == decoder.feed(b"data: a\r")
    assert [Expected(b"a")] == plain(decoder.feed(b"\r"))
    assert [] == decoder.feed(b"\n")
    assert [] == decoder.feed(b"\r\n")
    assert [Expected(b"b")] == plain(decoder.feed(b"data: b\n\n"))


def test_feed_crlf_split_across_reads() -> None:
    """
    A CRLF cut in two by the socket is still one line ending, also with an empty read between.
    """
    decoder = SSEDecoder()

    assert [] == decoder.feed(b"data: a\r")
    assert [] == decoder.feed(b"")
    assert [] == decoder.feed(b"\ndata: b\r")
    assert [Expected(b"a\nb")] == plain(decoder.feed(b"\n\r"))


def test_feed_nothing() -> None:
    """
    No bytes, no events, no harm, wherever the stream stands.
    """
    decoder = SSEDecoder()

    assert [] == decoder.feed(b"")
    assert [] == decoder.payloads(b"")
    decoder.feed(b"data: a")
    assert [] == decoder.feed(b"")
    assert [b"a"] == decoder.payloads(b"\n\n")


def test_event_text_invalid_utf8() -> None:
    """
    `text` decodes as the standard does: what is not UTF-8 becomes U+FFFD, and nothing raises.
    """
    (event,) = SSEDecoder().feed(b"data: a\xffb\n\n")

    assert "a�b" == event.text


def test_event_repr_shows_the_data() -> None:
    """
    A view prints as what it shows.
    """
    (event,) = SSEDecoder().feed(b"id: 3\ndata: a\n\n")

    assert "ServerSentEvent(event='message', data=b'a', id='3', retry=None)" == repr(event)


def test_event_defaults() -> None:
    """
    An event of nothing but data is a message without id.
    """
    (event,) = SSEDecoder().feed(b"data: a\n\n")

    assert ServerSentEvent(data=b"a") == event


def test_last_event_id_changes_at_the_blank_line() -> None:
    """
    An id counts once its block has ended, with data or without; an unfinished block has no say.
    """
    decoder = SSEDecoder()

    seen = [decoder.last_event_id]
    for data in (b"id: 1\n", b"\n", b"id: 2\ndata: a\n", b"\n", b"id\n", b"\n", b"id: 3\n"):
        decoder.feed(data)
        seen.append(decoder.last_event_id)

    assert ["", "", "1", "1", "2", "2", "", ""] == seen


def test_retry_of_a_block_without_data_is_kept() -> None:
    """
    A server that sets the reconnection time alone is heard.
    """
    decoder = SSEDecoder()

    assert decoder.retry is None
    assert [] == decoder.feed(b"retry: 250\n\nretry: no\n\n")
    assert 250 == decoder.retry


# The end


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", []),
        (b"\xef\xbb", []),
        (b"data: a\n\n", []),
        (b"data: a\n", [Expected(b"a")]),
        (b"data: a", [Expected(b"a")]),
        (b"data: a\r", [Expected(b"a")]),
        (b"data: a\ndata: b", [Expected(b"a\nb")]),
        (b"event: e\nid: 1\nretry: 5\ndata: a", [Expected(b"a", "e", "1", 5)]),
        (b"data: a\nid: 1", [Expected(b"a", id="1")]),
        (b"data", [Expected(b"")]),
        (b"event: e\nid: 1", []),
        (b"dat", []),
        (b": a comment", []),
    ],
)
def test_finish_unterminated(stream: bytes, expected: list[Expected]) -> None:
    """
    The end of the stream stands for the line ending and the blank line that never came.
    """
    decoder = SSEDecoder()
    decoder.feed(stream)

    assert expected == plain(decoder.finish())
    assert [] == decoder.finish()


@pytest.mark.parametrize("method", ["feed", "payloads"])
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b": a comm", b"data: b\n\n", 1),
        (b"data: a", b"data: b\n\n", 1),
        (b"", b"data: b\n\n", 1),
        (b"", b"\xef\xbb\xbfdata: b\n\n", 0),
    ],
)
def test_finish_then_more(before: bytes, after: bytes, expected: int, method: str) -> None:
    """
    After the end a decoder stands at the start of a line, and no longer at the start of a stream.
    """
    decoder = SSEDecoder()
    decoder.feed(before)
    decoder.finish()

    assert expected == len(getattr(decoder, method)(after))


def test_feed_never_gives_what_only_finish_may() -> None:
    """
    The standard discards an unfinished event, and so does everything but finish().
    """
    decoder = SSEDecoder()

    assert [] == decoder.feed(b"data: a\n")
    assert [] == decoder.payloads(b"data: b")


# Limits


def test_limit_data_of_exactly_the_limit() -> None:
    """
    max_event_size bytes of data pass, one more does not.
    """
    assert [b"x" * 100] == SSEDecoder(100).payloads(b"data: " + b"x" * 100 + b"\n\n")
    assert [b"x\n" + b"y" * 98] == SSEDecoder(100).payloads(b"data: x\ndata: " + b"y" * 98 + b"\n\n")


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 101 + b"\n\n",
        b"data:" + b"x" * 101 + b"\n\n",
        b"data: x\ndata:" + b"y" * 99 + b"\n\n",
        b"data: " + b"x" * 50 + b"\ndata: " + b"y" * 48 + b"\ndata\ndata\n\n",
    ],
)
def test_limit_one_byte_more(stream: bytes) -> None:
    """
    One byte above the limit is too much, however it is written, joining LFs included.
    """
    for way in ([stream], single(stream)):
        with pytest.raises(EventTooLargeError):
            fed(way, 100)
        with pytest.raises(EventTooLargeError):
            payloads(way, 100)


@pytest.mark.parametrize(
    "endless",
    [b"data: x", b"data:x", b"x", b"id: 1", b"event: x", b"data: x\n", b"data\n", b"data\r\n", b"retry: 1"],
)
@pytest.mark.parametrize("method", ["feed", "payloads"])
def test_limit_endless(endless: bytes, method: str) -> None:
    """
    A line without end, or an event of lines without end, is refused soon after the limit, in a sentence that names it.
    """
    read = getattr(SSEDecoder(1000), method)
    lines = endless.endswith(b"\n")
    sent = 0

    def send() -> None:
        nonlocal sent
        for data in itertools.chain([endless], itertools.repeat(endless if lines else b"x" * 7, 3000)):
            sent += len(data)
            assert [] == read(data)

    with pytest.raises(EventTooLargeError, match=r"max_event_size \(1,000 bytes\)") as caught:
        send()

    assert 1000 <= sent <= 7 * 1010
    assert 1000 == caught.value.max_event_size


@pytest.mark.parametrize("method", ["feed", "payloads"])
def test_limit_events_before_the_fault_come_first(method: str) -> None:
    """
    What arrived in the same bytes before the giant reaches the caller; the error is the next call's.
    """
    decoder = SSEDecoder(10)
    read = getattr(decoder, method)

    assert 2 == len(read(b"data: a\n\ndata: b\n\ndata: " + b"x" * 50))
    with pytest.raises(EventTooLargeError):
        read(b"")


def test_limit_after_the_error_every_call_raises() -> None:
    """
    The middle of a broken event is never read as lines.
    """
    decoder = SSEDecoder(10)
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"data: " + b"x" * 50)

    for call in (
        lambda: decoder.feed(b"\n\ndata: a\n\n"),
        lambda: decoder.payloads(b"data: a\n\n"),
        decoder.finish,
    ):
        with pytest.raises(EventTooLargeError):
            call()


def test_limit_is_an_events_not_a_streams() -> None:
    """
    Any number of events passes, in a chunk that is itself larger than the limit too.
    """
    stream = b"data: 0123456789\n\n" * 1000

    assert 1000 == len(SSEDecoder(10).payloads(stream))
    assert 1000 == len(SSEDecoder(10).feed(stream))


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_limit_comment_without_end_is_discarded(size: int) -> None:
    """
    A comment of any length costs nothing and is no fault.
    """
    decoder = SSEDecoder(100)
    for data in pieces(b"data: a\n:" + b"x" * 10_000 + b"\n\n", size):
        events = decoder.feed(data)

    assert [Expected(b"a")] == plain(events)


def test_limit_of_nothing() -> None:
    """
    A limit that lets no event pass is a mistake, said at once.
    """
    with pytest.raises(ValueError, match="at least 1"):
        SSEDecoder(0)


def test_error_is_ours_and_pickles() -> None:
    """
    It is caught as KimiError or ValueError, and keeps its limit through a pickle.
    """
    error = pickle.loads(pickle.dumps(EventTooLargeError(4096)))

    assert type(error) is EventTooLargeError
    assert issubclass(EventTooLargeError, KimiError)
    assert issubclass(EventTooLargeError, ValueError)
    assert 4096 == error.max_event_size
    assert "4,096 bytes" in str(error)


def peak(stream: Iterable[bytes], decoder: SSEDecoder) -> int:
    """
    The most bytes that reading `stream` allocated at one time.
    """
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        try:
            for data in stream:
                decoder.feed(data)
        except EventTooLargeError:
            pass
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "piece",
    [b"data: x" * 100, b"data:ab\n" * 100, b"data\n" * 100, b"x" * 700, b"x:\n" * 100, b":" + b"x" * 700],
    ids=["line", "short lines", "empty lines", "field", "unknown fields", "comment"],
)
def test_limit_bounds_memory(piece: bytes) -> None:
    """
    Eight times the limit of any one thing takes at most three times the limit: short lines cost no more than long ones.
    """
    limit = MEBI // 8

    assert peak(itertools.repeat(piece, MEBI // len(piece)), SSEDecoder(limit)) < 3 * limit


# Work grows with the bytes, not with their square. Were it otherwise, these would not end: with `prefix + chunk`, 8 MiB in
# pieces of 7 bytes copy 5 TB; with a search per line, 1 MiB of CR lines reads 90 GB.


@pytest.mark.parametrize("method", ["feed", "payloads"])
@pytest.mark.parametrize("size", [7, 1024, 65_536])
def test_large_event_in_pieces(method: str, size: int) -> None:
    """
    An event of 8 MiB arrives whole, however small the pieces.
    """
    text = b"0123456789abcdef" * (MEBI // 2)
    decoder = SSEDecoder()
    read = getattr(decoder, method)
    got = [event for data in pieces(b"data: " + text + b"\n\ndata: end\n\n", size) for event in read(data)]

    assert [text, b"end"] == [event.data if method == "feed" else event for event in got]


def test_large_event_byte_by_byte() -> None:
    """
    Single bytes are the smallest pieces.
    """
    text = b"0123456789abcdef" * (MEBI // 16)
    decoder = SSEDecoder()
    read = decoder.payloads
    stream = b"data: " + text + b"\n\n"
    got = [payload for i in range(len(stream)) for payload in read(stream[i : i + 1])]

    assert [text] == got


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
@pytest.mark.parametrize("size", [MEBI * 16, 1000], ids=["whole", "pieces"])
def test_large_event_of_many_lines(ending: bytes, size: int) -> None:
    """
    170,000 lines make one event of as many lines, whichever line ending the server writes.
    """
    count = 170_000

    got = payloads(pieces((b"data: x" + ending) * count + ending, size))

    assert [b"\n".join([b"x"] * count)] == got


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_many_events_in_one_chunk(ending: bytes) -> None:
    """
    A chunk of 60,000 events is read once, also where it does not contain the other line ending.
    """
    stream = (b"event: e" + ending + b"data: x" + ending * 2) * 60_000

    assert [b"x"] * 60_000 == SSEDecoder().payloads(stream)


# Recordings


def body_of(recording: Path) -> list[bytes]:
    """
    The chunks of a recorded HTTP/1.1 reply with chunked coding.
    """
    rest = recording.read_bytes().partition(b"\r\n\r\n")[2]
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert chunks.pop() == b""
    return chunks


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_recording(recording: Path) -> None:
    """
    What real servers sent comes out as JSON and nothing else, in their own chunks, whole, in odd pieces, byte by byte.
    """
    chunks = body_of(recording)
    stream = b"".join(chunks)
    expected = [event.data for event in by_the_book(stream)]

    assert len(expected) > 3
    assert stream.count(b"\ndata:") + 1 == len(expected)
    for text in expected[:-1]:
        assert "choices" in json.loads(text)
    for way in (chunks, [stream], pieces(stream, 61), pieces(stream, 1000), single(stream)):
        assert expected == payloads(way)
    assert expected == [event.data for event in fed(chunks)]
    assert SSEDecoder().feed(stream)[-1].data == expected[-1]


def test_recordings_done() -> None:
    """
    Every server but one ends with [DONE]: nothing here depends on it.
    """
    last = {path.stem: payloads(body_of(path))[-1] == b"[DONE]" for path in RECORDINGS}

    assert ["transformers-serve.chat"] == [name for name, done in last.items() if not done]
    assert 9 == len(last)


# Writing


def test_encode_event_hot_shape() -> None:
    """
    Data alone is one data line: the shape that Kimi sends and that payloads() reads quickest.
    """
    assert b"data: " + JSON + b"\n\n" == encode_event(JSON)
    assert encode_event(JSON) == encode_event(JSON.decode()) == encode_event(memoryview(JSON))


def test_encode_event_every_field() -> None:
    """
    Fields come before the data, each on its line.
    """
    expected = b"event: e\nid: 7\nretry: 5\ndata: a\ndata: \ndata: b\n\n"

    assert expected == encode_event("a\n\nb", event="e", id="7", retry=5)


@settings(max_examples=200, deadline=None)
@given(
    st.text(),
    st.text().map(lambda text: re.sub(r"[\r\n]", "", text)),
    st.text().map(lambda text: re.sub(r"[\r\n\0]", "", text)),
    st.none() | st.integers(0, 10**18),
    st.text(),
)
def test_encode_decode_any_event(data: str, event: str, id: str, retry: int | None, comment: str) -> None:
    """
    What is written is read again: only CR and CRLF turn into LF, since the format cannot tell them apart.
    """
    stream = (
        encode_comment(comment)
        + encode_event(data, event=event, id=id, retry=retry)
        + encode_comment(comment)
    )
    expected = Expected(re.sub("\r\n?", "\n", data).encode(), event or "message", id, retry)

    assert [expected] == fed([stream])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("event", "a\nb", "event must be a single line"),
        ("event", "a\rb", "event must be a single line"),
        ("id", "1\r\ndata: forged", "id must be a single line"),
        ("id", "1\0", "NUL"),
        ("retry", -1, "0 or more"),
    ],
)
def test_encode_event_refuses_what_would_be_read_otherwise(field: str, value: Any, message: str) -> None:
    """
    A value that would become other fields, or be ignored, is an error where it is written.
    """
    with pytest.raises(ValueError, match=message):
        encode_event("x", **{field: value})


def test_encode_event_number_as_data() -> None:
    """
    A number is not three NUL bytes.
    """
    with pytest.raises(TypeError):
        encode_event(3)  # type: ignore[arg-type]


def test_encode_comment() -> None:
    """
    A comment is a comment on each of its lines, and dispatches nothing.
    """
    assert b": ping\n\n" == encode_comment("ping")
    assert b": a\n: data: b\n\n" == encode_comment("a\r\ndata: b")
    assert [] == fed([encode_comment("a\ndata: b")])
