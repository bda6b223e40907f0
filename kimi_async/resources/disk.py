"""
What is done to files, each in one way: opening without waiting, reading by offset, replacing in one step.

Synchronous throughout: call it from a thread.
"""

import io
import os
import secrets
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from ..errors import ConfigurationError

__all__ = [
    "Replacement",
    "datasync",
    "kind_of",
    "open_plain",
    "plain_file",
    "read_at",
    "replacing",
    "short",
    "sync_directory",
    "write_all",
]

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def kind_of(mode: int) -> str | None:
    """What a file is by its mode, if it is not a plain one."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no plain file")


def open_plain(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """
    A descriptor of a plain file. Opening a pipe waits for somebody at its other end, and reading from a device may never end.

    :raises ConfigurationError: for anything else, by name; nothing was waited for.
    :raises OSError: as `os.open`.
    """
    # Looked at first, since opening alone may do something: rewind a tape, hang up a modem.
    with suppress(FileNotFoundError):
        _refuse_special(path, os.stat(path).st_mode)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    fd = os.open(path, flags, mode)
    try:
        # And again, since somebody may have put another under this name.
        _refuse_special(path, os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def plain_file(path: str | os.PathLike[str]) -> io.FileIO:
    """A plain file, unbuffered, for reading; see `open_plain`."""
    return io.FileIO(open_plain(path, os.O_RDONLY), "rb")


def _refuse_special(path: str | os.PathLike[str], mode: int) -> None:
    kind = kind_of(mode)
    if kind is not None:
        raise ConfigurationError(f"{os.fspath(path)} is {kind}; it must be a plain file")


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Bytes by offset, without moving the position of the file where the system can."""
    if sys.platform == "win32":
        # Appending ignores the position (O_APPEND), so moving it disturbs nobody.
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)
    return os.pread(fd, count, offset)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def datasync(fd: int) -> None:
    """Wait until the bytes of a file are on the disk."""
    # fdatasync writes the size too, as far as reading the data back needs it.
    if sys.platform == "linux":
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory as durable as the bytes. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        # Some file systems refuse fsync on a directory; their names are durable otherwise or not at all.
        with suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


class Replacement:
    """
    A file that takes a name in one step.

    It is written beside the file that it replaces, and is as protected: mode, owner and attributes are kept. Where the name
    is a symbolic link, the link stays, and the file it leads to is replaced.

    :param durable: wait for the disk before and after.
    :param mark: the end of its name until then, by which a copy that a killed process left can be known.
    """

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = False, mark: str = "new") -> None:
        self._durable = durable
        self.target: str = os.path.realpath(path)
        directory, name = os.path.split(self.target)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        replaced: os.stat_result | None = None
        with suppress(FileNotFoundError):
            replaced = os.stat(self.target)
        if replaced is not None:
            _refuse_special(path, replaced.st_mode)
        self.path: str = os.path.join(directory, f".{short(name)}.{secrets.token_hex(8)}.kimi-{mark}")
        # Nobody else sees it before it has the rights of the one that it replaces.
        try:
            fd = open_plain(self.path, flags, 0o666 if replaced is None else 0o600)
        except OSError as exc:
            exc.filename = os.fspath(path)  # the name that the caller knows
            raise
        try:
            if replaced is not None:
                _protect(fd, self.target, replaced)
            self.file: BinaryIO = os.fdopen(fd, "wb", buffering=1024 * 1024)
        except BaseException:
            os.close(fd)
            os.unlink(self.path)
            raise

    def commit(self) -> None:
        """Gives it the name."""
        try:
            self.file.flush()
            if self._durable:
                datasync(self.file.fileno())
            self.file.close()
            os.replace(self.path, self.target)
        except BaseException:
            self.discard()
            raise
        if self._durable:
            sync_directory(os.path.dirname(self.target))

    def discard(self) -> None:
        """Leaves nothing of it behind."""
        with suppress(OSError):
            self.file.close()  # on a full disk there may be something left that cannot be written
        with suppress(FileNotFoundError):
            os.unlink(self.path)


def short(name: str) -> str:
    """So much of a file's name that more fits behind it: 255 bytes are what file systems take, three for a Chinese character."""
    return os.fsencode(name)[:160].decode("utf-8", "ignore")


@contextmanager
def replacing(
    path: str | os.PathLike[str], *, durable: bool = False, mark: str = "new"
) -> Generator[BinaryIO, None, None]:
    """A file for writing that takes this name when the block ends well; nothing is left of it otherwise. See `Replacement`."""
    new = Replacement(path, durable=durable, mark=mark)
    try:
        yield new.file
    except BaseException:
        new.discard()
        raise
    new.commit()


def _protect(fd: int, path: str, replaced: os.stat_result) -> None:
    """Gives the file whose descriptor this is the protection of the one with this path."""
    if sys.platform == "win32":
        return
    mode = stat.S_IMODE(replaced.st_mode)
    own = os.fstat(fd)
    if (own.st_uid, own.st_gid) != (replaced.st_uid, replaced.st_gid):
        try:
            os.fchown(fd, replaced.st_uid, replaced.st_gid)
        except PermissionError:
            try:
                os.fchown(fd, -1, replaced.st_gid)
            except PermissionError:
                # It stays with our group, to which the old one granted nothing.
                mode &= ~0o070
    os.fchmod(fd, mode)
    if sys.platform == "linux":
        # Access control lists among them. Not every file system has them all.
        with suppress(OSError):
            for name in os.listxattr(path):
                with suppress(OSError):
                    os.setxattr(fd, name, os.getxattr(path, name))
