"""
Event streams and what the WHATWG rules make of them.

The kinds of case are those that other test suites have found worth testing, above all the `eventsource/format-*` tests of
web-platform-tests, httpx-sse, eventsource-parser and Node.js; the bytes and the expectations were written from the rules
(https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
"""

from typing import NamedTuple

__all__ = ["AWKWARD", "CASES", "Case", "Expected"]


class Expected(NamedTuple):
    """An event as the rules give it; the data as plain bytes."""

    data: bytes
    event: str = "message"
    id: str = ""
    retry: int | None = None


class Case(NamedTuple):
    name: str
    stream: bytes
    expected: list[Expected]


E = Expected
BOM = b"\xef\xbb\xbf"

CASES = [
    # Nothing
    Case("empty stream", b"", []),
    Case("only blank lines", b"\n\r\n\r\n\n", []),
    Case("only a byte order mark", BOM, []),
    Case("only a comment", b": nothing to say\n\n", []),
    # Data
    Case("data", b"data: x\n\n", [E(b"x")]),
    Case("two events", b"data: x\n\ndata: y\n\n", [E(b"x"), E(b"y")]),
    Case("three data lines", b"data: KIMI\ndata: +4\ndata: 96\n\n", [E(b"KIMI\n+4\n96")]),
    Case("data without a space", b"data:x\n\n", [E(b"x")]),
    Case("data with two spaces keeps one", b"data:  x\n\n", [E(b" x")]),
    Case("data with a tab keeps it", b"data:\tx\n\n", [E(b"\tx")]),
    Case("trailing space is data", b"data: x \n\n", [E(b"x ")]),
    Case("colons in the value are data", b"data: a: b:c\n\n", [E(b"a: b:c")]),
    Case("value that looks like a field", b"data: data: x\n\n", [E(b"data: x")]),
    Case("data without a colon is one empty line", b"data\n\n", [E(b"")]),
    Case("data with an empty value", b"data:\n\ndata: \n\n", [E(b""), E(b"")]),
    Case("two empty data lines", b"data\ndata\n\n", [E(b"\n")]),
    Case("empty lines of data around text", b"data\ndata: x\ndata\n\n", [E(b"\nx\n")]),
    Case("blank after a space and nothing", b"data: \ndata: x\n\n", [E(b"\nx")]),
    Case("a colon alone in the value", b"data::\n\n", [E(b":")]),
    # Where events end
    Case("no last blank line", b"data: x\n\ndata: y\n", [E(b"x")]),
    Case("no last line ending", b"data: x\n\ndata: y", [E(b"x")]),
    Case("more blank lines than needed", b"\n\n\ndata: x\n\n\n\ndata: y\n\n\n", [E(b"x"), E(b"y")]),
    Case("a line with only a space is a field", b"data: x\n \ndata: y\n\n", [E(b"x\ny")]),
    # Line endings
    Case("CR", b"data: a\rdata: b\r\rdata: c\r\r", [E(b"a\nb"), E(b"c")]),
    Case("CRLF", b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [E(b"a\nb"), E(b"c")]),
    Case("LF CR ends two lines", b"data: a\n\rdata: b\n\r", [E(b"a"), E(b"b")]),
    Case("CR CRLF ends two lines", b"data: a\r\r\ndata: b\r\r\n", [E(b"a"), E(b"b")]),
    Case("CRLF and LF mixed", b"data: a\r\n\ndata: b\n\r\n", [E(b"a"), E(b"b")]),
    Case("CRLF CR and LF within an event", b"data:a\r\ndata\ndata:b\rdata:c\r\n\r\n", [E(b"a\n\nb\nc")]),
    Case("data after a CR blank line", b"data: a\r\r\r\rdata: b\r\r", [E(b"a"), E(b"b")]),
    Case("LF events then CR events", b"data: a\n\ndata: b\r\r", [E(b"a"), E(b"b")]),
    Case("one CR among LF events", b"data: a\n\ndata: b\rc\n\ndata: d\n\n", [E(b"a"), E(b"b"), E(b"d")]),
    Case("one LF among CRLF events", b"data: a\r\n\r\ndata: b\ndata: c\r\n\r\n", [E(b"a"), E(b"b\nc")]),
    Case("vertical tab and form feed are data", b"data: a\x0bb\x0cc\n\n", [E(b"a\x0bb\x0cc")]),
    Case("file and record separators are data", b"data: a\x1cb\x1db\x1e\n\n", [E(b"a\x1cb\x1db\x1e")]),
    Case(
        "U+0085, U+2028 and U+2029 are data",
        "data: a\u0085b\u2028c\u2029d\n\n".encode(),
        [E("a\u0085b\u2028c\u2029d".encode())],
    ),
    # Byte order mark
    Case("byte order mark", BOM + b"data: a\n\ndata: b\n\n", [E(b"a"), E(b"b")]),
    Case("second mark belongs to the name", BOM + BOM + b"data: a\n\ndata: b\n\n", [E(b"b")]),
    Case(
        "mark before the second event",
        BOM + b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n",
        [E(b"a"), E(b"c")],
    ),
    Case("mark after a blank line", b"\n" + BOM + b"data: a\n\ndata: b\n\n", [E(b"b")]),
    Case("two bytes of a mark", b"\xef\xbbdata: a\n\ndata: b\n\n", [E(b"b")]),
    Case("one byte of a mark, then a line ending", b"\xef\ndata: b\n\n", [E(b"b")]),
    Case("mark, then CRLF", BOM + b"\r\ndata: b\r\n\r\n", [E(b"b")]),
    Case("mark in data", b"data: " + BOM + b"\n\n", [E(BOM)]),
    # Comments
    Case("comment before, in and after", b":a\ndata: x\n:b\n: c\ndata: y\n:\n\n:d\n\n", [E(b"x\ny")]),
    Case("comment that looks like data", b":data: x\ndata: y\n\n", [E(b"y")]),
    Case("comment with NUL and bad UTF-8", b":\0\xff\xfe\r\ndata: y\n\n", [E(b"y")]),
    Case("comments between plain events", b"data: x\n\n: ping\n\ndata: y\n\n", [E(b"x"), E(b"y")]),
    Case("a space before the colon is no comment", b" : x\ndata: y\n\n", [E(b"y")]),
    Case("endless signs of life", b": ping\n\n" * 5 + b"data: x\n\n" + b":\n" * 5, [E(b"x")]),
    # Event type
    Case("event type", b"event: add\ndata: x\n\n", [E(b"x", "add")]),
    Case("event type after data", b"data: x\nevent: add\n\n", [E(b"x", "add")]),
    Case("event type does not stick", b"event: add\ndata: x\n\ndata: y\n\n", [E(b"x", "add"), E(b"y")]),
    Case("event type of a block without data is dropped", b"event: add\n\ndata: y\n\n", [E(b"y")]),
    Case("the last event type counts", b"event: a\nevent: b\ndata: x\n\n", [E(b"x", "b")]),
    Case(
        "empty event type is message", b"event: a\nevent:\ndata: x\n\nevent\ndata: y\n\n", [E(b"x"), E(b"y")]
    ),
    Case("event type keeps its spaces", b"event:  a \ndata: x\n\n", [E(b"x", " a ")]),
    Case("ping without data", b"event: ping\ndata\n\nevent: ping\n\n", [E(b"", "ping")]),
    # Id
    Case("id", b"id: 1\ndata: x\n\n", [E(b"x", id="1")]),
    Case("id sticks", b"id: 1\ndata: x\n\ndata: y\n\n", [E(b"x", id="1"), E(b"y", id="1")]),
    Case("id after data", b"data: x\nid: 1\n\n", [E(b"x", id="1")]),
    Case("id of a block without data sticks", b"id: 1\n\ndata: y\n\n", [E(b"y", id="1")]),
    Case("empty id clears", b"id: 1\ndata: x\n\nid:\ndata: y\n\n", [E(b"x", id="1"), E(b"y")]),
    Case("id without a colon clears", b"id: 1\ndata: x\n\nid\ndata: y\n\n", [E(b"x", id="1"), E(b"y")]),
    Case("id with NUL is ignored", b"id: 1\nid: 2\x003\ndata: x\n\n", [E(b"x", id="1")]),
    Case("id of only NUL is ignored", b"id:\0\ndata: x\n\n", [E(b"x")]),
    Case("id with NUL in a block without data", b"id: 1\x00\n\ndata: x\n\n", [E(b"x")]),
    Case("id with text beyond ASCII", "id: …\ndata: x\n\n".encode(), [E(b"x", id="…")]),
    Case("the last id counts", b"id: 1\nid: 2\ndata: x\n\n", [E(b"x", id="2")]),
    # Retry
    Case("retry", b"retry: 3000\ndata: x\n\n", [E(b"x", retry=3000)]),
    Case("retry is its own event's", b"retry: 3\ndata: x\n\ndata: y\n\n", [E(b"x", retry=3), E(b"y")]),
    Case("retry alone is no event", b"retry: 3\n\ndata: y\n\n", [E(b"y")]),
    Case(
        "retry zero and leading zeros",
        b"retry: 0\ndata: x\n\nretry:007\ndata: y\n\n",
        [E(b"x", retry=0), E(b"y", retry=7)],
    ),
    Case("retry of many zeros", b"retry: " + b"0" * 40 + b"7\ndata: x\n\n", [E(b"x", retry=7)]),
    Case("retry with a letter", b"retry: 5\nretry: 30s\ndata: x\n\n", [E(b"x", retry=5)]),
    Case("retry with a sign", b"retry: -5\nretry: +5\ndata: x\n\n", [E(b"x")]),
    Case("retry with spaces", b"retry:  5\nretry: 5 \ndata: x\n\n", [E(b"x")]),
    Case("retry with a point, an underscore", b"retry: 5.0\nretry: 5_0\ndata: x\n\n", [E(b"x")]),
    Case("retry empty", b"retry\nretry:\nretry: \ndata: x\n\n", [E(b"x")]),
    Case("retry of digits beyond ASCII", "retry: ５٣\ndata: x\n\n".encode(), [E(b"x")]),
    Case("retry of no possible length", b"retry: " + b"9" * 60 + b"\ndata: x\n\n", [E(b"x")]),
    # Names
    Case("unknown fields", b"foo: 1\ndata: x\nfoo\nbar:\n\n", [E(b"x")]),
    Case("names are case-sensitive", b"Data: 1\nDATA: 2\ndata: x\nEvent: e\nID: 3\n\n", [E(b"x")]),
    Case("a space before the name", b" data: 1\ndata: x\n\n", [E(b"x")]),
    Case("a space after the name", b"data : 1\ndata: x\n\n", [E(b"x")]),
    Case("NUL in the name", b"data\0: 1\n\0data: 2\ndata: x\n\n", [E(b"x")]),
    Case("name that begins with data", b"datax: 1\ndata5\ndata-x:2\ndata: x\n\n", [E(b"x")]),
    Case("name that data begins with", b"dat: 1\nd\nda:ta: 2\ndata: x\n\n", [E(b"x")]),
    Case("a line without a colon", b"hello\ndata: x\n\n", [E(b"x")]),
    Case("a reply that is not a stream", b'{"error": {"message": "no"}}\n\n', []),
    Case("HTML", b"<html>\n<body>\n\n502 Bad Gateway</body>\n</html>\n\n", []),
    # Bytes
    Case("NUL in data", b"data: a\0b\n\n", [E(b"a\0b")]),
    Case("text beyond ASCII", "data: 月之暗面 🌘\n\n".encode(), [E("月之暗面 🌘".encode())]),
    Case("invalid UTF-8 in data stays as it came", b"data: \xff\xc3\n\n", [E(b"\xff\xc3")]),
    Case(
        "invalid UTF-8 in event and id is replaced",
        b"event: \xff\nid: \xc3\ndata: x\n\n",
        [E(b"x", "�", "�")],
    ),
    Case("JSON with an escaped line ending", b'data: {"a":"\\n\\r"}\n\n', [E(b'{"a":"\\n\\r"}')]),
    Case("done", b'data: {"a":1}\n\ndata: [DONE]\n\n', [E(b'{"a":1}'), E(b"[DONE]")]),
    Case("blank data among plain events", b"data: a\n\ndata: \n\ndata: b\n\n", [E(b"a"), E(b""), E(b"b")]),
    Case("plain events without a space", b"data:a\n\ndata:b\n\ndata: c\n\n", [E(b"a"), E(b"b"), E(b"c")]),
    Case("plain event, then two data lines", b"data: a\n\ndata: b\ndata: c\n\n", [E(b"a"), E(b"b\nc")]),
    Case("three line endings between plain events", b"data: a\n\n\ndata: b\n\n", [E(b"a"), E(b"b")]),
]

AWKWARD = (
    BOM
    + b": hi\r\n\r\nevent: a\rdata: 1\r\ndata\n\rid: 7\n\r\ndata: {}\n\ndata: \xe6\x9c\x88\n\nid: \0\nretry: 5\r\r\n"
    + b"data: [DONE]\r\n\r\n"
)
"""One text with everything in it, to be cut in every two places."""
