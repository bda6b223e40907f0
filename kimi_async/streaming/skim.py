"""
What the events of one stream have in common: all but a piece of text, as a rule.

Where nobody wants the chunks, since only the end is wanted or the bytes are handed on, a packet of such events is taken apart by
one split, and their texts are decoded as one list: no struct is made, and nothing else of them looked at, since it has been seen.
Whatever differs by a byte is left to the long way.
"""

import re

import msgspec

from ..codec.json import decode_chunk
from ..sse import CR, LF
from ..types.completions import ChatCompletionChunk
from .fold import Accumulator

__all__ = ["Skim"]

BEGINS, ENDS = b"data: ", b"\n\n"
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
FIELDS = {
    name: re.compile(b'"%b"\\s*:\\s*("(?:[^"\\\\]|\\\\.)*")' % name.encode())
    for name in ("content", "reasoning_content")
}
# In place of a text, to see that it was this piece of the event that held it.
MARK = "\N{SNOWMAN} 7f3a"
# How often what is alike is looked for in vain: a host whose events differ each time is not asked for ever.
LESSONS = 8

_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode


class Skim:
    """
    Takes their texts out of events that are alike: 0.3 µs an event, twelve of them in a packet, where decoding and folding each
    takes 1.0.
    """

    __slots__ = ("_field", "_head", "_lessons", "_tail")

    def __init__(self) -> None:
        self._head = self._tail = b""
        """Of an event, what stands before the text, and after it."""
        self._field = ""
        """Where the text belongs."""
        self._lessons = LESSONS

    @property
    def knows_text(self) -> bool:
        """Whether the known kind is pieces of the answer's text, and not of its reasoning."""
        return self._field == "content" and self._head != b""

    def chunk(self, text: str) -> ChatCompletionChunk:
        """The chunk of an event of the known kind."""
        start, stop = len(BEGINS), -len(ENDS)
        return decode_chunk(self._head[start:] + msgspec.json.encode(text) + self._tail[:stop])

    def folds(self, data: bytes, fold: Accumulator | None) -> list[str]:
        """The texts of `data`, which begins an event and ends one, if it holds nothing but events of the known kind. They are folded."""
        head, tail = self._head, self._tail
        if fold is None or not head or not (data.startswith(head) and data.endswith(tail)):
            return []
        if data.find(ENDS) == len(data) - len(ENDS):  # as a model sends them
            return self._folds_one(data[len(head) : -len(tail)], fold)
        # A split by all that is alike takes twice as long, for 64 events: it is made for short separators.
        start, stop = len(head) - len(BEGINS), len(ENDS) - len(tail)
        pieces = [event[start:stop] for event in data[len(BEGINS) : -len(ENDS)].split(ENDS + BEGINS)]
        if data != b"".join((head, (tail + head).join(pieces), tail)):
            return []
        joined = b",".join(pieces)
        if LF in joined or CR in joined:
            return []  # JSON takes line ends between its parts; an event ends there
        try:
            texts = _texts(b"[%b]" % joined)
        except UNREADABLE:
            return []
        if len(texts) != len(pieces) or not fold.add_texts(self._field, texts):
            return []
        self._lessons = LESSONS
        return texts

    def _folds_one(self, piece: bytes, fold: Accumulator) -> list[str]:
        if LF in piece or CR in piece:
            return []
        try:
            text = _text(piece)
        except UNREADABLE:
            return []
        if not fold.add_texts(self._field, (text,)):
            return []
        self._lessons = LESSONS
        return [text]

    def learn(self, data: bytes, fold: Accumulator | None) -> None:
        """Looks at the first event of `data`, which has been folded: are there to be more of the kind?"""
        if fold is None or not self._lessons or not data.startswith(BEGINS):
            return
        self._lessons -= 1
        self._head = b""
        payload = data[len(BEGINS) : data.find(ENDS)]
        try:
            chunk = decode_chunk(payload)
            for field, held in FIELDS.items():
                if fold.is_plain(chunk, field) and (found := held.search(payload)) is not None:
                    head, tail = payload[: found.start(1)], payload[found.end(1) :]
                    setattr(chunk.choices[0].delta, field, MARK)
                    if decode_chunk(head + msgspec.json.encode(MARK) + tail) == chunk:
                        self._head, self._tail, self._field = BEGINS + head, tail + ENDS, field
        except UNREADABLE:
            pass
