"""
Bytes to meaning and back: JSON into structs, refusals into errors, headers into waits.

Plain functions, without a loop, a clock or dice. May use errors and types, and from outside msgspec.
"""

from .faults import error_from, error_in_stream
from .foreign import error_object
from .json import (
    REASONING,
    SurrogateJoiner,
    decode_chunk,
    decode_patiently,
    decode_reply,
    decoder_for,
    encode,
    given,
    outgoing,
)

__all__ = [
    "REASONING",
    "SurrogateJoiner",
    "decode_chunk",
    "decode_patiently",
    "decode_reply",
    "decoder_for",
    "encode",
    "error_from",
    "error_in_stream",
    "error_object",
    "given",
    "outgoing",
]
