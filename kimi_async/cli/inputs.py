"""
The input of `map` and `batch`: request lines as they are, or a table whose rows fill in a prompt.
"""

import csv
import json
import string
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .terminal import Failure

__all__ = ["Source", "fields_of", "telling_bad_lines"]


@dataclass(frozen=True, slots=True)
class Source:
    """
    A file of requests, checked as far as that needs no reading to its end.
    """

    path: Path
    template: str | None = None
    system: str | None = None
    id_column: str | None = None

    @classmethod
    def of(cls, path: Path, *, prompt: str | None, system: str | None, id_column: str | None) -> "Source":
        """
        What the options say about the input. Raises `Failure` where they do not fit it.
        """
        if prompt is None:
            if path.suffix.lower() in (".csv", ".tsv"):
                raise Failure(
                    "a CSV file needs --prompt, with its columns in braces: --prompt 'Translate: {text}'"
                )
            if system is not None or id_column is not None:
                raise Failure("--system and --id go with --prompt")
            return cls(path)
        template = Path(prompt[1:]).read_text("utf-8") if prompt.startswith("@") else prompt
        source = cls(path, template, system, id_column)
        wanted = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        if any(not name for name in wanted):
            raise Failure("braces in --prompt must name a column; for a literal brace write {{ or }}")
        first = next(source.rows(), None)
        if first is None:
            raise Failure(f"{path} holds no rows")
        have = first[1]
        for name in [*wanted, *([id_column] if id_column else [])]:
            if name.partition(".")[0].partition("[")[0] not in have:
                raise Failure(f"there is no column {name!r} in {path}; there are: {', '.join(have)}")
        return source

    def total(self) -> int | None:
        """
        How many requests there are, where that is not counted anyway while they are checked.
        """
        return None if self.template is None else sum(1 for _ in self.rows())

    def requests(self) -> Any:
        """
        What `client.map` and `client.batches` take: the path, or the requests one by one.
        """
        return str(self.path) if self.template is None else self._filled_in(self.template)

    def ids(self) -> Iterator[str]:
        """
        The custom_id of each request, in order.
        """
        from ..bulk.journal import read_ids

        if self.template is None:
            yield from read_ids(self.path)
            return
        for number, row in self.rows():
            yield self._id(number, row)

    def rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """
        The rows of a table, or the objects of a JSONL file, from 1.
        """
        suffix = self.path.suffix.lower()
        if suffix in (".csv", ".tsv"):
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                yield from enumerate(
                    csv.DictReader(file, dialect="excel-tab" if suffix == ".tsv" else "excel"), 1
                )
            return
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as exc:
                    raise Failure(f"{self.path}, line {number}: not JSON ({exc})") from None
                if not isinstance(row, dict):
                    raise Failure(f"{self.path}, line {number}: not a JSON object")
                yield number, cast("dict[str, Any]", row)

    def _id(self, number: int, row: Mapping[str, Any]) -> str:
        return f"row-{number}" if self.id_column is None else str(row[self.id_column])

    def _filled_in(self, template: str) -> Iterator[Any]:
        for number, row in self.rows():
            try:
                text = template.format_map(row)
            except (KeyError, IndexError, AttributeError, ValueError) as exc:
                raise Failure(
                    f"{self.path}, row {number}: the prompt cannot be filled in ({exc!r})"
                ) from None
            messages = [{"role": "user", "content": text}]
            if self.system is not None:
                messages.insert(0, {"role": "system", "content": self.system})
            yield {"custom_id": self._id(number, row), "messages": messages}


def fields_of(given: Sequence[str] | None) -> dict[str, Any]:
    """
    What --set says: a field a word, its value as JSON, or as text where it is none.
    """
    fields: dict[str, Any] = {}
    for each in given or ():
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise Failure(f"--set wants NAME=VALUE, not {each!r}", status=2)
        try:
            fields[name] = json.loads(text)
        except ValueError as exc:
            if text.lstrip()[:1] in tuple('{["'):
                raise Failure(f"--set {name}: {text!r} is not JSON ({exc})", status=2) from None
            fields[name] = text  # a plain word needs no quotes
    return fields


@contextmanager
def telling_bad_lines() -> Generator[None]:
    """
    Bad lines of the input are told one a line.
    """
    from ..bulk.request_files import InvalidLinesError

    try:
        yield
    except InvalidLinesError as exc:
        raise Failure(str(exc), lines=True) from None
