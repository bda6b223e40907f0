"""A command line in this process, against one simulator on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_async.cli.app import run
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.storage import BatchPace
from support.command_line import Cli


@pytest.fixture(scope="module")
def simulator() -> Iterator[KimiSimulator]:
    with KimiSimulator(words=(2, 5)).in_thread() as running:
        running.storage.pace = BatchPace(0, 0, 0, 0)
        yield running


@pytest.fixture
def cli(
    simulator: KimiSimulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Cli:
    """Runs a command in an empty directory; gives its status, output and notes."""
    monkeypatch.setenv("KIMI_API_KEY", simulator.api_key)
    monkeypatch.setenv("KIMI_BASE_URL", simulator.base_url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(arguments)
        told = capsys.readouterr()
        return status, told.out, told.err

    return call
