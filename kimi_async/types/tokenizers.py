"""
Token counts, as `POST /tokenizers/estimate-token-count` gives them.
"""

from typing import ClassVar

import msgspec

from ._base import Reply, wire

__all__ = ["TokenCount", "TokenCountData"]


@wire
class TokenCountData(Reply):
    total_tokens: int = 0


@wire
class TokenCount(Reply):
    """`{"data": {"total_tokens": 80}}` (platform.kimi.ai, "Estimate Tokens")."""

    __children__: ClassVar[tuple[str, ...]] = ("data",)

    data: TokenCountData = msgspec.field(default_factory=TokenCountData)

    @property
    def total_tokens(self) -> int:
        return self.data.total_tokens
