"""Keeps the lines of a prompt that are still to be carried out, where claude keeps a session."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path


class StoredSession:
    """The file of one session, below claude's own directory, named after the working directory and the session.

    With `stored` false nothing is written, as claude does with `--no-session-persistence`.
    """

    def __init__(self, session_id: str, *, stored: bool) -> None:
        directory = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude")  # noqa: PTH111
        work = re.sub(r"[^a-zA-Z0-9]", "-", os.getcwd())  # noqa: PTH109
        self._path = Path(directory, "projects", work, f"{session_id}.jsonl")
        self._stored = stored

    def exists(self) -> bool:
        """Tell whether the session can be resumed."""
        return self._path.is_file()

    def lines(self) -> list[str] | None:
        """Return the lines that are still to be carried out; None if the session is a new one."""
        with contextlib.suppress(FileNotFoundError):
            stored: list[str] = json.loads(self._path.read_text().splitlines()[-1])
            return stored
        return None

    def store(self, lines: list[str]) -> None:
        """Write down the lines that are still to be carried out."""
        if self._stored:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(lines) + "\n")
