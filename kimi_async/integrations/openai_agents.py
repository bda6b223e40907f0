"""
Kimi for the OpenAI Agents SDK, over our engine.

    from agents import Agent, Runner
    from kimi_async.integrations.openai_agents import KimiModel

    agent = Agent(name="Assistant", model=KimiModel("kimi-k3", client))
    result = await Runner.run(agent, "What is the weather in Beijing?")

or, for a whole run, `RunConfig(model_provider=KimiModelProvider(client))` and names of models in the agents.
"""

# Read where the Agents SDK is not installed, its classes are unknown.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from typing import Any

from agents import ModelProvider, OpenAIChatCompletionsModel

from ..client import AsyncKimi
from .openai import as_openai

__all__ = ["KimiModel", "KimiModelProvider"]


def _is_ours(context: Any) -> bool:
    """Whether reasoning goes back: a Kimi model's own, or of before the SDK noted where reasoning came from."""
    origin = context.reasoning.origin_model
    return origin is None or origin == context.model or "kimi" in origin.lower()


class KimiModel(OpenAIChatCompletionsModel):  # type: ignore[misc,unused-ignore]
    """
    A Kimi model by name, over `client`. Reasoning goes back with the tool calls it led to, which the SDK does for few models.

    :param options: passed on to `OpenAIChatCompletionsModel`.
    """

    def __init__(self, model: str, client: AsyncKimi, **options: object) -> None:
        options.setdefault("should_replay_reasoning_content", _is_ours)
        super().__init__(model, as_openai(client), **options)


class KimiModelProvider(ModelProvider):  # type: ignore[misc,unused-ignore]
    """
    Kimi models by name, for `RunConfig(model_provider=...)`.

    :param default: the model of agents that name none.
    """

    def __init__(self, client: AsyncKimi, *, default: str = "kimi-k3") -> None:
        self.client: AsyncKimi = client
        self.default: str = default
        self._models: dict[str, KimiModel] = {}

    def get_model(self, model_name: str | None) -> KimiModel:
        name = model_name or self.default
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = KimiModel(name, self.client)
        return model
