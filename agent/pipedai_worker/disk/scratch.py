"""Makes and removes a run's directory. It holds an empty working directory, and beside that the run's other files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

from pipedai_worker.disk import durable
from pipedai_worker.logs import get_logger

log = get_logger(__name__)

PREFIX = "pipedai-run-"


class Scratch:
    """The run's empty directory `work`, one for temporary files, and `files`, which the worker gives to the program."""

    def __init__(self, root: Path | None = None) -> None:
        """Make the directory, or open `root`, that of an earlier attempt, again. Raises OSError."""
        if root is None:
            self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        else:
            self.root = root
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_own(root)
            self.strip()
        self.work, self.temporary, self.files = (
            work(self.root),
            self.root / "tmp",
            self.root / "files",
        )
        for directory in (self.work, self.temporary, self.files):
            directory.mkdir(mode=0o700, exist_ok=root is not None)
        self.mcp_config = self.root / "mcp.json"

    def write_mcp_config(self, content: bytes) -> None:
        durable.write_private(self.mcp_config, content)

    def strip(self) -> None:
        strip(self.root)

    def remove(self) -> None:
        remove(self.root)


def work(root: Path) -> Path:
    return root / "work"


def strip(root: Path) -> None:
    """Remove from a scratch directory what only one attempt needs. It raises nothing."""
    with contextlib.suppress(OSError):
        (root / "mcp.json").unlink()
    shutil.rmtree(root / "files", ignore_errors=True)


def _check_own(root: Path) -> None:
    """Raise OSError unless only this account can enter the directory: others might have made it anew."""
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def remove(root: Path) -> None:
    """Remove as much of a scratch directory as is possible. Any other path is refused."""
    if not root.name.startswith(PREFIX) or root.is_symlink():
        return
    # The file with the secrets is removed first, in case removing the other files fails.
    with contextlib.suppress(OSError):
        (root / "mcp.json").unlink()
    shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        _open_directories(root)
        shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        log.warning("%s could not be removed altogether", root)


def _open_directories(root: Path) -> None:
    """Make every directory writable: programs may leave read-only ones, whose content can't be removed."""
    for directory, names, _ in os.walk(root):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
