"""
The simulator's models: those of the official host that were served on the day the package's table was made.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from typing import Literal

from ...providers.models import AS_OF, ModelInfo
from ...providers.models import MODELS as _KNOWN
from .words import as_object

__all__ = ["MODELS", "Family", "budget_default", "family", "find_model", "public", "thinking_enabled"]

Family = Literal["k3", "k2.7", "k2.6"]

MODELS: tuple[ModelInfo, ...] = tuple(model for model in _KNOWN.values() if model.is_available(AS_OF))


def family(model: ModelInfo) -> Family:
    """
    Whose rules a model follows.

    "k3" thinks unless `thinking.type` is "disabled" and takes `reasoning_effort`, "k2.7" always thinks, "k2.6" can be
    switched.
    """
    if model.thinking == "effort":
        return "k3"
    return "k2.7" if model.thinking == "always" else "k2.6"


def public(model: ModelInfo) -> dict[str, object]:
    """The model as `/v1/models` shows it; keys as seen on the official host in 2026-09."""
    created = datetime.combine(model.released or AS_OF, time(), UTC)
    fields: dict[str, object] = {
        "id": model.id,
        "object": "model",
        "created": int(created.timestamp()),
        "owned_by": "moonshot",
        "permission": [],
        "root": model.id,
        "parent": "",
        "context_length": model.context,
        "supports_image_in": model.images,
        "supports_video_in": model.videos,
        "supports_reasoning": model.thinking != "no",
        "supports_dynamic_tools": family(model) == "k3",
    }
    if family(model) == "k3":
        fields["supports_thinking_type"] = "only"
        fields["think_efforts"] = list(model.efforts)
        fields["reasoning_efforts"] = list(model.efforts)
    return fields


def budget_default(model: ModelInfo) -> int:
    """`max_completion_tokens` where it is omitted."""
    return model.default_max_tokens or 1_024


def find_model(models: Iterable[ModelInfo], name: object) -> ModelInfo | None:
    """The model called `name`, or None."""
    return next((model for model in models if model.id == name), None)


def thinking_enabled(model: ModelInfo, request: Mapping[str, object]) -> bool:
    """Whether this request gets reasoning: `thinking.type` "disabled" works on K3 and K2.6, not on K2.7."""
    thinking = as_object(request.get("thinking")) or {}
    return family(model) == "k2.7" or thinking.get("type") != "disabled"
