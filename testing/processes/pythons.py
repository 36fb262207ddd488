"""Finds the Pythons on this machine with which the worker must work."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

_OLDEST = (3, 9)


@functools.cache
def pythons() -> list[tuple[tuple[int, int], str]]:
    """Returns (version, program) of each Python here that the worker supports and that can make an environment.

    The oldest comes first. Of several with one version it takes one.
    """
    on_path = (shutil.which(f"python3.{minor}") for minor in range(_OLDEST[1], 30))
    of_pyenv = (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python")
    found: dict[tuple[int, int], str] = {}
    for program in [sys.executable, *filter(None, on_path), *map(str, of_pyenv)]:
        told = subprocess.run(  # noqa: S603
            [program, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode == 0:
            major, minor = map(int, told.stdout.split())
            found.setdefault((major, minor), program)
    return sorted((version, program) for version, program in found.items() if version >= _OLDEST)
