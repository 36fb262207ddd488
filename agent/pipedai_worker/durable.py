"""Small JSON files that survive a crash: written whole or not at all, for their owner alone."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

# More than any of these files has.
_TRIAL_BYTES = 64 * 1024


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter, and likewise the parents that are missing."""
    if not path.is_dir():
        private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Create a new file with mode 0600 from the start; FileExistsError if there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as JSON, mode 0600: after a crash there is the old file or the new one.

    Raises OSError when it can't be written; nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_private(temporary, json.dumps(value, indent=2).encode() + b"\n")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def try_writing(directory: Path) -> None:
    """Raises OSError unless a small file can be written there now: the disk may be full."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(b" " * _TRIAL_BYTES)
        file.flush()
        os.fsync(file.fileno())


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises OSError, or ValueError when it holds anything else."""
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def remove(path: Path) -> None:
    """Remove a file, and have its absence survive a crash. Not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
