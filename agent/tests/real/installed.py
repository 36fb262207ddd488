"""Finds the real CLI, which `bin/setup --claude` installs."""

from __future__ import annotations

from pathlib import Path

from bin import claude
from testing.processes.programs import lacking

# With this variable at 0, the JavaScript engine of the CLI collects no garbage, which takes a quarter of a short run's
# CPU time. Workers hand it on.
NO_COLLECTION = "BUN_JSC_useGC"


def cli(version: str = claude.PINNED) -> Path:
    """Return the program's path. If it is missing, the test is skipped, and in CI it fails."""
    return claude.cli(version) or lacking(
        "The real claude is not installed here: run bin/setup --claude."
    )
