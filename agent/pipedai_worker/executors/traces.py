"""Removes what claude leaves of a run outside the run's directory: logs, lists of sub-agents, and the like."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# Claude names directories after the path of the working directory, with a dash in place of each character that is no
# letter or digit.
_NOT_A_LETTER = re.compile(r"[^a-zA-Z0-9]")


def remove(work: Path, session_id: str, pid: int | None, environment: Mapping[str, str]) -> None:
    """Remove everything that belongs to the run which worked in the directory `work`. It raises nothing.

    The files are found by the name of that directory and by `session_id`. Both are random, so no other run's files
    match.
    """
    for path in _traces(work, session_id, pid, environment):
        # `is_dir` raises PermissionError below a home directory that this account may not enter.
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _traces(
    work: Path, session_id: str, pid: int | None, environment: Mapping[str, str]
) -> Iterator[Path]:
    home = Path(environment["HOME"]) if environment.get("HOME") else None
    named = {_NOT_A_LETTER.sub("-", str(path)) for path in (work, work.resolve())}
    config = (
        Path(environment["CLAUDE_CONFIG_DIR"]) if environment.get("CLAUDE_CONFIG_DIR") else None
    )
    if config is None and home is not None:
        config = home / ".claude"
    if config is not None:
        yield from (config / "projects" / name for name in named)
        for kind in ("session-env", "todos", "tasks", "file-history"):
            yield config / kind / session_id
        with contextlib.suppress(OSError):
            if pid is not None and session_id in (config / "sessions" / f"{pid}.json").read_text():
                yield from list((config / "sessions").glob(f"{pid}.*"))
    cache = Path(environment["XDG_CACHE_HOME"]) if environment.get("XDG_CACHE_HOME") else None
    if home is not None:
        cache = home / "Library/Caches" if sys.platform == "darwin" else cache or home / ".cache"
    if cache is not None:
        yield from (cache / "claude-cli-nodejs" / name for name in named)
