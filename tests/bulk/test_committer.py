"""
Lines into the journal at once, onto the disk in groups.
"""

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from kimi_async.bulk.committer import Committer
from kimi_async.bulk.journal import Journal, JournalWriteError
from kimi_async.bulk.output_lines import RunInfo, answer_line
from kimi_async.bulk.results import Result


def committed(committer: Committer, index: int) -> None:
    name = f"r{index}"
    committer.commit(Result(name, index, error=ValueError()), answer_line(name, b"{}", run=RunInfo()))


@pytest.mark.parametrize("disk", [True, False])
async def test_committer_result_leaves_when_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: bool
):
    """
    With `disk` a result waits for the sync, and what gathers meanwhile shares the next one; with `process` it does not wait.
    """
    path = tmp_path / "j.jsonl"
    journal = Journal.open(path)
    syncs: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def sync() -> None:
        begun.set()
        go.wait(30)
        syncs.append(len(out))

    monkeypatch.setattr(journal, "sync", sync)
    out: list[Result] = []
    committer = Committer(journal, disk=disk, deliver=out.append)
    running = asyncio.ensure_future(committer.run())
    committed(committer, 0)
    await asyncio.to_thread(begun.wait, 30)
    for index in range(1, 10):
        committed(committer, index)
    assert (0 if disk else 10) == len(out)
    go.set()
    committer.end()
    await running
    await committer.close()

    if disk:
        assert [0, 1] == syncs  # the first alone, then the nine that had gathered
    assert list(range(10)) == [each.index for each in out]
    assert 10 == len(path.read_bytes().splitlines())


async def test_committer_cancelled_in_a_sync_hands_out_what_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    A cancelled task waits for the sync that has begun, so that the file is not closed under it.
    """
    journal = Journal.open(tmp_path / "j.jsonl")
    begun, go = threading.Event(), threading.Event()

    def sync() -> None:
        begun.set()
        go.wait(30)

    monkeypatch.setattr(journal, "sync", sync)
    out: list[Result] = []
    committer = Committer(journal, disk=True, deliver=out.append)
    committed(committer, 0)
    running = asyncio.ensure_future(committer.run())
    await asyncio.to_thread(begun.wait, 30)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert 1 == len(out)
    await committer.close()


async def test_committer_failed_write_hands_the_line_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A line that could not be written comes with the error, and the result is not handed out as if it were safe.
    """
    journal = Journal.open(tmp_path / "j.jsonl")
    out: list[Result] = []
    committer = Committer(journal, disk=False, deliver=out.append)

    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(JournalWriteError, match="the disk is full") as caught:
            committed(committer, 0)
    assert 1 == len(caught.value.unsaved)
    assert [] == out
    await committer.close()
