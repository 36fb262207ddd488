"""Writes small JSON files so that a crash leaves a whole file or none, readable by the owner only."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

# The trial file has this size, because none of the real files is larger.
_TRIAL_BYTES = 64 * 1024


def private_directory(path: Path) -> Path:
    """Make a directory, and the parents that are missing, which only the owner can enter."""
    if not path.is_dir():
        private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Create a file whose mode is 0600 from the start. Raises FileExistsError if it is there already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, mode 0600. After a crash either the old file or the new one is there.

    Raises OSError when it can't be written, and leaves no partial file then.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_private(temporary, json.dumps(value, indent=2).encode() + b"\n")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def try_writing(directory: Path) -> None:
    """Try to write a small file there. Raises OSError if that fails, as on a full disk."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(b" " * _TRIAL_BYTES)
        file.flush()
        os.fsync(file.fileno())


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises OSError, or ValueError when it holds anything else."""
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def remove(path: Path) -> None:
    """Remove a file, if it is there, so that it does not come back after a crash of the machine."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the disk keep what files there are in a directory. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
