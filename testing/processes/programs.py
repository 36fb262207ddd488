"""Finds the programs of Debian packages that some tests drive; bin/packages.py installs them."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str) -> Path:
    """Its path. Where there is none the test is skipped, and in CI it fails."""
    # Debian keeps some where not everybody's PATH leads; of PostgreSQL's versions the newest.
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    places = [*map(str, versions), os.environ["PATH"], "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        lacking(f"There is no {name} here: install it, or run bin/test as root on Debian.")
    return Path(found)


def lacking(sentence: str) -> NoReturn:
    """Skip the test, which can't run on this machine; in CI, where all must run, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def _version(directory: Path) -> int:
    return int(directory.parent.name)
