"""
A streamed answer: its chunks, their fold into a completion, the events told on the way, and how a broken one goes on.

May use codec, sse, transport and types; knows no client.
"""

from .stream import DRAIN, GRACE, AsyncStream

__all__ = ["DRAIN", "GRACE", "AsyncStream"]
