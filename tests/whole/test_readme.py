"""
The README is executed: its programs against the simulator, its commands against what exists.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import kimi_async
from kimi_async import AsyncKimi
from kimi_async.providers.hosts import CHAT, PROVIDERS
from kimi_async.testing import KimiSimulator

ROOT = Path(__file__).parents[2]
PAGES = [
    *("README.md", "examples/README.md", "tests/README.md", "CONTRIBUTING.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    section: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """The fenced code of a page, with the line of each fence and the heading it stands under."""
    found: list[Block] = []
    section, opened, held = "", None, []
    for number, line in enumerate((ROOT / page).read_text("utf-8").splitlines(), 1):
        if opened is not None:
            if line.startswith("```"):
                found.append(Block(page, *opened, section, "\n".join(held) + "\n"))
                opened, held = None, []
            else:
                held.append(line)
        elif line.startswith("```"):
            opened = (number, line[3:].strip())
        elif line.startswith("## "):
            section = line[3:].strip()
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]
# The programs of this page need the frameworks they are about; tests/integrations/frameworks runs them where those are.
FRAMEWORKS = "docs/how-to/frameworks.md"
PYTHON = [block for block in BLOCKS if block.language == "python" and block.page != FRAMEWORKS]
SHELL = [block for block in BLOCKS if block.language == "sh"]


PREAMBLE = next(
    block for block in PYTHON if block.text.startswith("from kimi_async import AsyncKimi\nclient = ")
)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_readme_program_runs(
    block: Block,
    neighbour: KimiSimulator,
    neighbourhood: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A Python block runs as it stands, in an empty directory; one that awaits runs as in `python -m asyncio` after the
    lines that the README says, and a test that it defines passes.
    """
    monkeypatch.chdir(tmp_path)
    for name, value in neighbourhood.items():
        monkeypatch.setenv(name, value)
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    source = "\n" * block.line + block.text
    if "asyncio.run(" in block.text:
        exec(compile(source, block.page, "exec", dont_inherit=True), {"__name__": "__main__"})
        return

    async def console() -> None:
        names: dict[str, Any] = {"__name__": "__console__"}
        exec(compile(PREAMBLE.text, PREAMBLE.page, "exec", dont_inherit=True), names)
        opened = [names["client"]]
        code = compile(source, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result
        for name, value in names.items():
            if name.startswith("test_"):
                await value(neighbour, names["client"])
        opened += [value for value in names.values() if isinstance(value, AsyncKimi)]
        for client in opened:
            await client.close()

    asyncio.run(console())


def test_readme_blocks_work_in_the_console(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """
    Pasted one after another into `python -m asyncio`, as the README recommends, its blocks raise nothing and print no
    `Ellipsis`.
    """
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    pasted = [
        block.text for block in PYTHON if block.page == "README.md" and "asyncio.run(" not in block.text
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "asyncio_console.py")],
        # An empty line ends a block, as a person ends it.
        input="\n\n".join(pasted) + "\n\nawait client.close()\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=neighbourhood,
        timeout=120,
    )

    assert 0 == done.returncode
    assert "Ellipsis" not in done.stdout
    assert not re.search(r"Traceback|\w+Error:", done.stderr), done.stderr


# What the programs read.
FILES = {
    "notes.txt": b"Rivers bend because water cuts the outer bank.\n",
    "in.jsonl": b"".join(
        b'{"custom_id": "q%d", "method": "POST", "url": "/v1/chat/completions", "body":'
        b' {"model": "kimi-k3", "messages": [{"role": "user", "content": "Question %d?"}]}}\n' % (n, n)
        for n in range(5)
    ),
}


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, without assignments before them, redirections and comments."""
    found: list[list[str]] = []
    for line in block.text.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if not word.strip("|&;"):
                found += [command] if command else []
                command = []
            elif command or not re.fullmatch(r"\w+=.*", word):
                command.append(word)
    return found


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_readme_command_exists(block: Block) -> None:
    """What a reader is told to type exists: programs, extras, files and the options of our own commands."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = {
        "python3",
        "pip",
        "pytest",
        "bash",
        "kimi-async",
        "python",
        "git",
        "cd",
        "export",
        "curl",
        "eval",
    }
    for words in commands(block):
        program = words[0].rpartition("/")[2]
        assert program in known or program in pyproject.get("scripts", {}), words
        if "install" in words:
            for extra in re.findall(r"(?:kimi-async|\.)\[([\w,]+)\]", " ".join(words)):
                assert set(extra.split(",")) <= set(pyproject["optional-dependencies"]), words
        for word in words[1:]:
            if re.fullmatch(r"(examples|tests|benchmarks|\.ci)/[\w./]+", word):
                assert (ROOT / word).exists(), words
        if program == "kimi-async" and len(words) > 1 and not words[1].startswith("-"):
            assert_options_exist(words[1:])


def assert_options_exist(words: list[str]) -> None:
    from typer.main import get_command

    from kimi_async.cli.app import app

    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{words} names no command"
    offered = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    given = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert given <= offered | {"--help"}


def test_readme_first_blocks_are_the_two_commands() -> None:
    """
    The first block under Quick start runs the main job, the first under Tests runs the tests: both are looked for by
    machines, `.ci/run` among them.
    """
    first = {}
    for block in blocks("README.md"):
        first.setdefault(block.section, block)

    assert ("sh", ".venv/bin/kimi-async demo") == (
        first["Quick start"].language,
        first["Quick start"].text.splitlines()[-1],
    )
    assert ("sh", ".venv/bin/python -m pytest -n auto") == (
        first["Tests"].language,
        first["Tests"].text.splitlines()[-1],
    )


def test_docs_gateways_are_those_there_are() -> None:
    """The table of gateways says what `providers.py` says, row by row."""
    page = (ROOT / "docs" / "how-to" / "gateways.md").read_text("utf-8")
    rows = [
        f"| `{row.name}` | {row.base_url.partition('://')[2]} "
        f"| {', '.join(f'`{name}`' for name in row.key_variables)}{'' if row.key_required else ' (if any)'} "
        f"| `{row.example_model}` | {', '.join(sorted(row.endpoints - {CHAT})) or '–'} |"
        for row in PROVIDERS.values()
    ]

    assert rows == re.findall(r"^\| `(?!provider=).*\|$", page, re.M)


OURS = re.compile(
    r"https://(?:github\.com/kimi-async/kimi-async/(?:blob|tree)|raw\.githubusercontent\.com/kimi-async/kimi-async)"
    r"/main/([^)#\s\"'>]+)"
)


def test_readme_links_work_on_the_package_index() -> None:
    """The index shows the README without the repository: no link or picture of it is relative, and none is of another branch."""
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text("utf-8"))

    assert [] == [target for target in targets if not target.startswith("https://")]
    ours = [target for target in targets if "kimi-async/kimi-async/" in target]
    assert ours == [target for target in ours if OURS.match(target)]


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md", "CHANGELOG.md"])
def test_readme_links_lead_somewhere(page: str) -> None:
    """A link to a file of the repository has that file at its end."""
    text = (ROOT / page).read_text("utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in target]
    # Where a page is read outside the repository, as README is on the package index, its links name the host.
    targets += [
        Path(os.path.relpath(ROOT / target, (ROOT / page).parent)).as_posix() for target in OURS.findall(text)
    ]

    # Where the tests run against an installed wheel, the package lies elsewhere.
    package = Path(kimi_async.__file__).parent
    assert [] == [
        target
        for target in targets
        if not ((ROOT / page).parent / target).exists()
        and not (package / target.removeprefix("kimi_async/")).exists()
    ]
