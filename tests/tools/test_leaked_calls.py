"""
Tool calls left in the text: both families, with the tokens that hosts lose, cut at every character.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from kimi_async.tools.leaks import LeakScanner, find_leak, has_leak

NAMES = ["get_weather", "channel_reply", "read"]
K2 = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
    '{"city": "Beijing", "note": "<|tool_call_end|>"}<|tool_call_end|><|tool_call_begin|>functions.read:1'
    "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
)
K3 = (
    '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>'
    'Bei"jing\n<b><|close|>argument<|sep|><|open|>argument key="d&amp;&quot;" type="number"<|sep|>2<|close|>argument<|sep|>'
    '<|close|>call<|sep|><|open|>call tool="read" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
)
CITY = {"city": "Beijing", "note": "<|tool_call_end|>"}
CITY3 = {"city": 'Bei"jing\n<b>', 'd&"': 2}

# The text that a host sent, what of it is the answer, and the calls in it.
WHOLE: list[Any] = [
    pytest.param(f"Let me look.\n\n{K2}", "Let me look.", [("functions.get_weather:0", "get_weather", CITY), ("functions.read:1", "read", {})], id="k2"),
    pytest.param(K2.replace("tool_calls_section", "tool_call_section"), "", [("functions.get_weather:0", "get_weather", CITY), ("functions.read:1", "read", {})], id="k2 section in the singular"),
    pytest.param(K2.removeprefix("<|tool_calls_section_begin|>"), "", [("functions.get_weather:0", "get_weather", CITY), ("functions.read:1", "read", {})], id="k2 without the section"),
    pytest.param(K2.replace("<|tool_calls_section_end|>", "<|im_end|>"), "", [("functions.get_weather:0", "get_weather", CITY), ("functions.read:1", "read", {})], id="k2 ended by the turn"),
    pytest.param(K2.replace("><", "> \n<"), "", [("functions.get_weather:0", "get_weather", CITY), ("functions.read:1", "read", {})], id="k2 with blanks"),
    pytest.param('Sure: channel_reply:0<|tool_call_argument_begin|>{"text": "x"}<|tool_calls_section_end|>', "Sure:", [("channel_reply:0", "channel_reply", {"text": "x"})], id="k2 first token lost"),
    pytest.param('<|tool_call_begin|>read<|tool_call_argument_begin|>{"a": 1}', "", [("read:0", "read", {"a": 1})], id="k2 without number and end"),
    pytest.param('<|tool_calls_section_begin|>\n<|tool_call_begin|>functions.read\n```json\n{"a": 1}\n```\n<|tool_call_end|>\n<|tool_calls_section_end|>', "", [("read:0", "read", {"a": 1})], id="k2 fenced"),
    pytest.param("<|tool_call_begin|>functions.read:0<|tool_call_argument_begin|><|tool_call_end|>", "", [("functions.read:0", "read", {})], id="k2 without arguments"),
    pytest.param(f"{K2}\nThat is all.", "That is all.", [("functions.get_weather:0", "get_weather", CITY), ("functions.read:1", "read", {})], id="k2 before prose"),
    pytest.param(f"Hm.{K3}", "Hm.", [("get_weather:0", "get_weather", CITY3), ("read:1", "read", {})], id="k3"),
    pytest.param(f"<|open|>response<|sep|>Hm.<|close|>response<|sep|>{K3}<|close|>message<|sep|><|end_of_msg|>", "Hm.", [("get_weather:0", "get_weather", CITY3), ("read:1", "read", {})], id="k3 with its channels"),
    pytest.param(f"<|open|>think<|sep|>secret<|close|>think<|sep|><|open|>response<|sep|>{K3}", "", [("get_weather:0", "get_weather", CITY3), ("read:1", "read", {})], id="k3 with what it thought"),
    pytest.param(K3.replace("tools<|sep|><|open|>call", "toolscall", 1), "", [("get_weather:0", "get_weather", CITY3), ("read:1", "read", {})], id="k3 tags run together"),
    pytest.param(K3.replace("<|close|>tools<|sep|>", "<|close|>toolsmessage<|sep|>"), "", [("get_weather:0", "get_weather", CITY3), ("read:1", "read", {})], id="k3 ends run together"),
    pytest.param(K3.removeprefix("<|open|>tools<|sep|>"), "", [("get_weather:0", "get_weather", CITY3), ("read:1", "read", {})], id="k3 without the section"),
    pytest.param('<|open|>tools<|sep|><|open|>call tool="read" index="1"<|sep|><|open|>json<|sep|>{"a": [1]}<|close|>json<|sep|><|close|>call<|sep|>', "", [("read:0", "read", {"a": [1]})], id="k3 arguments as json"),
]  # fmt: skip

BROKEN: list[Any] = [
    pytest.param(K2.replace("get_weather", "delete_all"), "not offered", id="k2 unknown tool"),
    pytest.param(K3.replace("get_weather", "delete_all"), "not offered", id="k3 unknown tool"),
    pytest.param('<|tool_call_begin|>read:0<|tool_call_argument_begin|>{"a": ', "not whole", id="k2 cut"),
    pytest.param("<|tool_call_begin|>read:0<|tool_call_argument_begin|>[1]<|tool_call_end|>", "no object", id="k2 a list"),
    pytest.param('<|tool_call_begin|>read:0<|tool_call_argument_begin|>{"a": 1} and<|tool_call_end|>', "behind", id="k2 prose in it"),
    pytest.param("<|tool_call_argument_begin|>{}", "no name", id="k2 nameless"),
    pytest.param("The token <|tool_calls_section_begin|> begins a section.", "no call", id="k2 as prose"),
    pytest.param('<|open|>tools<|sep|><|open|>call tool="read"<|sep|><|open|>argument key="a" type="number"<|sep|>x<|close|>argument<|sep|><|close|>call<|sep|>', "number", id="k3 mistyped"),
    pytest.param('<|open|>tools<|sep|><|open|>call tool="read"<|sep|>', "does not end", id="k3 cut"),
    pytest.param('<|open|>tools<|sep|><|open|>call index="1"<|sep|><|close|>call<|sep|>', "no name", id="k3 nameless"),
    pytest.param("Write <|open|>tools<|sep|> first.", "does not end", id="k3 as prose"),
]  # fmt: skip

PLAIN = [
    "No markup at all.",
    "",
    "a < b and b > c",
    "<|im_end|> is a token, <| is none, and get_weather: is a name with a colon",
    "read:0 then functions.read:1 and read",
    "Ends with the name get_weather",
    "blank \n\n ",
    "<|tool_cal",
]


def scanned(pieces: list[str]) -> tuple[str, Any]:
    scanner = LeakScanner(NAMES)
    given = "".join(map(scanner.feed, pieces))
    rest, leak = scanner.finish()
    return given + rest, leak


@pytest.mark.parametrize(("text", "answer", "calls"), WHOLE)
def test_leak_whole(text: str, answer: str, calls: list[Any]) -> None:
    """The calls come out with their names and arguments, and the answer without the markup."""
    leak = find_leak(text, NAMES)

    assert leak is not None
    assert (True, answer) == (leak.whole, leak.text), leak.reason
    assert calls == [(call.id, call.name, json.loads(call.arguments)) for call in leak.calls]


@pytest.mark.parametrize(("text", "reason"), BROKEN)
def test_leak_unreadable(text: str, reason: str) -> None:
    """What is not whole, or was not offered, is no call: it is told, and the text stays as it came."""
    leak = find_leak(text, NAMES)

    assert leak is not None
    assert (False, (), text) == (leak.whole, leak.calls, leak.text)
    assert reason in leak.reason


@pytest.mark.parametrize("text", PLAIN)
def test_no_leak(text: str) -> None:
    """Prose is no leak, and passes a stream unchanged however it is cut."""
    assert not has_leak(text)
    assert find_leak(text, NAMES) is None
    assert (text, None) == scanned(list(text))
    for cut in range(len(text)):
        assert (text, None) == scanned([text[:cut], text[cut:]])


@pytest.mark.parametrize("text", [case.values[0] for case in (*WHOLE, *BROKEN)])
def test_leak_streamed_however_cut(text: str) -> None:
    """Cut anywhere, and character by character, a stream gives what the whole text gives; no token is ever shown of a whole leak."""
    whole = find_leak(text, NAMES)
    assert whole is not None
    for pieces in ([text[:cut], text[cut:]] for cut in range(len(text) + 1)):
        assert (whole.text, whole) == scanned(pieces)
    assert (whole.text, whole) == scanned(list(text))


@pytest.mark.parametrize("text", [case.values[0] for case in WHOLE])
def test_leak_that_breaks_off_is_no_call(text: str) -> None:
    """A leak that ends anywhere before its end is never taken for less than it is: no call, or the same calls."""
    whole = find_leak(text, NAMES)
    assert whole is not None
    for cut in range(len(text)):
        leak = find_leak(text[:cut], NAMES)
        if leak is not None and leak.whole:
            assert leak.calls == whole.calls[: len(leak.calls)]
            assert json.loads(leak.calls[-1].arguments) == json.loads(
                whole.calls[len(leak.calls) - 1].arguments
            )
        assert text[:cut] == scanned([text[:cut]])[0] or leak is not None


def test_leak_stream_gives_prose_at_once() -> None:
    """Prose does not wait: what comes out lags by no more than what could still become a token or a call."""
    scanner = LeakScanner(NAMES)
    assert "Hello" == scanner.feed("Hello")
    assert " there, a" == scanner.feed(" there, a <")
    assert " < b" == scanner.feed(" b")
    assert not scanner.leaking


def test_endless_blanks_in_small_pieces_cost_no_more_each() -> None:
    """A model that loops on newlines holds up nobody: no piece makes what is held be read again (it took minutes)."""
    scanner = LeakScanner(NAMES)
    begun = time.process_time()
    assert not any(scanner.feed("\n ") for _ in range(300_000))
    assert "\n " * 300_000 + "end" == scanner.feed("end")
    assert ("", None) == scanner.finish()
    assert time.process_time() - begun < 10
