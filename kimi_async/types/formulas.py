"""
Formulas, Kimi's official tools, and what running one gives.
"""

from typing import Any, ClassVar, cast

import msgspec

from ._base import Reply, absent, wire

__all__ = ["Fiber", "FiberContext", "FormulaTools"]


@wire
class FormulaTools(Reply):
    """`{"object": "list", "tools": [...]}` (platform.kimi.ai, "Use official tools")."""

    tools: list[dict[str, Any]] = msgspec.field(default_factory=list[dict[str, Any]])
    """Definitions as `tools` of a chat takes them."""
    object: str = "list"


@wire
class FiberContext(Reply):
    input: str | None = absent()
    output: str | None = absent()
    encrypted_output: str | None = absent()
    """A result for the model's eyes only; it goes back as it is."""
    error: Any = absent()


@wire
class Fiber(Reply):
    """One run of a formula."""

    __children__: ClassVar[tuple[str, ...]] = ("context",)

    id: str = ""
    status: str = ""
    """`succeeded`, or what it is otherwise."""
    context: FiberContext | None = absent()
    error: Any = absent()
    created_at: int | None = absent()
    formula: str | None = absent()
    lambda_id: str | None = absent()
    object: str = "fiber"
    organization_id: str | None = absent()
    project_id: str | None = absent()

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @property
    def content(self) -> str:
        """The content of the tool message: the output, plain or encrypted; of a run that failed, its error."""
        context = self.context
        if not self.succeeded:
            error: object = self.error or (context.error if context is not None else None)
            if isinstance(error, dict) and "message" in error:
                error = cast("dict[str, object]", error)["message"]
            return f"Error: {error or f'the tool ended with status {self.status!r}'}"
        if context is None:
            return ""
        return context.output if context.output is not None else context.encrypted_output or ""
