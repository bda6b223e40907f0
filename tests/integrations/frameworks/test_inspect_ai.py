"""
inspect_ai over httpx over this client.
"""

from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.httpx import httpx_client
from support.framework_checks import MODEL, Driver, FrameworkChecks, Person, get_weather

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore"),  # theirs are theirs
]

inspect_model = pytest.importorskip("inspect_ai.model", reason="inspect_ai is not installed")


class InspectAI(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.model: Any = inspect_model.get_model(
            f"moonshot/{MODEL}",
            base_url=client.base_url,
            api_key="unused",
            config=inspect_model.GenerateConfig(max_retries=0),
            http_client=httpx_client(client, "httpx2"),
            memoize=False,
        )

    async def plain(self, text: str) -> str:
        return (await self.model.generate(text)).completion

    async def tools(self, text: str) -> str:
        from inspect_ai.tool import tool

        @tool(name="get_weather")
        def weather() -> Any:
            async def execute(city: str) -> str:
                """
                The weather in a city.

                Args:
                    city: The city's name.
                """
                return get_weather(city)

            return execute

        _, output = await self.model.generate_loop(text, tools=[weather()])
        return output.completion

    async def structured(self, text: str) -> Any:
        from inspect_ai.util import json_schema

        schema = inspect_model.ResponseSchema(name="person", json_schema=json_schema(Person), strict=True)
        config = inspect_model.GenerateConfig(response_schema=schema)
        return Person.model_validate_json((await self.model.generate(text, config=config)).completion)


class TestInspectAI(FrameworkChecks):
    driver = InspectAI
    refused = (Exception,)

    # It hands out no streams.
    test_stream_hands_out_all_pieces = None
    test_cancelled_stream_lets_go = None
    test_error_before_first_piece_is_repeated = None
    test_truncated_stream_is_an_error = None
