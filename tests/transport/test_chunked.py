"""
The chunked transfer coding: every cut gives the same payload, and what is no plain chunk is left to the parser untouched.
"""

import itertools

import pytest

from kimi_async.transport.chunked import ChunkedBody

END = b"0\r\n\r\n"


def coded(*payloads: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in payloads)


def fed(*pieces: bytes) -> tuple[bytes, bytes | None]:
    """What the pieces carry, and what is left to the parser: of the first piece that has it, and all after."""
    body, out = ChunkedBody(), b""
    for number, piece in enumerate(pieces):
        out += body.payload(piece)
        if body.rest is not None:
            return out, body.rest + b"".join(pieces[number + 1 :])
    return out, None


PAYLOADS = (b"data: one\n\n", b"a line\r\nand 0\r\n\r\n in it", b"x" * 40)


def test_payload_cut_everywhere() -> None:
    """
    Two cuts anywhere change neither what is carried nor what is left, CRLFs inside the data included.
    """
    raw = coded(*PAYLOADS) + END
    expected = (b"".join(PAYLOADS), END)

    for one, two in itertools.combinations_with_replacement(range(len(raw) + 1), 2):
        assert expected == fed(raw[:one], raw[one:two], raw[two:])


def test_payload_byte_by_byte() -> None:
    """
    A server that sends single bytes is read like any other.
    """
    raw = coded(*PAYLOADS) + END

    assert (b"".join(PAYLOADS), END) == fed(*(raw[at : at + 1] for at in range(len(raw))))


@pytest.mark.parametrize("size", [0, 1, 40, 2_100])
def test_payload_one_chunk_a_packet(size: int) -> None:
    """
    A chunk alone in its packet is what a live model sends; what looks like one and is none is left as it is.
    """
    packets = [coded(b"x" * size + each) for each in PAYLOADS]

    assert (b"".join(b"x" * size + each for each in PAYLOADS), END) == fed(*packets, END)
    for odd in (b"b;name=value\r\ndata: one\n\n\r\n", b"-b\r\ndata: one\n\n\r\n", b"0\r\n\r\n"):
        assert (PAYLOADS[0], odd) == fed(coded(PAYLOADS[0]), odd)


def test_payload_whole_chunks_in_one_packet() -> None:
    """
    Chunks that came together come out together, and nothing is left while more may come.
    """
    assert (b"onetwothree", None) == fed(coded(b"one", b"two", b"three"))


@pytest.mark.parametrize(
    "end",
    [
        END,
        END[:-1],
        END[:3],
        b"0\r\nTrailer: x\r\n\r\n",
        b"0;name=value\r\n\r\n",
        END + b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_last_chunk_in_packet_of_others(end: bytes) -> None:
    """
    The end of a body is left to the parser from its first byte on, also where it came in one packet with data.
    """
    assert (b"onetwo", end) == fed(coded(b"one", b"two") + end)


def test_payload_comes_before_its_chunk_is_whole() -> None:
    """
    What has come of a chunk is handed out at once: a server may write for minutes into one chunk.
    """
    body = ChunkedBody()

    assert b"data: hi\n\n" == body.payload(b"20\r\ndata: hi\n\n")
    assert None is body.rest


@pytest.mark.parametrize(
    "odd",
    [b"5;name=value\r\nhello\r\n", b" 5\r\n", b"+5\r\n", b"0x5\r\n", b"5_0\r\n", b"5\n", b"\r\n", b"f" * 20],
)
def test_rest_begins_at_what_is_no_plain_chunk(odd: bytes) -> None:
    """
    Extensions, bare line feeds and nonsense are the parser's, from the first byte of the chunk on.
    """
    assert (b"one", odd + coded(b"two")) == fed(coded(b"one") + odd + coded(b"two"))


def test_rest_when_chunk_has_no_end() -> None:
    """
    Data that is longer than its size says stays with the parser, which refuses it.
    """
    assert (b"one", b"3\r\ntwo!!\r\n") == fed(coded(b"one") + b"3\r\ntwo!!\r\n")


def test_rest_when_cut_chunk_has_no_end() -> None:
    """
    Where part of such a chunk has been handed out, the parser gets what it takes for no chunk.
    """
    assert (b"onetwo", b"?") == fed(coded(b"one") + b"3\r\ntw", b"o!!\r\n")
