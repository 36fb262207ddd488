"""Finds the real CLI and the Python of the MCP server, which `bin/setup --claude` installs."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from bin import claude

# With this variable at 0, the JavaScript engine of the CLI collects no garbage, which takes a quarter of a short run's
# CPU time. Workers hand it on.
NO_COLLECTION = "BUN_JSC_useGC"


def cli(version: str = claude.PINNED) -> Path:
    """Return the program's path. If it is missing, the test is skipped, and in CI it fails."""
    found = claude.cli(version)
    return found or _lacking()


def mcp_python() -> Path:
    """Return the path of a Python that has `mcp`. If it is missing, the test is skipped, and in CI it fails."""
    found = claude.mcp_python()
    return found or _lacking()


def _lacking() -> NoReturn:
    # The module needs pytest, without which `serve.py` runs.
    from testing.processes.programs import lacking

    lacking("The real claude is not installed here: run bin/setup --claude.")
