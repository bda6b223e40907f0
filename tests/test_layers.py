"""
The package is built in layers: each imports only the layers before it, and no import closes a circle.

The table is the map to read before opening the files. A new folder or file on top must be placed in it, which is the
moment to ask whether it belongs there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import kimi_async

PACKAGE = Path(kimi_async.__file__).parent


@dataclass(frozen=True)
class Layer:
    """
    A module, or a folder that is one layer with all its files, and what it may use beside the layers before it.
    """

    name: str
    outside: frozenset[str] = frozenset()  # top-level packages from outside the standard library
    pure: bool = False  # decides only: no async, no clock, no dice, no socket
    opens: frozenset[str] = frozenset()  # later layers that it may import inside functions, when asked for


def layer(name: str, *outside: str, pure: bool = False, opens: tuple[str, ...] = ()) -> Layer:
    return Layer(name, frozenset(outside), pure, frozenset(opens))


# In the order in which they are built: a layer may import the layers before it, and its own files.
LAYERS = [
    layer("_version", pure=True),
    layer("redact", pure=True),
    layer("errors", pure=True),
    layer("providers", pure=True),
    layer("types", "msgspec", pure=True),
    layer("sse", pure=True),
    layer("codec", "msgspec", pure=True),
    layer("schema.partial", "jiter", "pydantic_core", pure=True),
    layer("schema", "msgspec", pure=True),
    layer("transport", "multidict", "msgspec"),
    layer("transport.leavings", "aiohttp"),
    layer("transport.aiohttp_body", "aiohttp"),
    layer("transport.aiohttp_faults", "aiohttp"),
    layer("transport.aiohttp_pool", "aiohttp", "multidict", "yarl"),
    layer("transport.aiohttp_patches", "aiohttp", "yarl"),
    layer("middleware", "anyio", "msgspec"),
    layer("middleware.retry", "tenacity", "msgspec"),
    layer("config"),
    layer("streaming", "anyio", "msgspec"),
    layer("streaming.fold", "msgspec", pure=True),
    layer("conversation", "msgspec"),
    layer("conversation.history", pure=True),
    layer("conversation.tokens", "msgspec", pure=True),
    layer("tools", "anyio", "msgspec"),
    layer("resources", "anyio", "msgspec", opens=("bulk",)),
    layer("bulk", "anyio", "msgspec"),
    layer("client"),
    layer("testing", "aiohttp", "msgspec", "multidict", "pytest"),
    layer("integrations", "anyio", "msgspec"),
    layer("integrations.aiohttp", "aiohttp", "anyio"),
    layer("integrations.compat", "openai"),
    layer("integrations.langchain", "langchain_core", "langchain_openai", "pydantic"),
    layer("integrations.openai_agents", "agents"),
    layer("integrations.opentelemetry", "msgspec", "opentelemetry"),
    layer("integrations.prometheus", "prometheus_client"),
    layer("integrations.pydantic_ai", "pydantic_ai"),
    layer("integrations.starlette", "starlette"),
    layer("kimi_async"),  # offers names of every layer, lazily
    layer("cli", "anyio", "msgspec", "prompt_toolkit", "rich", "typer", "uvloop"),
    layer("__main__"),
]

# What a pure layer may not lean on: who needs the time or a random number is given it.
NOT_PURE = frozenset(
    {"asyncio", "anyio", "aiohttp", "tenacity", "time", "random", "secrets", "socket", "threading"}
)


@dataclass(frozen=True)
class Import:
    path: Path
    line: int
    target: str  # dotted, absolute
    lazy: bool  # inside a function

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(PACKAGE).as_posix()}:{self.line}"


def module_of(path: Path) -> str:
    """
    The name below `kimi_async`; the package's own `__init__` is called `kimi_async`.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or "kimi_async"


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def layer_of(module: str) -> Layer | None:
    """
    The most particular layer: `middleware.retry` has its own, `middleware.events` is part of `middleware`.
    """
    homes = [home for home in LAYERS if module == home.name or module.startswith(home.name + ".")]
    return max(homes, key=lambda home: len(home.name), default=None)


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def statements_that_run(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """
    Every node, and whether it stands inside a function; but not those under `if TYPE_CHECKING:`, for a type in a
    signature is no dependency of the running code.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for other in node.orelse:
                yield other, lazy
                yield from statements_that_run(other, lazy)
        else:
            yield node, lazy
            inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from statements_that_run(node, inside)


def imports(path: Path, tree: ast.AST) -> Iterator[Import]:
    """
    Every import that can run, also inside functions.
    """
    package = ["kimi_async", *path.relative_to(PACKAGE).parts[:-1]]
    places = MODULES.keys() | {home.name for home in LAYERS}
    for node, lazy in statements_that_run(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from . import sse` names a module, `from .sse import Decoder` does not.
                deeper = f"{source}.{alias.name}"
                is_module = deeper.removeprefix("kimi_async.") in places
                yield Import(path, node.lineno, deeper if is_module else source, lazy)


def complaints(module: str, path: Path, source: str) -> list[str]:
    """
    What a file does that its layer forbids, one sentence each.
    """
    home = layer_of(module)
    if home is None:
        return [f"`{path.relative_to(PACKAGE).as_posix()}` has no layer; place it in tests/test_layers.py"]
    found: list[str] = []
    for one in imports(path, ast.parse(source)):
        top, _, rest = one.target.partition(".")
        if top == "kimi_async":
            other = layer_of(rest or "kimi_async")
            if other is None:
                found.append(f"`{one.where}` imports `{rest}`, which has no layer")
            elif (
                LAYERS.index(other) > LAYERS.index(home)
                and not inside(home, other)
                and not (one.lazy and other.name.partition(".")[0] in home.opens)
            ):
                found.append(f"`{one.where}` imports `{rest or top}`, a later layer than `{home.name}`")
        elif top in sys.stdlib_module_names:
            if home.pure and top in NOT_PURE:
                found.append(
                    f"`{one.where}` imports `{top}`; `{home.name}` is handed the time, chance and bytes as arguments"
                )
        elif top not in home.outside:
            allowed = ", ".join(f"`{name}`" for name in sorted(home.outside)) or "nothing"
            found.append(f"`{one.where}` imports `{top}`; from outside, `{home.name}` may import {allowed}")
    return found


def inside(home: Layer, other: Layer) -> bool:
    """
    Files of one folder may import each other, also where one of them is a layer of its own; the circle check bounds that.
    """
    return home.name.partition(".")[0] == other.name.partition(".")[0]


def all_imports(path: Path, source: str) -> set[str]:
    """
    The modules of the package that a file names in an import: at the top, inside functions and for types alike.
    """
    package = ["kimi_async", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names] + [stem]
        modules = {name.removeprefix("kimi_async.") for name in names} & MODULES.keys()
        # `from .x import y` names the folder x and the module x.y: the module alone was meant.
        found |= {one for one in modules if not any(other.startswith(one + ".") for other in modules)}
    return found - {module_of(path)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """
    The strongly connected components of more than one module, by Tarjan's algorithm.
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph.get(module, ())):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            start = stack.index(module)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for module in graph:
        if module not in order:
            visit(module)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_layers_import_only_earlier_ones(module: str) -> None:
    """
    A file imports the layers before its own and the outside packages of its layer, and nothing else.
    """
    path = MODULES[module]

    assert [] == complaints(module, path, path.read_text("utf-8"))


def test_no_import_closes_a_circle() -> None:
    """
    No module reaches itself through imports, counting those inside functions and those for types.

    A folder's `__init__`, which offers the names of its files, stands for nobody but itself.
    """
    graph = {
        module: {
            other
            for other in all_imports(path, path.read_text("utf-8"))
            if MODULES[other].name != "__init__.py"
        }
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }

    assert [] == circles(graph)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}, [["a", "b", "c"]]),
        ({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}, [["c", "d"], ["a", "b"]]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], expected: list[list[str]]) -> None:
    """
    A circle is named by its members, and every circle is found.
    """

    assert expected == circles(graph)


def test_few_files_lie_on_top() -> None:
    """
    What is no product of its own lives in a folder: at most eight files lie beside them.
    """
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_folders_are_on_the_map_for_people() -> None:
    """CONTRIBUTING.md says of every folder, and of those in `middleware/`, what lives there."""
    told = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")
    folders = {
        path.parent.name
        for path in [*PACKAGE.glob("*/__init__.py"), *PACKAGE.glob("middleware/*/__init__.py")]
    }

    assert set() == {name for name in folders if f"`{name}/`" not in told}


def test_layers_exist() -> None:
    """
    The table names no layer that is not there.
    """
    packages = {name.rpartition(".")[0] for name in MODULES}

    assert [] == [home.name for home in LAYERS if home.name not in MODULES and home.name not in packages]


@pytest.mark.parametrize("module", [name for name in MODULES if (home := layer_of(name)) and home.pure])
def test_layers_pure_ones_decide_without_waiting(module: str) -> None:
    """
    Pure layers hold plain functions, so that each rule can be tested by a call.
    """
    path = MODULES[module]
    waits = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)

    assert [] == [
        f"`{path.relative_to(PACKAGE).as_posix()}:{node.lineno}` is async; a pure layer may not wait."
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, waits)
    ]


@pytest.mark.parametrize("module", [name for name in MODULES if not name.rpartition(".")[2].startswith("_")])
def test_layers_public_modules_say_what_they_offer(module: str) -> None:
    """
    Every public module has an `__all__` of names that exist, each once, and a first sentence about its purpose.
    """
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    assert ast.get_docstring(tree), f"{module} has no docstring"
    if "_MODULE_OF" in MODULES[module].read_text("utf-8"):
        return  # its names are looked up where they are, and compared in test_package
    offered = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and node.value is not None
        and ast.unparse(node).startswith("__all__")
    ]

    assert 1 == len(offered), f"{module} has no literal __all__"
    assert sorted(set(offered[0])) == sorted(offered[0])


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        (
            "sse",
            "import re\nfrom .transport import Request",
            "`sse.py:2` imports `transport`, a later layer than `sse`",
        ),
        (
            "sse",
            "def f():\n    from kimi_async import codec",
            "`sse.py:2` imports `codec`, a later layer than `sse`",
        ),
        (
            "errors",
            "from . import client",
            "`errors.py:1` imports `client`, a later layer than `errors`",
        ),
        (
            "sse",
            "import random",
            "`sse.py:1` imports `random`; `sse` is handed the time, chance and bytes as arguments",
        ),
        (
            "client",
            "import aiohttp",
            "`client.py:1` imports `aiohttp`; from outside, `client` may import nothing",
        ),
        (
            "config",
            "from .client import AsyncKimi\ndef f():\n    from .client import AsyncKimi",
            "`config.py:1` imports `client`, a later layer than `config`",
        ),
        ("cellar", "", "`cellar.py` has no layer; place it in tests/test_layers.py"),
    ],
)
def test_complaint_says_the_sentence(module: str, source: str, expected: str) -> None:
    """
    A broken rule is told as the sentence that mends it.
    """

    assert expected == complaints(module, PACKAGE / f"{module}.py", source)[0]


def test_complaint_type_checking_import_is_no_dependency() -> None:
    """
    Signatures may name a type of a later layer without the running code knowing it; the circle check counts it.
    """
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .transport import Request\n"

    assert [] == complaints("sse", PACKAGE / "sse.py", source)


def test_sizes_one_reading_holds() -> None:
    """No file above 720 lines; no class above 420, but the calls of chat, which list every parameter by name."""
    long: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.count("\n")
        if lines > 720:
            long.append(f"{path.name} has {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and node.end_lineno is not None:
                size = node.end_lineno - node.lineno + 1
                if size > 420 and node.name != "AsyncCompletions":
                    long.append(f"{path.name}: {node.name} has {size} lines")

    assert [] == long


def test_any_is_rare() -> None:
    """
    `Any` switches the checkers off, so its number may fall and not grow. `object` says what is only looked at or passed on,
    a TypedDict or a Protocol what a value has. Who takes some away writes the new number here.
    """
    found = sum(len(re.findall(r"\bAny\b", path.read_text("utf-8"))) for path in PACKAGE.rglob("*.py"))

    assert found <= 750
