"""
Every resource of the API as a property, made when it is first used: what a client is beside its options.
"""

from functools import cached_property
from typing import TYPE_CHECKING, cast

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
