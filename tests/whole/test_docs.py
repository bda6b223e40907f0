"""
The documentation covers what there is: every error has its page, every public name its place in the reference.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import kimi_async
from kimi_async import KimiError
from kimi_async.testing import faults
from kimi_async.testing.simulator.replies import ERRORS as ERROR_REPLIES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# What people import from. The rest is how these are made.
PUBLIC = [
    *(
        "",
        "conversation",
        "errors",
        "middleware",
        "middleware.events",
        "middleware.failover",
        "middleware.rate_limit",
    ),
    *(
        "middleware.rate_limit.shared",
        "middleware.retry",
        "providers",
        "schema",
        "sse",
        "streaming",
        "testing",
    ),
    *(
        "testing.faults",
        "tools",
        "transport",
        "types",
        "types.chat",
        "bulk.batches",
        "bulk.journal",
        "bulk.map",
    ),
    *("bulk.options", "bulk.results"),
]
ERRORS = sorted(
    {
        value.__name__
        for module in map(importlib.import_module, [f"kimi_async.{each}".rstrip(".") for each in PUBLIC])
        for value in map(vars(module).get, module.__all__)
        if isinstance(value, type) and issubclass(value, KimiError)
    }
    | {name for name in kimi_async.__all__ if name.endswith("Error")}
)


@pytest.mark.parametrize("name", ERRORS)
def test_docs_error_has_a_page(name: str) -> None:
    """A reader who met an error finds its cause, its cure and what is attached under its class name."""
    page = (DOCS / "errors" / f"{name}.md").read_text("utf-8")

    assert page.startswith(f"# {name}\n")
    assert ["**Attached.**", "**Cause.**", "**Cure.**"] == sorted(
        set(re.findall(r"\*\*(?:Cause|Cure|Attached)\.\*\*", page))
    )


def test_docs_error_page_has_an_error() -> None:
    """No page is left of an error that is gone."""
    assert [] == [path.name for path in (DOCS / "errors").glob("*.md") if path.stem not in {*ERRORS, "index"}]


# Of integrations, the parts that several of them share.
PARTS = {"blocking", "calls", "opentelemetry_content", "reasoning", "relaying"}
NOT_FOR_PEOPLE = {"__version__", "chain", "asking_again_soon"}  # …, what the layers above make the chain with


def referenced() -> set[str]:
    """The modules and names that the reference is generated from, without the package's name before them."""
    pages = "\n".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md"))
    return set(re.findall(r"^::: kimi_async\.([\w.]+)$", pages, re.M))


@cache
def documented() -> set[tuple[str, int]]:
    """Each name in the reference with what it stands for: those that stand there themselves, and what their modules offer."""
    shown: set[tuple[str, int]] = set()
    for path in referenced():
        if path.startswith("integrations."):
            continue
        module, _, name = path.rpartition(".")
        if exists(path):
            whole = importlib.import_module(f"kimi_async.{path}")
            shown.add((name, id(whole)))
            module, names = path, list(whole.__all__)
        else:
            names = [name]
        held = importlib.import_module(f"kimi_async.{module}".rstrip("."))
        shown |= {(each, id(getattr(held, each))) for each in names if hasattr(held, each)}
    return shown


def exists(path: str) -> bool:
    """Whether this is a module."""
    try:
        return find_spec(f"kimi_async.{path}") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("module", PUBLIC)
def test_docs_reference_has_every_public_name(module: str) -> None:
    """What a public module offers is in the reference: by name, with its module or that it comes from, or as an error's page."""
    package = importlib.import_module(f"kimi_async.{module}".rstrip("."))
    shown = documented()

    assert [] == [
        name
        for name in package.__all__
        if name not in {*ERRORS, *NOT_FOR_PEOPLE} and (name, id(getattr(package, name))) not in shown
    ]


def test_docs_reference_has_every_integration() -> None:
    """Each module of integrations is in the reference, whether or not what it integrates is installed here."""
    folder = Path(kimi_async.__file__).parent / "integrations"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}

    assert modules - PARTS == {name[13:] for name in referenced() if name.startswith("integrations.")}


def test_docs_reference_names_what_exists() -> None:
    """Nothing is left in the reference of a name that is gone."""
    gone: list[str] = []
    for path in sorted(referenced()):
        module, _, name = path.rpartition(".")
        if module == "integrations" or exists(path):
            continue
        if not hasattr(importlib.import_module(f"kimi_async.{module}".rstrip(".")), name):
            gone.append(path)

    assert [] == gone


@pytest.mark.parametrize("page", PAGES)
def test_docs_page_is_in_the_navigation(page: str) -> None:
    """A page that nothing leads to is not found."""
    assert re.search(rf"^\s+(?:- )?(?:.*: )?{re.escape(page)}$|- {re.escape(page)}$", NAVIGATION, re.M)


NAVIGATION = (DOCS.parent / "mkdocs.yml").read_text("utf-8")


def test_docs_every_fault_is_described() -> None:
    """The page of faults has a row for each, with its own fields and the kinds of errors that there are."""
    page = (DOCS / "how-to" / "faults.md").read_text("utf-8")
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", page, re.M)}
    known = {
        kind.__name__: kind
        for kind in faults.Fault.__subclasses__()
        if kind.__module__.startswith(faults.__name__)
    }

    assert {name: list(kind.__struct_fields__) for name, kind in known.items()} == {
        name: re.findall(r"`(\w+)(?:=[^`]*)?`", row) for name, row in rows.items() if name in known
    }
    assert [] == [kind for kind in ERROR_REPLIES if f"`{kind}`" not in page]


def test_docs_plan_in_json_is_read() -> None:
    """The plan that the page shows as JSON is one."""
    page = (DOCS / "how-to" / "faults.md").read_text("utf-8")
    shown = re.search(r"```json\n(.*?)```", page, re.S)

    assert shown is not None
    assert [1, 0, 2] == [len(entry) for entry in faults.FaultPlan.from_json(shown[1]).entries]
