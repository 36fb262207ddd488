"""Finds the real CLI and the Python of the MCP server, which `bin/setup --claude` installs."""

from __future__ import annotations

from pathlib import Path

from bin import claude
from testing.processes.programs import lacking

_MISSING = "The real claude is not installed here: run bin/setup --claude."


def cli(version: str = claude.PINNED) -> Path:
    """Return the program's path. If it is missing, the test is skipped, and in CI it fails."""
    found = claude.cli(version)
    if found is None:
        lacking(_MISSING)
    return found


def mcp_python() -> Path:
    """Return the path of a Python that has `mcp`. If it is missing, the test is skipped, and in CI it fails."""
    found = claude.mcp_python()
    if found is None:
        lacking(_MISSING)
    return found
