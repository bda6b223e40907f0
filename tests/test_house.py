"""
The house stands on its floors: every file of the package has a place, and imports only from below.

The table is the map to read before opening the files. A new file must be placed in it, which is the moment to
ask whether it belongs there.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import kimi_async

PACKAGE = Path(kimi_async.__file__).parent


@dataclass(frozen=True)
class Room:
    floor: int
    name: str  # a module, or a package that is one room with all its files
    outside: frozenset[str] = frozenset()  # top-level packages from outside the standard library
    opens: frozenset[str] = frozenset()  # rooms above that it may import inside functions, when asked for


def room(floor: int, name: str, *outside: str, opens: tuple[str, ...] = ()) -> Room:
    return Room(floor, name, frozenset(outside), frozenset(opens))


# Floors are numbered from the ground. A room may import every floor below its own, the rooms listed before it on its
# own floor, and its own files; so there can be no circle. Floors 0 and 1 hold decisions only: no async, no clock, no
# dice, no socket.
HOUSE = [
    # 0 vocabulary
    room(0, "_version"),
    room(0, "redact"),
    room(0, "errors"),
    room(0, "providers"),
    room(0, "model_table"),
    room(0, "types", "msgspec"),
    # 1 rules
    room(1, "sse"),
    room(1, "advice"),
    room(1, "hints"),
    room(1, "error_shapes", "msgspec"),
    room(1, "jsonl", "msgspec"),
    room(1, "journal", "msgspec"),
    room(1, "codec", "msgspec"),
    room(1, "accumulate", "msgspec"),
    room(1, "schema", "msgspec"),
    room(1, "structured", "msgspec"),
    room(1, "results", "msgspec"),
    # 2 wire
    room(2, "transport", "multidict", "msgspec"),
    room(2, "pool", "aiohttp", "multidict", "yarl"),
    # 3 conduct
    room(3, "pagination"),
    room(3, "middleware", "anyio", "msgspec"),
    room(3, "middleware.retry", "tenacity"),
    room(3, "config"),
    room(3, "streaming", "anyio", "msgspec"),
    room(3, "resume", "msgspec"),
    room(3, "chat_stream", "msgspec"),
    room(3, "tools", "anyio", "msgspec"),
    room(3, "tool_loop", "anyio"),
    room(3, "uploads", "anyio"),
    room(3, "upload_many", "anyio"),
    room(3, "raw", "msgspec"),
    # 4 the door; `client.chat` opens the room behind it when it is first asked for, never at import
    room(4, "client", opens=("pipeline", "resources", "resources.batches")),
    room(4, "compat"),
    # 5 one module an API family
    room(5, "resources", "anyio", "msgspec"),
    # 6 beside the door
    room(6, "pipeline", "anyio", "msgspec"),
    room(6, "batching", "anyio", "msgspec"),
    room(6, "resources.batches"),
    room(6, "testing", "aiohttp", "msgspec", "multidict", "pytest"),
    # 7 the name over the door: offers names of every floor, lazily
    room(7, "kimi_async"),
    # 8 the terminal
    room(8, "cli", "anyio", "msgspec", "rich", "typer", "uvloop"),
]

# What a rule may not lean on: who needs the time or a random number is given it.
NO_RULE_IMPORTS = frozenset(
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


def room_of(module: str) -> Room | None:
    """
    The most particular room: `middleware.retry` has its own, `middleware.telemetry` lives in `middleware`.
    """
    homes = [home for home in HOUSE if module == home.name or module.startswith(home.name + ".")]
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
    Every import that can run, also inside functions: lazy is still upstairs.
    """
    package = ["kimi_async", *path.relative_to(PACKAGE).parts[:-1]]
    places = MODULES.keys() | {home.name for home in HOUSE}
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


def may_import(home: Room) -> str:
    below = {0: [], 1: ["floor 0"]}.get(home.floor, [f"floors 0-{home.floor - 1}"])
    before = [f"`{other.name}`" for other in HOUSE[: HOUSE.index(home)] if other.floor == home.floor]
    return " and, beside it, ".join([*below, *([", ".join(before)] if before else [])]) or "no other room"


def complaints(module: str, path: Path, source: str) -> list[str]:
    """
    What a file does that its place forbids, one sentence each.
    """
    home = room_of(module)
    if home is None:
        return [
            f"`{path.relative_to(PACKAGE).as_posix()}` has no place; give it a room in tests/test_house.py"
        ]
    found: list[str] = []
    for one in imports(path, ast.parse(source)):
        top, _, rest = one.target.partition(".")
        if top == "kimi_async":
            other = room_of(rest or "kimi_async")
            if other is None:
                found.append(f"`{one.where}` imports `{rest}`, which has no place in the house")
            elif HOUSE.index(other) > HOUSE.index(home) and not (one.lazy and other.name in home.opens):
                found.append(
                    f"`{one.where}` imports `{rest or top}`; floor {home.floor} may import {may_import(home)}."
                )
        elif top in sys.stdlib_module_names:
            if home.floor <= 1 and top in NO_RULE_IMPORTS:
                found.append(
                    f"`{one.where}` imports `{top}`; floor {home.floor} is handed the time, chance and bytes as arguments."
                )
        elif top not in home.outside:
            allowed = ", ".join(f"`{name}`" for name in sorted(home.outside)) or "nothing"
            found.append(f"`{one.where}` imports `{top}`; from outside, `{home.name}` may import {allowed}.")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_house_imports_from_below_only(module: str) -> None:
    """
    A file imports what lies below it and the outside packages of its room, and nothing else.
    """
    path = MODULES[module]

    assert [] == complaints(module, path, path.read_text("utf-8"))


def test_house_floors_rise() -> None:
    """
    The table is in the order in which the house is built.
    """

    assert sorted(home.floor for home in HOUSE) == [home.floor for home in HOUSE]


def test_house_rooms_exist() -> None:
    """
    The table names no room that is not there: it is the map, so it may not show walls that were taken down.
    """
    packages = {name.rpartition(".")[0] for name in MODULES}

    assert [] == [home.name for home in HOUSE if home.name not in MODULES and home.name not in packages]


@pytest.mark.parametrize("module", [name for name in MODULES if (home := room_of(name)) and home.floor <= 1])
def test_house_rules_decide_without_waiting(module: str) -> None:
    """
    Floors 0 and 1 hold plain functions, so that each rule can be tested by a call.
    """
    path = MODULES[module]
    waits = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)

    assert [] == [
        f"`{path.relative_to(PACKAGE).as_posix()}:{node.lineno}` is async; floor {room_of(module).floor} may not wait."
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, waits)
    ]


@pytest.mark.parametrize("module", [name for name in MODULES if not name.rpartition(".")[2].startswith("_")])
def test_house_public_modules_say_what_they_offer(module: str) -> None:
    """
    Every public module has an `__all__` of names that exist, each once, and a first sentence about its purpose.
    """
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    offered = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and node.value is not None
        and ast.unparse(node).startswith("__all__")
    ]

    assert 1 == len(offered), f"{module} has no literal __all__"
    assert sorted(set(offered[0])) == sorted(offered[0])
    assert ast.get_docstring(tree), f"{module} has no docstring"


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        (
            "sse",
            "import re\nfrom .transport import Request",
            "`sse.py:2` imports `transport`; floor 1 may import floor 0.",
        ),
        (
            "sse",
            "def f():\n    from kimi_async import codec",
            "`sse.py:2` imports `codec`; floor 1 may import floor 0.",
        ),
        (
            "errors",
            "from . import client",
            "`errors.py:1` imports `client`; floor 0 may import `_version`, `redact`.",
        ),
        (
            "codec",
            "import random",
            "`codec.py:1` imports `random`; floor 1 is handed the time, chance and bytes as arguments.",
        ),
        (
            "client",
            "import aiohttp",
            "`client.py:1` imports `aiohttp`; from outside, `client` may import nothing.",
        ),
        (
            "client",
            "from .resources import chat\ndef f():\n    from .resources import chat",
            "`client.py:1` imports `resources.chat`; floor 4 may import floors 0-3.",
        ),
        ("cellar", "", "`cellar.py` has no place; give it a room in tests/test_house.py"),
    ],
)
def test_complaint_import_from_above_says_the_sentence(module: str, source: str, expected: str) -> None:
    """
    A broken rule is told as the sentence that mends it.
    """

    assert [expected] == complaints(module, PACKAGE / f"{module}.py", source)


def test_complaint_type_checking_import_is_no_dependency() -> None:
    """
    Signatures may name a type from upstairs without the running code knowing it.
    """
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .transport import Request\n"

    assert [] == complaints("sse", PACKAGE / "sse.py", source)
