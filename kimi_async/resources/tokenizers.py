"""
`client.tokenizers`: how long a prompt is, before it is sent.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Unpack

from ..config import hide
from ..types.completions import ChatCompletionMessageParam
from ..types.tokenizers import TokenCount
from ._base import Resource
from .caller import CallOptions
from .chat_body import outgoing_messages

__all__ = ["AsyncTokenizers"]


class AsyncTokenizers(Resource["RawTokenizers", "StreamingTokenizers"]):
    async def estimate_token_count(
        self,
        *,
        model: str,
        messages: Iterable[ChatCompletionMessageParam],
        **call: Unpack[CallOptions],
    ) -> TokenCount:
        """
        Tokens that these messages cost as a prompt, images and videos included; `.total_tokens`. Free of charge.

        Tools are not counted: the endpoint documents none (platform.kimi.ai, "Estimate Tokens"). Whether it counts towards
        requests per minute is not known.
        """
        hide(call)
        return await self._client.request(
            "POST",
            "tokenizers/estimate-token-count",
            TokenCount,
            body={"model": model, "messages": outgoing_messages(messages)},
            **call,
        )

    estimate = estimate_token_count


if TYPE_CHECKING:
    from .raw_replies import WithRawResponse, WithStreamingResponse, raw, streaming

    class RawTokenizers(WithRawResponse):
        estimate_token_count: Final = raw(AsyncTokenizers.estimate_token_count)

    class StreamingTokenizers(WithStreamingResponse):
        estimate_token_count: Final = streaming(AsyncTokenizers.estimate_token_count)
