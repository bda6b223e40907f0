"""
An answer as a Python object. Any type that msgspec or pydantic knows will do: structs, dataclasses, models, unions, lists.

    python examples/structured.py
"""

import asyncio
from typing import Annotated, Literal

import msgspec

from kimi_async import AsyncKimi, LengthFinishReasonError


class Ingredient(msgspec.Struct):
    name: str
    amount: Annotated[float, msgspec.Meta(gt=0, description="In the unit.")]
    unit: Literal["g", "ml", "piece"]


class Recipe(msgspec.Struct):
    """A dish for two."""

    title: str
    ingredients: list[Ingredient]
    minutes: int | None = None


async def main() -> None:
    async with AsyncKimi() as client:
        try:
            completion = await client.chat.completions.parse(
                model="kimi-k3",
                messages=[{"role": "user", "content": "A recipe with lentils."}],
                response_format=Recipe,
                reask=1,  # what the schema cannot say (amount > 0) is checked here; on a wrong answer, ask once more
            )
        except LengthFinishReasonError:
            print("the answer was cut; raise max_completion_tokens, which pays for the reasoning too")
            return
        recipe = completion.parsed
        assert recipe is not None
        print(recipe.title)
        for ingredient in recipe.ingredients:
            print(f"  {ingredient.amount:g} {ingredient.unit} {ingredient.name}")


if __name__ == "__main__":
    asyncio.run(main())
