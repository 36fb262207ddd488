"""Keeps the packages that bin/setup installs on a copy of this machine, as Docker keeps a layer of an image.

They are installed again when a lock file, bin/setup or this machine's Python has changed.
"""

import hashlib
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bin.suite import kept_files, used
from pipedai.env import BASE_DIR
from testing.processes.spare_machine import Machine

_DECIDING = ("requirements.txt", "bin/setup", ".python-version")


@contextmanager
def kept_packages(machine: Machine, directory: str) -> Iterator[None]:
    """Gives a directory of the machine the .venv of an earlier run, or keeps the one that the block makes there."""
    venv, kept = machine.path(f"{directory}/.venv"), _folder(machine, directory)
    if kept.exists():
        _copy(used(kept), venv)
        yield
        return
    yield
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as draft:
        _copy(venv, Path(draft, "venv"))
        with suppress(OSError):  # Another run has kept its own meanwhile.
            Path(draft, "venv").rename(kept)


def _folder(machine: Machine, directory: str) -> Path:
    # A virtual environment works at one path only, and with one Python.
    python = machine.run("python3", "-VV")
    told = hashlib.sha256(f"{directory} {platform.machine()} {python}".encode())
    for name in _DECIDING:
        told.update((BASE_DIR / name).read_bytes())
    return kept_files() / "packages" / told.hexdigest()[:16]


def _copy(source: Path, target: Path) -> None:
    # shutil takes twice the CPU time.
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
