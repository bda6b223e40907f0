"""
Bytes to meaning and back: JSON into structs, refusals into errors, headers into waits.

Plain functions, without a loop, a clock or dice. May use errors and types, and from outside msgspec.
"""

from .json import (
    SurrogateJoiner,
    decode_chunk,
    decode_patiently,
    decode_reply,
    decoder_for,
    encode,
    error_from,
    error_in_stream,
    error_object,
)

__all__ = [
    "SurrogateJoiner",
    "decode_chunk",
    "decode_patiently",
    "decode_reply",
    "decoder_for",
    "encode",
    "error_from",
    "error_in_stream",
    "error_object",
]
