"""Installs programs from npm by a lock file in this repository, for the tests that run them."""

import shutil
import subprocess
from pathlib import Path

from testing.processes.kept_folder import kept_folder
from testing.processes.programs import lacking, program

_SECONDS = 120
_OLDEST_NODE = 20


def npm_ci(pinned: Path, directory: Path) -> Path:
    """Installs into `directory` what the lock file in `pinned` names, without running scripts.

    Returns the folder node_modules. Without npm, its registry, or Node 20 or newer the test is skipped, and in CI it
    fails.
    """
    npm = program("npm")
    _check_node()
    files = ("package.json", "package-lock.json")
    for name in files:
        shutil.copy(pinned / name, directory)
    modules = directory / "node_modules"
    with kept_folder(modules, *((pinned / name).read_bytes() for name in files)) as is_there:
        if not is_there:
            _install(npm, directory, pinned.name)
    return modules


def _install(npm: Path, directory: Path, name: str) -> None:
    done = subprocess.run(  # noqa: S603
        [str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    if done.returncode:
        lacking(f"npm could not install {name}: {done.stderr.strip().splitlines()[:1]}")


def _check_node() -> None:
    said = subprocess.run(  # noqa: S603
        [str(program("node")), "--version"], capture_output=True, text=True, check=True
    ).stdout
    if int(said.removeprefix("v").partition(".")[0]) < _OLDEST_NODE:
        lacking(f"The test needs Node {_OLDEST_NODE} or newer, and here is {said.strip()}.")
