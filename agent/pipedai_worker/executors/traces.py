"""Finds and removes what claude leaves of a run outside the run's directory: its session, logs, and the like."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# Claude names directories after the working directory's path, with dashes for all but letters and digits.
_NOT_A_LETTER = re.compile(r"[^a-zA-Z0-9]")


def remove(paths: Iterable[Path]) -> None:
    """Remove these files and directories, as far as they exist and can be removed. It raises nothing."""
    for path in paths:
        # `is_dir` raises PermissionError below a home directory that this account may not enter.
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def of_session(work: Path, session_id: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Return the paths that claude needs to resume a session; not all of them exist. The names contain `work` and
    `session_id`, which are random, so that no other run's files match.
    """
    config = config_directory(environment)
    if config is not None:
        yield from (config / "projects" / name for name in _names(work))
        for kind in ("session-env", "todos", "tasks", "file-history"):
            yield config / kind / session_id


def conversation(work: Path, session_id: str, environment: Mapping[str, str]) -> bool:
    """Tell whether there is the file with the session's conversation, without which claude can't resume it."""
    config = config_directory(environment)
    if config is None:
        return False
    names = (config / "projects" / name / f"{session_id}.jsonl" for name in _names(work))
    with contextlib.suppress(OSError):
        return any(path.is_file() for path in names)
    return False


def of_process(
    work: Path, session_id: str, pid: int | None, environment: Mapping[str, str]
) -> Iterator[Path]:
    """Return the paths of what a process of claude leaves, found as in `of_session`, that no later one needs."""
    home = _directory(environment, "HOME")
    config = config_directory(environment)
    if config is not None:
        with contextlib.suppress(OSError):
            if pid is not None and session_id in (config / "sessions" / f"{pid}.json").read_text():
                yield from list((config / "sessions").glob(f"{pid}.*"))
    cache = _directory(environment, "XDG_CACHE_HOME")
    if home is not None:
        cache = home / "Library/Caches" if sys.platform == "darwin" else cache or home / ".cache"
    if cache is not None:
        yield from (cache / "claude-cli-nodejs" / name for name in _names(work))


def config_directory(environment: Mapping[str, str]) -> Path | None:
    """Return the directory of claude's settings and sessions; None if the account has no home."""
    home = _directory(environment, "HOME")
    return _directory(environment, "CLAUDE_CONFIG_DIR") or (home and home / ".claude")


def state_file(environment: Mapping[str, str]) -> Path | None:
    """Return the file in which claude keeps its own state, such as the account that it is logged in with."""
    directory = _directory(environment, "CLAUDE_CONFIG_DIR") or _directory(environment, "HOME")
    return directory and directory / ".claude.json"


def _names(work: Path) -> set[str]:
    return {_NOT_A_LETTER.sub("-", str(path)) for path in (work, work.resolve())}


def _directory(environment: Mapping[str, str], variable: str) -> Path | None:
    return Path(environment[variable]) if environment.get(variable) else None
