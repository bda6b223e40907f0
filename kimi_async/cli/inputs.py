"""The input of `map` and `batch`: request lines as they are, or a table whose rows fill in a prompt."""

import codecs
import csv
import difflib
import json
import string
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import KimiError
from .terminal import Failure

__all__ = ["Source", "encoding_of", "fields_of", "output_beside", "telling_bad_lines"]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of requests, checked as far as that needs no reading to its end."""

    path: Path
    template: str | None = None
    system: str | None = None
    id_column: str | None = None
    encoding: str = "utf-8-sig"

    @classmethod
    def of(
        cls,
        path: Path,
        *,
        prompt: str | None = None,
        system: str | None = None,
        id_column: str | None = None,
        repair: bool = False,
    ) -> "Source":
        """What the options say about the input. Raises `Failure` where they do not fit it."""
        if not path.is_file():
            # Of a pipe nobody can read twice what is checked first and sent then; opening one waits for its writer.
            raise Failure(f"{path} is no plain file: pipe it into one first", status=2)
        if path.stat().st_size == 0:
            raise Failure(f"{path} holds no requests")
        encoding = encoding_of(path)
        if prompt is None:
            if path.suffix.lower() in (".csv", ".tsv"):
                raise Failure(
                    "a CSV file needs --prompt, with its columns in braces: --prompt 'Translate: {text}'",
                    status=2,
                )
            if system is not None or id_column is not None:
                raise Failure("--system and --id go with --prompt", status=2)
            if encoding == "utf-16" and not repair:
                raise Failure(f"{path} is UTF-16: add --repair to read it all the same, or save it as UTF-8")
            return cls(path, encoding=encoding)
        template = _template(prompt)
        source = cls(path, template, system, id_column, encoding)
        try:
            wanted = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        except ValueError as exc:
            raise Failure(f"--prompt: {exc}; for a literal brace write {{{{ or }}}}", status=2) from None
        if any(not name for name in wanted):
            raise Failure(
                "braces in --prompt must name a column; for a literal brace write {{ or }}", status=2
            )
        first = next(source.rows(), None)
        if first is None:
            raise Failure(f"{path} holds no rows")
        have = first[1]
        for name in [*wanted, *([id_column] if id_column else [])]:
            if name.partition(".")[0].partition("[")[0] not in have:
                raise Failure(
                    f"there is no column {name!r} in {path}; there are: {', '.join(map(str, have))}"
                )
        return source

    @property
    def is_whole(self) -> bool:
        """Whether the file can be handed on as it is: lines of requests, and no UTF-16."""
        return self.template is None and self.encoding != "utf-16"

    def total(self) -> int | None:
        """How many requests there are, where that is not counted anyway while they are checked."""
        if self.is_whole:
            return None
        return sum(1 for _ in (self.rows() if self.template is not None else self._lines()))

    def requests(self) -> Any:
        """What `client.map` and `client.batches` take: the path, or the requests one by one."""
        if self.is_whole:
            return str(self.path)
        return self._lines() if self.template is None else self._filled_in(self.template)

    def ids(self) -> Iterator[str]:
        """The custom_id of each request, in order."""
        from ..bulk.lines import read_ids

        if self.is_whole:
            yield from read_ids(self.path)
        elif self.template is None:
            yield from (str(json.loads(line)["custom_id"]) for line in self._lines())
        else:
            yield from (self._id(number, row) for number, row in self.rows())

    def rows(self) -> Iterator[tuple[int, Mapping[str, object]]]:
        """The rows of a table, or the objects of a JSONL file, from 1."""
        suffix = self.path.suffix.lower()
        try:
            if suffix in (".csv", ".tsv"):
                with open(self.path, encoding=self.encoding, newline="") as file:
                    dialect = "excel-tab" if suffix == ".tsv" else "excel"
                    yield from enumerate(csv.DictReader(file, dialect=dialect), 1)
                return
            with open(self.path, encoding=self.encoding, newline="\n") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, self._object(number, line)
        except UnicodeDecodeError as exc:
            raise Failure(
                f"{self.path} is not UTF-8 (byte {exc.object[exc.start]:#04x} at {exc.start:,}): save it as UTF-8"
            ) from None
        except csv.Error as exc:
            raise Failure(f"{self.path} is no CSV file: {exc}") from None

    def _object(self, number: int, line: str) -> Mapping[str, object]:
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise Failure(f"{self.path}, line {number}: not JSON ({exc})") from None
        if not isinstance(row, dict):
            raise Failure(f"{self.path}, line {number}: not a JSON object")
        return cast("dict[str, object]", row)

    def _lines(self) -> Iterator[bytes]:
        """The request lines of a file in UTF-16."""
        with open(self.path, encoding=self.encoding, newline="\n") as file:
            for line in file:
                if line.strip():
                    yield line.strip().encode()

    def _id(self, number: int, row: Mapping[str, object]) -> str:
        return f"row-{number}" if self.id_column is None else str(row[self.id_column])

    def _filled_in(self, template: str) -> Iterator[object]:
        for number, row in self.rows():
            try:
                text = template.format_map(row)
            except (KeyError, IndexError, AttributeError, TypeError, ValueError) as exc:
                raise Failure(
                    f"{self.path}, row {number}: the prompt cannot be filled in ({exc!r})"
                ) from None
            messages = [{"role": "user", "content": text}]
            if self.system is not None:
                messages.insert(0, {"role": "system", "content": self.system})
            yield {"custom_id": self._id(number, row), "messages": messages}


def encoding_of(path: Path) -> str:
    """UTF-16 where the file begins with its mark, as what Windows programs write; else UTF-8, with or without one."""
    with open(path, "rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _template(prompt: str) -> str:
    if not prompt.startswith("@"):
        return prompt
    try:
        return Path(prompt[1:]).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise Failure(f"--prompt {prompt}: {getattr(exc, 'strerror', None) or exc}", status=2) from None


def output_beside(source: Path, output: Path | None) -> Path:
    """Where results go. Raises `Failure` for a place that cannot hold them."""
    target = output or source.with_suffix(".out.jsonl")
    if target.resolve() == source.resolve():
        raise Failure("the output would overwrite the input; choose another --output", status=2)
    if target.is_dir():
        raise Failure(f"--output {target} is a folder: name a file in it", status=2)
    if not target.parent.is_dir():
        raise Failure(f"--output {target}: there is no folder {target.parent}; make it first", status=2)
    return target


def fields_of(given: Sequence[str] | None) -> dict[str, Any]:
    """What --set says: a field a word, its value as JSON, or as text where it is none."""
    from ..resources.chat_body import chat_body
    from ..types.completions import ChatParams

    known = [*ChatParams.__annotations__, "model", "extra_body"]
    fields: dict[str, Any] = {}
    for each in given or ():
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise Failure(f"--set wants NAME=VALUE, not {each!r}", status=2)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Failure(f"--set {name}: requests have no such field{hint}", status=2)
        try:
            fields[name] = json.loads(text)
        except ValueError as exc:
            if text.lstrip()[:1] in tuple('{["'):
                raise Failure(f"--set {name}: {text!r} is not JSON ({exc})", status=2) from None
            fields[name] = text  # a plain word needs no quotes
    # Built once as a request would be, so that a value of the wrong kind is told now and not by each of them.
    trial = {name: value for name, value in fields.items() if name not in ("model", "extra_body", "stream")}
    try:
        chat_body(
            "--set", [{"role": "user", "content": "?"}], "kimi-k3", trial, False, fields.get("extra_body")
        )
    except (KimiError, TypeError, ValueError) as exc:
        raise Failure(f"--set: {exc}", status=2) from None
    return fields


@contextmanager
def telling_bad_lines() -> Generator[None]:
    """Bad lines of the input are told one a line, with the option that reads past them where there is one."""
    from ..bulk.lines import InvalidLinesError

    try:
        yield
    except InvalidLinesError as exc:
        mendable = all(problem.kind in ("bom", "crlf", "blank") for problem in exc.problems)
        hint = "\nAdd --repair to read past that." if mendable else ""
        raise Failure(f"{exc}{hint}", lines=True) from None
