"""
The documentation covers what there is: every error has its page, every public name its place in the reference.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kimi_async
from kimi_async import KimiError
from kimi_async.testing import faults
from kimi_async.testing.simulator.replies import ERRORS as ERROR_REPLIES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
ERRORS = sorted(
    name
    for name in kimi_async.__all__
    if isinstance(value := getattr(kimi_async, name), type) and issubclass(value, KimiError)
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


def test_docs_reference_has_every_public_name() -> None:
    """What the package offers is in the reference, or is an error and has a page."""
    reference = "\n".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: kimi_async\.([\w.]+)$", reference, re.M))
    missing = [
        name
        for name in kimi_async.__all__
        if not name.startswith("_")
        and name not in shown
        and name not in ERRORS
        and getattr(getattr(kimi_async, name), "__module__", "").removeprefix("kimi_async.") not in shown
    ]

    assert [] == missing


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
