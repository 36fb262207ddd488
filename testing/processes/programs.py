"""Finds the programs that some tests drive. They come from Debian packages, which bin/packages.py installs."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str) -> Path:
    """Returns the program's path. If it is missing, the test is skipped, and in CI it fails."""
    # Debian keeps some programs outside the usual PATH. Of several PostgreSQL versions we take the newest.
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    places = [*map(str, versions), os.environ["PATH"], "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        lacking(f"There is no {name} here: install it, or run bin/test as root on Debian.")
    return Path(found)


def lacking(sentence: str) -> NoReturn:
    """Skips the test, because it can't run on this machine, or fails it in CI, where all tests must run."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def _version(directory: Path) -> int:
    return int(directory.parent.name)
