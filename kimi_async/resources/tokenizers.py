"""
`client.tokenizers`: how long a prompt is, before it is sent.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..client import TimeoutLike
from ..types._base import NOT_GIVEN
from ..types.chat import ChatCompletionMessageParam
from ..types.tokenizers import TokenCount
from ._base import Resource
from .chat import outgoing_messages

__all__ = ["AsyncTokenizers"]


class AsyncTokenizers(Resource):
    async def estimate_token_count(
        self,
        *,
        model: str,
        messages: Iterable[ChatCompletionMessageParam],
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> TokenCount:
        """
        Tokens that these messages cost as a prompt, images and videos included; `.total_tokens`. Free of charge.

        Tools are not counted: the endpoint documents none (platform.kimi.ai, "Estimate Tokens"). Whether it counts towards
        requests per minute is not known.
        """
        return await self._client.request(
            "POST",
            "tokenizers/estimate-token-count",
            TokenCount,
            body={"model": model, "messages": outgoing_messages(messages)},
            extra_headers=extra_headers,
            extra_query=extra_query,
            extra_body=extra_body,
            timeout=timeout,
        )

    estimate = estimate_token_count
