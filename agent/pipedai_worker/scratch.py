"""A run's place on disk: an empty working directory, and beside it the MCP configuration."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from pipedai_worker import durable
from pipedai_worker.logs import get_logger

log = get_logger(__name__)

PREFIX = "pipedai-run-"


class Scratch:
    """Under the system's temporary directory: no project around lends its settings to the run."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.work = self.root / "work"
        self.work.mkdir(mode=0o700)
        self.mcp_config = self.root / "mcp.json"

    def write_mcp_config(self, content: bytes) -> None:
        """Write the file that holds the run's secrets. Raises OSError."""
        durable.write_private(self.mcp_config, content)

    def remove(self) -> None:
        """Remove everything the run left here."""
        remove(self.root)


def remove(root: Path) -> None:
    """Remove a scratch directory as far as that goes; refuses anything that isn't one."""
    if not root.name.startswith(PREFIX) or root.is_symlink():
        return
    # The secrets go first.
    with contextlib.suppress(OSError):
        (root / "mcp.json").unlink()
    shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        _open_directories(root)
        shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        log.warning("%s could not be removed altogether", root)


def _open_directories(root: Path) -> None:
    """Some programs make directories read-only, which keeps their content from being removed."""
    for directory, names, _ in os.walk(root):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
