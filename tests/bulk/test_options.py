"""Options by name: what the type checkers are told is what is taken, and a misspelt one is refused."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from kimi_async import AsyncKimi, ConfigurationError
from kimi_async.bulk.map import MapOptions, MapParams


def test_map_params_are_the_options_name_by_name_and_type_by_type():
    """What type checkers are told is what `client.map` takes."""
    assert get_type_hints(MapOptions) == get_type_hints(MapParams)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"concurrency": "5"}, r"concurrency must be an int or None; got '5'"),
        ({"window": True}, "window must be an int or None"),
        ({"redo": "all"}, "redo must be 'none' or 'transient' or 'failed'"),
        ({"journal": 5}, "journal must be a string or a PathLike or None"),
        ({"defaults": 5}, "defaults must be a Mapping or None"),
        ({"on_progress": 5}, "on_progress must be a function or None"),
        ({"stop_on": "x"}, "stop_on must be a tuple of subclasses of Exception"),
        ({"stop_on": (5,)}, "stop_on must be"),
        ({"total": "x"}, "total must be an int or None"),
        ({"deadline": "x"}, "deadline must be a number or None"),
        ({"deadline": 0}, "deadline must be above 0"),
        ({"token_budget": -1}, "token_budget must be above 0"),
        ({"progress_interval": float("nan")}, "progress_interval must be above 0"),
        ({"stream": "yes"}, "stream must be True or False"),
        ({"resume": 3}, r"ResumePolicy\(max_attempts=3\)"),
    ],
    ids=str,
)
async def test_map_option_of_another_kind_is_refused_when_it_is_given(options: dict[str, Any], told: str):
    """By its name, before anything is sent or opened."""
    async with AsyncKimi(api_key="sk-test") as client:
        with pytest.raises((TypeError, ConfigurationError), match=told):
            client.map(["a"], **options)


@pytest.mark.parametrize("requests", [None, 5, b"a", {"messages": []}])
async def test_requests_of_another_kind_are_refused_when_they_are_given(requests: Any):
    """One request is none of several; a mapping would be taken for its names."""
    async with AsyncKimi(api_key="sk-test") as client:
        with pytest.raises(TypeError, match="requests must be a path, an iterable or an async iterable"):
            client.map(requests)
        with pytest.raises(TypeError, match="requests must be a path, an iterable or an async iterable"):
            await client.batches.submit(requests)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"directory": 5}, "directory must be a string or a PathLike or None"),
        ({"max_lines": "x"}, "max_lines must be an int or None"),
        ({"max_bytes": 0}, "max_bytes must be above 0"),
        ({"metadata": ["a"]}, "metadata must be a Mapping or None"),
        ({"poll_interval": 0}, "poll_interval must be above 0"),
        ({"live": {"concurency": 3}}, "did you mean 'concurrency'"),
        ({"live": {"concurrency": 0}}, "concurrency must be at least 1"),
    ],
    ids=str,
)
async def test_batch_option_of_another_kind_is_refused_before_anything_is_sent(
    options: dict[str, Any], told: str
):
    """Also those for what is sent live afterwards, when the batch has been paid for."""
    async with AsyncKimi(api_key="sk-test") as client:
        with pytest.raises((TypeError, ConfigurationError), match=told):
            await client.batches.run([{"messages": []}], **options)


@pytest.mark.parametrize("method", ["run", "submit"])
async def test_batch_option_misspelt_is_refused_before_anything_is_sent(method: str):
    """The error names the option that may have been meant."""
    async with AsyncKimi(api_key="sk-test") as client:
        with pytest.raises(
            TypeError, match=rf"batches\.{method}\(\).*'max_line'; did you mean 'max_lines'\?"
        ):
            await getattr(client.batches, method)([{"messages": []}], max_line=3)
