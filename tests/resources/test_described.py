"""
`help()` names every option, also those that a signature hides behind `**options`.
"""

import inspect
import re
from typing import Any

import pytest

import kimi_async
from kimi_async import AsyncKimi
from kimi_async.bulk.batches import AsyncBatches, SubmitParams
from kimi_async.bulk.options import FATAL, MapOptions, MapParams
from kimi_async.resources.caller import CallOptions
from kimi_async.resources.chat import AskOptions, AsyncCompletions, CreateOptions
from kimi_async.resources.files import AsyncFiles


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (AsyncKimi.map, MapParams),
        (AsyncBatches.run, SubmitParams),
        (AsyncFiles.create, CallOptions),
        (AsyncCompletions.create, CreateOptions),
        (AsyncCompletions.parse, AskOptions),
        (AsyncCompletions.stream, AskOptions),
        (AsyncCompletions.run_tools, AskOptions),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_help_names_every_option(method: Any, options: Any) -> None:
    """The docstring has each option by name, the parameters of the signature among them."""
    words = set(re.findall(r"\w+", inspect.getdoc(method) or ""))
    parameters = inspect.signature(method).parameters.values()
    named = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY} - {"messages", "model"}

    assert set() == (set(options.__annotations__) | named) - words


@pytest.mark.parametrize("name", MapOptions.__slots__)
def test_help_of_map_tells_defaults(name: str) -> None:
    """Where the default of an option of `map` is a number, a word or False, the docstring says which."""
    text = inspect.getdoc(AsyncKimi.map) or ""
    default = {each.name: each.default for each in MapOptions.__dataclass_fields__.values()}[name]
    said = re.search(rf":param {name}:(.*?)(?=\n+:|\n\n)", text, re.S)

    assert said is not None
    shown = {None: "", False: "False", FATAL: "by default"}.get(default, f"{default}")
    if name == "max_line_size":
        shown = "8 MiB"
    elif isinstance(default, str):
        shown = f'`"{default}"` (the default'
    assert shown in said[1]


def test_help_of_the_package_names_what_it_offers() -> None:
    """`help(kimi_async)` begins with a program, and has every public name but the errors, which are drawn elsewhere."""
    text = kimi_async.__doc__ or ""
    names = {
        name
        for name in kimi_async.__all__
        if not name.startswith("_")
        and not (isinstance(value := getattr(kimi_async, name), type) and issubclass(value, Exception))
    }

    assert set() == names - set(re.findall(r"\w+", text))
    program = text[text.index("    import asyncio") : text.index("No key yet?")]
    compile(inspect.cleandoc(program), "help", "exec")
