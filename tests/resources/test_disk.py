"""
Files replaced in one step, and waiting for threads.
"""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from kimi_async.errors import ConfigurationError
from kimi_async.resources.disk import Replacement, open_plain, plain_file, replacing
from kimi_async.resources.threads import in_thread, to_the_end

posix = pytest.mark.skipif(os.name == "nt", reason="needs modes and links")


@pytest.mark.parametrize("durable", [False, True])
def test_replacing_is_whole_or_not_at_all(tmp_path: Path, durable: bool):
    """
    The name is taken when the block ends well; otherwise what was there stays, and nothing else is left.
    """
    path = tmp_path / "file"
    with replacing(path, durable=durable) as file:
        file.write(b"one")
        assert not path.exists()
    assert b"one" == path.read_bytes()
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"two")
        raise ZeroDivisionError

    assert b"one" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


@posix
@pytest.mark.parametrize("mode", [0o600, 0o604, 0o640, 0o777])
def test_replacing_keeps_mode_and_link(tmp_path: Path, mode: int):
    """
    What is replaced stays as protected as it was, also in between, and a link to it stays a link.
    """
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(mode)
    link.symlink_to(path)
    new = Replacement(link)
    assert mode == stat.S_IMODE(os.stat(new.path).st_mode)
    new.file.write(b"new")
    new.commit()

    assert (b"new", True) == (path.read_bytes(), link.is_symlink())
    assert mode == stat.S_IMODE(path.stat().st_mode)


@posix
def test_replacing_new_file_has_the_usual_mode(tmp_path: Path):
    """
    A file that was not there gets what the umask leaves.
    """
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "file") as file:
            file.write(b"x")
    finally:
        os.umask(before)

    assert 0o640 == stat.S_IMODE((tmp_path / "file").stat().st_mode)


@posix
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")
def test_replacing_anothers_file_gives_it_no_more_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Where owner and group cannot be kept, our group gets no rights that the old one's had.
    """
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 12345)
    path.chmod(0o660)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    with replacing(path) as file:
        file.write(b"new")

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


@posix
def test_special_files_are_refused_at_once(tmp_path: Path):
    """
    Neither opened, nor replaced, nor waited for.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in [(pipe, "a named pipe"), (Path(os.devnull), "a device"), (tmp_path, "a directory")]:
        with pytest.raises(ConfigurationError, match=f"is {kind}; it must be a plain file"):
            plain_file(path)
        with pytest.raises(ConfigurationError, match=f"is {kind}; it must be a plain file"):
            Replacement(path)
        with pytest.raises(ConfigurationError, match=f"is {kind}"):
            open_plain(path, os.O_RDWR | os.O_CREAT)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [pipe] == list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_replacing_on_a_full_disk_leaves_what_was_there(tmp_path: Path):
    """
    What cannot be written whole is not written at all.
    """
    path = tmp_path / "file"
    path.write_bytes(b"old")
    new = Replacement(path)
    new.file.write(b"new")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, new.file.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        new.commit()

    assert b"old" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("times", [1, 3])
async def test_thread_is_waited_for_and_the_cancellation_goes_on(times: int):
    """
    However often a task is cancelled, what its thread has begun is finished before it ends, cancelled.
    """
    begun, go = threading.Event(), threading.Event()
    done: list[int] = []

    def work() -> None:
        begun.set()
        go.wait(30)
        done.append(1)

    task = asyncio.ensure_future(in_thread(work))
    await asyncio.to_thread(begun.wait, 30)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [1] == done


async def test_waiting_to_the_end_gives_a_timeout_its_due():
    """
    `asyncio.timeout` around it still ends as a timeout.
    """
    other = asyncio.ensure_future(asyncio.sleep(0.05))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await to_the_end(other)
    assert other.done()


async def test_thread_error_is_its_callers():
    """
    What the function raises is raised.
    """
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
