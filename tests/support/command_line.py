"""What the tests of the command line share: how a command is called, and the files it reads and writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Cli", "requests", "rows"]

Cli: TypeAlias = Callable[..., tuple[int, str, str]]
"""Runs a command in an empty directory; gives its status, output and notes."""


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def requests(count: int) -> str:
    return "".join(
        json.dumps(
            {
                "custom_id": f"r{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "kimi-k2.6", "messages": [{"role": "user", "content": f"question {n}"}]},
            }
        )
        + "\n"
        for n in range(count)
    )
