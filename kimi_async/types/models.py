"""
Models, as `GET /models` lists them.
"""

from typing import Any

from ._base import Reply, absent, wire

__all__ = ["Model"]


@wire
class Model(Reply):
    """
    A model. Every key but `id` may be missing on gateways.

    `think_efforts` and `reasoning_efforts` are described only in prose for the Open Platform (a list, or an object with
    `valid_efforts` and `default_effort`), hence Any. Source: platform.kimi.ai, "List Models"; live replies of 2026-09.
    """

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = ""
    context_length: int | None = absent()
    """Tokens."""
    supports_image_in: bool | None = absent()
    supports_video_in: bool | None = absent()
    supports_reasoning: bool | None = absent()
    supports_dynamic_tools: bool | None = absent()
    supports_thinking_type: str | None = absent()
    """`only`, `no` or `both`."""
    think_efforts: Any = absent()
    reasoning_efforts: Any = absent()
    permission: Any = absent()
    root: str | None = absent()
    parent: str | None = absent()
