"""
Kimi for Pydantic AI, over our engine.

    from pydantic_ai import Agent
    from kimi_async.integrations.pydantic_ai import KimiModel

    agent = Agent(KimiModel("kimi-k3", client))
"""

# Read where Pydantic AI is not installed, its classes are unknown.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from typing import Any

from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.moonshotai import MoonshotAIProvider

from ..client import AsyncKimi
from .openai import as_openai

__all__ = ["KimiModel", "KimiProvider"]


class KimiProvider(MoonshotAIProvider):  # type: ignore[misc,unused-ignore]
    """
    Pydantic AI's own Moonshot provider over `client`: its connections, limits, retries and checks of streams.

    It differs in one thing: structured output goes by JSON schema (`NativeOutput`) where nothing else is said, since Kimi refuses
    a forced tool call while it thinks, and may answer in prose where the call is not forced.
    """

    def __init__(self, client: AsyncKimi, *, keep_reasoning: bool = True) -> None:
        super().__init__(openai_client=as_openai(client, keep_reasoning=keep_reasoning))

    @staticmethod
    def model_profile(model_name: str) -> Any:
        profile = MoonshotAIProvider.model_profile(model_name)
        return {
            **(profile or {}),
            "supports_json_schema_output": True,
            "default_structured_output_mode": "native",
        }


class KimiModel(OpenAIChatModel):  # type: ignore[misc,unused-ignore]
    """
    A Kimi model by name, over `client`.

    :param options: passed on to `OpenAIChatModel`: `settings`, `profile`.
    """

    def __init__(self, model_name: str, client: AsyncKimi, **options: object) -> None:
        super().__init__(model_name, provider=KimiProvider(client), **options)
