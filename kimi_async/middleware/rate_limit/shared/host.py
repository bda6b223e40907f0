"""
A ledger for the processes of one machine and one user: a file, locked while it is read and written. No server, no dependency.

The file lies in memory where the system has such a place (`/dev/shm`), in a folder that is its user's alone. It is small, and never
synced to a disk: what a crash of the machine destroys is of no use after it. A process that dies while it writes leaves a file whose
checksum is wrong; then the ledger begins anew, and hears from the others what they sent.

`flock` holds on one machine only: no folder on a network.
"""

import asyncio
import os
import stat
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec

from ....errors import ConfigurationError
from .ledger import State, sync
from .message import Answer, LedgerUnavailable, Sync

__all__ = ["HostLedger", "open_ledger"]

# A process that was stopped (SIGSTOP, a debugger) may hold the lock for as long as it likes.
LOCK_WITHIN = 0.5
# Who was not heard for so long (ms) is looked for among the processes.
LOOK_AFTER = 30

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def open_ledger(address: str, quota: str) -> "HostLedger":
    return HostLedger(quota)


class HostLedger:
    """
    Keeps a quota in a file of this machine.

    :param folder: where; its own user's alone, made with mode 0700. `KIMI_SHARED_DIR`, or a folder named after the user in `/dev/shm`
        or the system's place for temporary files.

    :raises ConfigurationError: the folder belongs to somebody else, or others may write to it.
    """

    def __init__(self, quota: str = "default", *, folder: str | os.PathLike[str] | None = None) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("shared='host' needs flock, which Windows has not; use redis:// there")
        self.folder: Path = Path(folder) if folder is not None else _folder()
        self.path: Path = self.folder / f"{quota}.quota"
        self._file = -1
        self._me = _process_of(os.getpid())

    async def sync(self, message: Sync) -> Answer:
        """:raises LedgerUnavailable: the file cannot be opened, or another process has held it for half a second."""
        import fcntl

        try:
            file = self._opened()
            waited = 0.0
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # No thread and no blocking: the lock is usually free within a fraction of a millisecond.
                    if waited >= LOCK_WITHIN:
                        raise LedgerUnavailable(
                            f"another process has held {self.path} for {LOCK_WITHIN} s"
                        ) from None
                    pause = 0.0005 if waited < 0.01 else 0.005
                    await asyncio.sleep(pause)
                    waited += pause
            try:
                return self._locked(file, message)
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)
        except OSError as error:
            raise LedgerUnavailable(f"{self.path}: {error.strerror or error}") from error

    def _opened(self) -> int:
        if self._file < 0:
            _check_folder(self.folder)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | _NOFOLLOW, 0o600)
        elif os.fstat(self._file).st_nlink == 0:
            os.close(self._file)  # somebody has deleted it: the others will find the new one as we do
            self._file = -1
            return self._opened()
        return self._file

    def _locked(self, file: int, message: Sync) -> Answer:
        state = _read(file)
        now = message.now or _now()
        for member, known in list(state.members.items()):
            # The name ends in what finds the process: kill -9 gives its slots back at once.
            if member != message.member and now - known.seen > LOOK_AFTER and _is_gone(known.name):
                del state.members[member]
        message.name = f"{message.name.partition(' ')[0]} {self._me}"
        answer = sync(state, message, now)
        if message.leave != 2:
            _write(file, state)
        return answer

    async def aclose(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _folder() -> Path:
    named = os.environ.get("KIMI_SHARED_DIR", "").strip()
    if named:
        return Path(named)
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return base / f"kimi-async-{os.getuid()}"


def _check_folder(folder: Path) -> None:
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigurationError(
            f"{folder} must be a folder of your own that others may not write to (mode 0700); set KIMI_SHARED_DIR to another"
        )


def _read(file: int) -> State:
    size = os.fstat(file).st_size
    data = os.pread(file, size, 0) if 4 < size < 1 << 24 else b""
    if data and int.from_bytes(data[:4], "little") == zlib.crc32(data[4:]):
        try:
            return msgspec.msgpack.decode(data[4:], type=State)
        except msgspec.MsgspecError:
            pass  # of another version: those who know better will say what they sent
    return State()


def _write(file: int, state: State) -> None:
    data = msgspec.msgpack.encode(state)
    data = zlib.crc32(data).to_bytes(4, "little") + data
    os.pwrite(file, data, 0)
    os.ftruncate(file, len(data))


def _now() -> int:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return int((time.monotonic() if clock is None else time.clock_gettime(clock)) * 1000)


# --- processes ---------------------------------------------------------------------------------------------------------


def _process_of(pid: int) -> str:
    """`pid.start.namespace`: what tells a process from a later one of the same number, and from another container's."""
    return f"{pid}.{_start_of(pid)}.{_namespace()}"


def _start_of(pid: int) -> str:
    """When it was started, in ticks since the machine was; empty if that cannot be told, `gone` if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        return "gone" if os.path.isdir("/proc/self") else ""
    except OSError:
        return ""
    return "gone" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _is_gone(name: str) -> bool:
    pid, _, rest = name.rpartition(" ")[2].partition(".")
    start, _, namespace = rest.partition(".")
    if not pid.isdigit() or namespace != _namespace():
        return False
    if start:
        return _start_of(int(pid)) not in (start, "")
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
