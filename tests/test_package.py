"""
What a person gets who installs the package: a light import, a version, typed names.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kimi_async.testing

# Loaded when the first request needs them. `import kimi_async` costs a command line or a test run that never
# makes a request only this package's own words.
HEAVY = {"aiohttp", "anyio", "tenacity", "typer", "rich", "pydantic", "openai", "pytest"}


def modules_after(code: str) -> set[str]:
    """
    The top-level modules in a fresh interpreter that ran `code`.
    """
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        check=True,
        text=True,
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "code",
    [
        "import kimi_async",
        "from kimi_async import AsyncKimi",
        "from kimi_async import AsyncKimi, Timeout, KimiError, RateLimitError",
    ],
)
def test_import_loads_nothing_heavy(code: str) -> None:
    """
    Naming the client loads no HTTP stack, no event loop and no TLS; they come with the first request.
    """

    assert set() == HEAVY & modules_after(code)


def test_import_of_the_name_alone_loads_no_event_loop() -> None:
    """
    Names are looked up when asked for, so `import kimi_async` does not even pay for asyncio.
    """

    assert set() == (HEAVY | {"asyncio", "ssl", "msgspec"}) & modules_after("import kimi_async")


def test_version_is_the_distribution_s() -> None:
    """
    The version told by the package is the installed one; it is written once.
    """

    assert importlib.metadata.version("kimi-async") == kimi_async.__version__


def test_exports_exist_and_are_listed() -> None:
    """
    Each name in `__all__` can be had, and `dir()` offers it to a person exploring.
    """
    missing = [name for name in kimi_async.__all__ if not hasattr(kimi_async, name)]

    assert [] == missing
    assert set(kimi_async.__all__) <= set(dir(kimi_async))


def test_exports_unknown_name_is_an_attribute_error() -> None:
    """
    Lazy names do not make every name exist.
    """
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = kimi_async.no_such_name


@pytest.mark.parametrize("package", [kimi_async, kimi_async.testing], ids=["kimi_async", "testing"])
def test_exports_are_the_same_for_python_and_for_type_checkers(package: Any) -> None:
    """
    Names that are looked up late stand twice, as imports for type checkers and by module for Python: the same ones.
    """
    tree = ast.parse(Path(package.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = {
        (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name not in ("*", "faults")
    }

    assert imports == {(module, name) for name, module in package._MODULE_OF.items()}
    assert {name for _, name in imports} <= set(package.__all__)


def test_errors_are_exported_at_the_top() -> None:
    """
    Whoever writes `except` needs one import.
    """
    from kimi_async import errors

    tree = {
        name
        for name in errors.__all__
        if isinstance(getattr(errors, name), type) and issubclass(getattr(errors, name), Exception)
    }

    assert tree <= set(kimi_async.__all__)


def test_package_is_typed() -> None:
    """
    The marker of PEP 561 is installed, so that type checkers read the annotations.
    """

    assert (importlib.resources.files("kimi_async") / "py.typed").is_file()


def test_dependencies_are_the_four() -> None:
    """
    Installing the client brings aiohttp, msgspec, anyio and tenacity (and what they need), and nothing else unasked.
    """
    needed = {
        requirement.partition(">")[0]
        for requirement in importlib.metadata.requires("kimi-async") or []
        if "extra ==" not in requirement
    }

    assert {"aiohttp", "msgspec", "anyio", "tenacity"} == needed
