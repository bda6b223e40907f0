"""
Where nobody wants the chunks, events that are alike are folded by their texts alone; the answer is the same to the byte.
"""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_async import InternalServerError
from kimi_async.streaming import digest as digests
from kimi_async.streaming.digest import Digest
from kimi_async.streaming.fold import Accumulator
from kimi_async.streaming.skim import LESSONS, Skim
from kimi_async.transport.exchange import Request, Response

END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def event(delta: Any, *, choice: Any = None, ascii_only: bool = False, **more: Any) -> bytes:
    value = {
        "id": "c",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None, **(choice or {})}],
        **more,
    }
    return b"data: " + json.dumps(value, ensure_ascii=ascii_only).encode() + b"\n\n"


def piece(text: str, **more: Any) -> bytes:
    return event({"content": text}, **more)


ROLE = event({"role": "assistant", "content": ""})


def digest_of(*packets: bytes, dropped: bool, max_event_size: int = 1 << 20) -> Digest[Any]:
    """What a stream amounts to whose packets these are; their chunks are dropped from the second on, or none is."""
    digest: Digest[Any] = Digest(
        Response(200, request=Request("POST", "http://h/")),
        decode=None,
        fold=Accumulator(),
        max_event_size=max_event_size,
    )
    for number, packet in enumerate(packets):
        if digest.done or digest.fault is not None:
            break
        if dropped and number:
            digest.take_in(packet)
        else:
            digest.feed(packet)
        digest.settle()
    return digest


def told(digest: Digest[Any]) -> tuple[Any, ...]:
    fold = digest.fold
    assert fold is not None
    completion = fold.completion()
    return (
        msgspec.to_builtins(completion),
        fold.chunks,
        digest.done,
        None if digest.fault is None else (type(digest.fault), str(digest.fault)),
    )


def skimmed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes were folded by their texts alone, packet by packet, from now on."""
    sizes: list[int] = []

    class Noted(Skim):
        def folds(self, data: bytes, fold: Accumulator | None) -> list[str]:
            found = super().folds(data, fold)
            sizes.append(len(data) * bool(found))
            return found

    monkeypatch.setattr(digests, "Skim", Noted)
    return sizes


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_skim_takes_the_text_of_a_lone_event(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As a model sends them; handed on they are the very bytes that came.
    """
    sizes = skimmed(monkeypatch)
    packets = [event({field: text}) for text in ("first ", "a", '"', "\n\n", "令牌", "")]

    passed, (completion, chunks, _, _) = handed_on([ROLE, *packets])

    assert b"".join([ROLE, *packets]) == passed
    assert 'first a"\n\n令牌' == completion["choices"][0]["message"][field]
    assert 7 == chunks
    assert [*map(len, packets[2:])] == sizes[-4:]


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_skim_takes_the_texts_of_events_that_are_alike(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Text and reasoning, of several events in a packet, with quotes, escapes and what no ASCII holds.
    """
    sizes = skimmed(monkeypatch)
    texts = ["a", 'say "', "\\", "\n\n", "data: ", "令牌", "\U0001f316", ""]
    packet = b"".join(event({field: text}) for text in texts)

    digest = digest_of(ROLE, event({field: "first "}), packet, packet, dropped=True)
    assert digest.fold is not None
    completion = digest.fold.completion()
    assert completion is not None

    assert "first " + "".join(texts) * 2 == getattr(completion.choices[0].message, field)
    assert 2 + 2 * len(texts) == digest.fold.chunks
    assert [len(packet)] * 2 == sizes[-2:]


# Packets that are not, or not only, events alike: what each holds is told as if it had been handed out.
OTHERS = {
    "end": piece("x") + END,
    "end alone": END,
    "usage": piece("x", usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
    "error": piece("x") + b'data: {"error":{"message":"too much","type":"engine_overloaded_error"}}\n\n',
    "error of type": b'event: error\ndata: {"message":"no"}\n\n',
    "call": event({"tool_calls": [{"index": 0, "id": "f:0", "function": {"name": "f", "arguments": "{}"}}]}),
    "reasoning": event({"reasoning_content": "hm"}) * 2 + piece("x"),
    "two choices": piece("x", choice={"index": 1, "finish_reason": "stop"}) + piece("y"),
    "another id": piece("x", id="d") + piece("y", id="d"),
    "comments": b": ping\n\n" + piece("x") + b": ping\n\n",
    "crlf": piece("x").replace(b"\n", b"\r\n") * 2 + piece("y"),
    "two data lines": piece("x").replace(b'"id"', b'\ndata: "id"'),
    "halves": piece("\ud83c", ascii_only=True) + piece("\udf16", ascii_only=True) + piece("x"),
    "half": piece("\ud83c", ascii_only=True),
    "broken string": piece("x").replace(b'"x"', b'"x'),
    "number": piece("x").replace(b'"x"', b"1"),
    "null": piece("x").replace(b'"x"', b"null") + piece("y"),
    "two in one": piece("x").replace(b'"x"', b'"x","y"'),
    "none and two": piece("x").replace(b'"x"', b"") + piece("x").replace(b'"x"', b'"x","y"'),
    "line end within": piece("x").replace(b'"x"', b'"x"\n'),
    "blank line within": piece("x").replace(b'"x"', b'"x"\n\n"y"'),
    "carriage return within": piece("x").replace(b'"x"', b'"x"\r'),
    "another field": piece("x").replace(b'"x"', b'"x", "refusal": "no"'),
    "no blank": piece("x").replace(b"data: ", b"data:"),
    "logprobs": piece("x", choice={"logprobs": {"content": [{"token": "x"}]}}),
    "garbage": b"data: nonsense\n\n",
    "ping": b"data: null\n\n" + piece("x"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_skim_leaves_what_differs_to_the_long_way(other: bytes) -> None:
    """
    Whatever comes between events that are alike, whole or cut anywhere, means what it means to one who is handed the chunks.
    """
    plain = piece("a") + piece("b") + piece("c")
    body = plain + other + plain + END

    expected = told(digest_of(ROLE + piece("first"), plain, body, dropped=False))

    for cut in range(0, len(body) + 1, 7):
        packets = [plain, body[:cut], body[cut:]]
        assert expected == told(digest_of(ROLE + piece("first"), *packets, dropped=True))


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_skim_hands_on_what_the_long_way_hands_on(other: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A relay's reader gets the same bytes, one event a packet or several, and what is told of them is the same.
    """
    plain = [piece("a"), piece("b") + piece("c"), piece("d")]
    packets = [ROLE, *plain, other, *plain, *[each + b"\n\n" for each in END.split(b"\n\n")[:-1]]]

    found = handed_on(packets)
    monkeypatch.setattr(Skim, "learn", lambda *_: None)

    assert handed_on(packets) == found


def handed_on(packets: list[bytes]) -> Any:
    digest = digest_of(packets[0], dropped=False)
    passed = digest.hand_on()
    for packet in packets[1:]:
        if digest.done or digest.fault is not None:
            break
        passed += digest.feed(packet)
    return b"".join(passed), told(digest)


@given(
    texts=st.lists(st.text(max_size=4), max_size=12),
    cuts=st.lists(st.integers(0, 1200), max_size=4),
    reasons=st.booleans(),
)
def test_skim_is_the_same_answer_however_it_is_cut(texts: list[str], cuts: list[int], reasons: bool) -> None:
    """
    Any texts, in packets that end anywhere.
    """
    field = "reasoning_content" if reasons else "content"
    body = b"".join(event({field: text}) for text in texts) + END
    bounds = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    packets = [body[start:stop] for start, stop in pairwise(bounds)]

    begun = [ROLE + event({field: "first"}), event({field: "second"})]

    assert told(digest_of(*begun, *packets, dropped=False)) == told(digest_of(*begun, *packets, dropped=True))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"choices":[{"index":0,"delta":{"content":"a","content":"b"}}]}',
        b'{"x":{"content":"a"},"choices":[{"index":0,"delta":{"content":"b"}}]}',
        b'{"x":"\\"content\\":","y":"content","choices":[{"index":0,"delta":{"\\u0063ontent":"b"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"a","tool_calls":[]}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"a","reasoning":"b"}}]}',
        b'{"choices":[{"index":1,"delta":{"content":"a"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":""}}]}',
        b"nonsense",
    ],
)
def test_skim_learns_nothing_from_what_says_more(payload: bytes) -> None:
    """
    A text that may not be the answer's, or has company, is no sample.
    """
    fold = digest_of(ROLE + piece("first"), dropped=False).fold
    assert fold is not None
    skim = Skim()
    data = b"data: " + payload + b"\n\n"

    skim.learn(data, fold)

    assert not skim.folds(data, fold)
    assert 2 == fold.chunks


def test_skim_gives_up_where_events_are_never_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A host that numbers its events is not asked for ever what they have in common; one that changes now and then is.
    """
    learnt: list[bytes] = []
    inner = digests.Skim.learn

    def learn(self: Skim, data: bytes, fold: Accumulator | None) -> None:
        learnt.append(data)
        inner(self, data, fold)

    monkeypatch.setattr(Skim, "learn", learn)
    sizes = skimmed(monkeypatch)
    digest_of(ROLE, *[piece("x", created=number) * 2 for number in range(3 * LESSONS)], dropped=True)
    assert not any(sizes)

    digest_of(ROLE, *[piece("x", created=number // 2) * 2 for number in range(6 * LESSONS)], dropped=True)
    assert 3 * LESSONS == sum(map(bool, sizes))


def test_skim_passes_no_stray_line_over() -> None:
    """
    An error that was written without `data:` is found between events that are alike.
    """
    stray = b'{"error":{"message":"no","type":"server_error"}}\n\n'

    digest = digest_of(ROLE, piece("a"), piece("b") + stray + piece("c"), piece("d"), dropped=True)

    assert isinstance(digest.fault, InternalServerError)


def test_skim_keeps_the_bound_of_an_event() -> None:
    """
    An event that is too large is refused as ever.
    """
    packets = [ROLE, piece("a"), piece("a" * 600)]

    dropped = digest_of(*packets, dropped=True, max_event_size=512)

    assert told(digest_of(*packets, dropped=False, max_event_size=512)) == told(dropped)
    assert dropped.fault is not None
