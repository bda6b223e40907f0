"""
A streamed answer: its chunks, their fold into a completion, the events told on the way, and how a broken one goes on.

May use the layers from errors to transport; knows no client.
"""

from .events import (
    AsyncChatCompletionStream,
    AsyncChatCompletionStreamManager,
    ChatCompletionStreamState,
    StreamMetrics,
)
from .fold import Accumulator
from .resume import ResumePolicy, Resumption
from .stream import AsyncStream

__all__ = [
    "Accumulator",
    "AsyncChatCompletionStream",
    "AsyncChatCompletionStreamManager",
    "AsyncStream",
    "ChatCompletionStreamState",
    "ResumePolicy",
    "Resumption",
    "StreamMetrics",
]
