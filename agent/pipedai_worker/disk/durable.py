"""Writes files that only their owner can read, and that no crash leaves half written, and a run's directory."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from pipedai_worker.values import parse

log = logging.getLogger(__name__)

# The size of the file that `try_writing` writes. The files that the worker keeps are not larger than this.
_TRIAL_BYTES = 64 * 1024


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter, and any missing parents in the same way."""
    if not path.is_dir():
        private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def create(path: Path) -> int:
    """Create a file that no other user can read at any time, and return its appending descriptor. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_private(path: Path, content: bytes) -> None:
    """Create a file as `create` does, with this content, and sync it to the disk."""
    with os.fdopen(create(path), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def replace_by(path: Path, content: bytes) -> int:
    """Replace the file at `path` by one with this content, made as by `create`, and return its appending descriptor. A
    crash leaves the old file or the new one. Raises OSError, and then leaves no partial file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = create(temporary)
    try:
        write_all(file, content)
        os.fsync(file)
        temporary.replace(path)
    except BaseException:
        os.close(file)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return file


def write_json(path: Path, value: Any) -> None:
    """Replace a file as `replace_by` does. Raises OSError."""
    os.close(replace_by(path, json.dumps(value, indent=2).encode() + b"\n"))
    sync_directory(path.parent)


def try_writing(directory: Path) -> None:
    """Check that files can be written in this directory, by writing one and removing it. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(b" " * _TRIAL_BYTES)
        file.flush()
        os.fsync(file.fileno())


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises OSError, or ValueError if the file holds anything else."""
    value = parse(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_regular(path: Path, most_bytes: int, flags: int = 0) -> bytes:
    """Return the beginning of a file that a program may have made. Raises OSError, also for a pipe or a device, at
    which a reader may wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.read(descriptor, min(found.st_size, most_bytes))
    finally:
        os.close(descriptor)


def set_aside(path: Path, error: Exception) -> None:
    """Rename a file that can't be read: a person can then look at it, and the next start does not read it again."""
    log.warning("%s can't be read (%s); set aside", path, type(error).__name__)
    with contextlib.suppress(OSError):
        path.rename(path.with_suffix(".unreadable"))


class logged:  # noqa: N801 - it reads as a function, like `contextlib.suppress`
    """A context that ends quietly if its block raises OSError. The log then says what could not be done, and why."""

    def __init__(self, sentence: str, level: int = logging.WARNING) -> None:
        self._sentence = sentence
        self._level = level

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, OSError):
            return False
        log.log(self._level, "%s: %s", self._sentence, error.strerror)
        return True


def remove(path: Path) -> None:
    """Remove a file if it exists, so that it stays removed even if the machine crashes right afterwards."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Sync a directory to the disk, so that its list of files survives a crash of the machine. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


PREFIX = "pipedai-run-"


class Scratch:
    """The run's empty directory `work`, one for temporary files, and `files`, which the worker gives to the program."""

    def __init__(self, root: Path | None = None) -> None:
        """Make a new directory, or open `root`, the directory of an earlier attempt. Raises OSError."""
        if root is None:
            self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        else:
            self.root = root
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The directory must belong to this account, because another account might have replaced it.
            found = root.lstat()
            is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if not is_own or found.st_mode & 0o077:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            strip(root)
        self.work, self.temporary, self.files = (
            work(self.root),
            self.root / "tmp",
            self.root / "files",
        )
        for directory in (self.work, self.temporary, self.files):
            directory.mkdir(mode=0o700, exist_ok=root is not None)
        self.mcp_config = self.root / "mcp.json"


def work(root: Path) -> Path:
    return root / "work"


def strip(root: Path) -> None:
    """Remove from a scratch directory what only one attempt needs. It raises nothing."""
    if root.is_symlink():
        return
    with contextlib.suppress(OSError):
        (root / "mcp.json").unlink()
    remove_directory(root / "files")


def remove_directory(path: Path) -> None:
    """Remove as much of a directory as `rmtree` can, which calls itself for each level. It raises nothing."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)


def remove_tree(root: Path) -> None:
    """Remove as much of a scratch directory as is possible. Any other path is refused."""
    if not root.name.startswith(PREFIX) or root.is_symlink():
        return
    # The program may have closed the directory.
    with contextlib.suppress(OSError):
        root.chmod(0o700)
    # The file with the gateway's URL is removed first, in case removing the other files fails.
    strip(root)
    remove_directory(root)
    if root.exists():
        _open_directories(root)
        remove_directory(root)
    if root.exists():
        log.warning("%s could not be removed altogether", root)


# A directory whose path below the root is longer than this is moved up.
_LONGEST_PATH = 400


def _open_directories(root: Path) -> None:
    """Make every directory writable, as programs may leave read-only ones, whose content can't be removed; and move
    those up that are nested too deeply for `rmtree`.
    """
    waiting = [str(root)]
    while waiting:
        directory = waiting.pop()
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(directory)):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        path = entry.path
                        Path(path).chmod(0o700)
                        if len(path) - len(str(root)) > _LONGEST_PATH:
                            path = str(root / secrets.token_hex(8))
                            Path(entry.path).rename(path)
                        waiting.append(path)
