"""
The requests of a batch job, checked and written into files small enough to upload.
"""

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .. import codec
from ..errors import ConfigurationError
from ..resources.disk import plain_file
from ..resources.threads import in_thread
from .lines import MAX_LINE_SIZE, InvalidLinesError, LineProblem, read_lines
from .request_files import CHAT_URL, MAX_BATCH_FILE, LineChecker, Shard, Shards, check_lines
from .requests import Requests, filled, item_of, path_of

__all__ = ["RequestRules", "prepared"]


@dataclass(frozen=True, slots=True)
class RequestRules:
    """What is filled in, and how large lines and files may be."""

    model: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    repair: bool = False
    max_bytes: int = MAX_BATCH_FILE
    max_lines: int | None = None
    max_line_size: int = MAX_LINE_SIZE

    @property
    def default_model(self) -> str | None:
        return self.model or self.defaults.get("model")

    def checker(self) -> LineChecker:
        return LineChecker(
            model=self.default_model, repair=self.repair, fill=True, max_line=self.max_line_size
        )


async def prepared(requests: Requests, directory: str, name: str, rules: RequestRules) -> list[Shard]:
    """
    The files to upload, in ``directory`` unless the one given will do.

    :raises InvalidLinesError: if any request is wrong, before anything is sent.
    """
    path = path_of(requests)
    if path is None:
        return await _written(requests, directory, name, rules)
    return await in_thread(_from_file, path, directory, name, rules)


def _from_file(path: str, directory: str, name: str, rules: RequestRules) -> list[Shard]:
    found = check_lines(
        path, model=rules.default_model, repair=rules.repair, fill=True, max_line=rules.max_line_size
    )
    found.raise_if_bad()
    if not found.lines:
        raise ConfigurationError(f"{path} holds no requests")
    fits = found.size <= rules.max_bytes and (rules.max_lines is None or found.lines <= rules.max_lines)
    if fits and not found.repaired and not rules.model and not rules.defaults:
        return [_as_it_is(path, found.lines)]
    return _rewritten(path, directory, name, rules, found.repaired)


def _as_it_is(path: str, lines: int) -> Shard:
    import hashlib

    with plain_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    return Shard(os.path.abspath(path), lines, size, digest)


def _rewritten(path: str, directory: str, name: str, rules: RequestRules, repaired: bool) -> list[Shard]:
    checker = rules.checker()
    fills = repaired or bool(rules.model or rules.defaults)
    with (
        plain_file(path) as file,
        Shards(directory, name, max_bytes=rules.max_bytes, max_lines=rules.max_lines) as shards,
    ):
        for _, line in read_lines(file, max_line=rules.max_line_size):
            good = checker.feed(line)
            if good is not None:
                shards.add(_filled_line(good, rules) if fills else good)
        checker.finish().raise_if_bad()
        return shards.close()


def _filled_line(line: bytes, rules: RequestRules) -> bytes:
    fields = msgspec.json.decode(line)
    body = filled(fields["body"], rules.model, rules.defaults)
    if body == fields["body"] and "method" in fields and "url" in fields:
        return line
    return codec.encode({"method": "POST", "url": CHAT_URL, **fields, "body": body})


async def _written(requests: object, directory: str, name: str, rules: RequestRules) -> list[Shard]:
    """Write an iterable of requests to files, a block at a time."""
    checker = LineChecker(max_line=rules.max_line_size)
    early: list[LineProblem] = []
    waiting: list[bytes | None] = []
    size = index = 0
    with Shards(directory, name, max_bytes=rules.max_bytes, max_lines=rules.max_lines) as shards:

        def flush() -> None:
            for line in waiting:
                if line is None:
                    checker.skip()
                    continue
                good = checker.feed(line)
                # Once something is wrong nothing will be sent, so nothing need be written; but all is checked.
                if good is not None and not early:
                    shards.add(good)

        async for given in _each(requests):
            line = _line_of(given, index, rules, early)
            index += 1
            waiting.append(line)
            size += len(line or b"")
            if size > 1024 * 1024:
                await in_thread(flush)
                waiting.clear()
                size = 0
        await in_thread(flush)
        found = checker.finish()
        if early or found.count:
            problems = sorted([*early, *found.problems], key=lambda problem: problem.line)
            raise InvalidLinesError(problems[:100], count=len(early) + found.count)
        done = await in_thread(shards.close)
        if not done:
            raise ConfigurationError("there are no requests")
        return done


def _line_of(given: object, index: int, rules: RequestRules, problems: list[LineProblem]) -> bytes | None:
    """The line of one request; None, and one problem more, where none can be made of it."""
    try:
        item = item_of(given, index, model=rules.model, defaults=rules.defaults)
        return codec.encode(
            {"custom_id": item.custom_id, "method": "POST", "url": CHAT_URL, "body": item.fields}
        )
    except Exception as exc:  # whatever the caller's own mappings raise
        problems.append(LineProblem(index + 1, "body", str(exc) or type(exc).__name__))
        return None


async def _each(requests: Any) -> AsyncIterator[Any]:
    if hasattr(requests, "__aiter__"):
        async for item in requests:
            yield item
    elif hasattr(requests, "__iter__"):
        for item in requests:
            yield item
    else:
        raise TypeError(
            f"requests must be a path, an iterable or an async iterable, not {type(requests).__name__}"
        )
