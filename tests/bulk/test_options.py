"""Options by name: what the type checkers are told is what is taken, and a misspelt one is refused."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from kimi_async import AsyncKimi
from kimi_async.bulk.map import MapOptions, MapParams


def test_map_params_are_the_options_name_by_name_and_type_by_type():
    """What type checkers are told is what `client.map` takes."""
    assert get_type_hints(MapOptions) == get_type_hints(MapParams)


@pytest.mark.parametrize("method", ["run", "submit"])
async def test_batch_option_misspelt_is_refused_before_anything_is_sent(method: str):
    """The error names the option that may have been meant."""
    async with AsyncKimi(api_key="sk-test") as client:
        with pytest.raises(
            TypeError, match=rf"batches\.{method}\(\).*'max_line'; did you mean 'max_lines'\?"
        ):
            await getattr(client.batches, method)([{"messages": []}], max_line=3)
