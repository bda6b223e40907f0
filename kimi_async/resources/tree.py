"""
Every resource of the API as a property, made when it is first used: what a client is beside its options.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from .raw_replies import WithRawResponse, WithStreamingResponse
from .verbs import Verbs

if TYPE_CHECKING:
    from .batches import RawBatches, StreamingBatches
    from .chat import AsyncBeta, AsyncChat, RawBeta, RawChat, StreamingBeta, StreamingChat
    from .files import AsyncFiles, RawFiles, StreamingFiles
    from .formulas import AsyncFormulas, RawFormulas, StreamingFormulas
    from .models import AsyncModels, RawModels, StreamingModels
    from .signatures import AsyncSignatures
    from .tokenizers import AsyncTokenizers, RawTokenizers, StreamingTokenizers
    from .users import AsyncUsers, RawUsers, StreamingUsers

__all__ = ["ResourceTree"]


# What other clients have, and programs that move may ask for.
_ELSEWHERE = {
    "responses": "use client.chat.completions, or client.post('/responses', body={...}) where the host has it",
    "messages": "use client.chat.completions, or client.post('/messages', body={...}) where the host has it",
    "completions": "use client.chat.completions",
    **dict.fromkeys(
        (
            "audio",
            "embeddings",
            "evals",
            "fine_tuning",
            "images",
            "moderations",
            "realtime",
            "vector_stores",
            "videos",
        ),
        "Kimi has no such endpoint; for a host that has, client.post(path, body={...})",
    ),
}


class ResourceTree(Verbs):
    """The endpoints, by resource and by path, for whoever can send."""

    @cached_property
    def chat(self) -> "AsyncChat":
        from .chat import AsyncChat

        return AsyncChat(self)

    @cached_property
    def beta(self) -> "AsyncBeta":
        from .chat import AsyncBeta

        return AsyncBeta(self.chat)

    @cached_property
    def files(self) -> "AsyncFiles":
        from .files import AsyncFiles

        return AsyncFiles(self)

    @cached_property
    def models(self) -> "AsyncModels":
        from .models import AsyncModels

        return AsyncModels(self)

    @cached_property
    def tokenizers(self) -> "AsyncTokenizers":
        from .tokenizers import AsyncTokenizers

        return AsyncTokenizers(self)

    @cached_property
    def users(self) -> "AsyncUsers":
        from .users import AsyncUsers

        return AsyncUsers(self)

    @cached_property
    def formulas(self) -> "AsyncFormulas":
        from .formulas import AsyncFormulas

        return AsyncFormulas(self)

    @cached_property
    def signatures(self) -> "AsyncSignatures":
        from .signatures import AsyncSignatures

        return AsyncSignatures(self)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            told = _ELSEWHERE.get(name)
            if told is None:
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
                )
            raise AttributeError(f"client.{name} does not exist here: {told}", name=name, obj=self)

    @property
    def with_raw_response(self) -> "RawTree":
        """`await client.with_raw_response.models.list()`: the reply with what it means."""
        return cast("RawTree", WithRawResponse(self))

    @property
    def with_streaming_response(self) -> "StreamingTree":
        """`async with client.with_streaming_response.files.content(id) as reply`: the reply before its body."""
        return cast("StreamingTree", WithStreamingResponse(self))


if TYPE_CHECKING:

    class RawTree(WithRawResponse):
        batches: RawBatches
        beta: RawBeta
        chat: RawChat
        files: RawFiles
        formulas: RawFormulas
        models: RawModels
        tokenizers: RawTokenizers
        users: RawUsers

    class StreamingTree(WithStreamingResponse):
        batches: StreamingBatches
        beta: StreamingBeta
        chat: StreamingChat
        files: StreamingFiles
        formulas: StreamingFormulas
        models: StreamingModels
        tokenizers: StreamingTokenizers
        users: StreamingUsers
