"""Keeps what the services of bin/run print in files, and says which lines a person should see at once."""

import json
import re
from pathlib import Path

# The levels of log lines that nobody needs to see while all goes well.
_QUIET = frozenset({"debug", "info"})
# A log line begins with a time and its level: `2026-11-24T15:30:00.123456Z [info     ] …` in the service's text form,
# and `15:30:00 info    …` in the worker's.
_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[([a-z]+) *\]|\d\d:\d\d:\d\d ([a-z]+) ")


def level_of(line: str) -> str | None:
    """Return the level of a log line, or None if it has none, as a line of a traceback or a print."""
    if line.startswith("{"):
        try:
            level = json.loads(line).get("level")
        except ValueError:
            return None
        return str(level).lower() if level else None
    found = _TEXT.match(line)
    return found and (found[1] or found[2])


def is_alarming(line: str) -> bool:
    return level_of(line) not in {None, *_QUIET}


class ServiceLogs:
    """A log file for each service, which only this user may read. The previous one ends in `.log.1`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(mode=0o700, exist_ok=True)
        # Whether the last line of each service was worth showing. An indented line belongs to the line before it.
        self._shown: dict[str, bool] = {}

    def path_of(self, service: str) -> Path:
        return self.place / f"{service}.log"

    def begin(self, service: str) -> None:
        path = self.path_of(service)
        if path.exists():
            path.replace(path.with_name(f"{path.name}.1"))
        path.touch(mode=0o600)

    def keep(self, service: str, line: str) -> bool:
        """Append a line to the service's file. Return whether a person should see it at once."""
        with self.path_of(service).open("a") as file:
            file.write(f"{line}\n")
        level = level_of(line)
        if level is not None:
            self._shown[service] = level not in _QUIET
        elif not line[:1].isspace():
            self._shown[service] = bool(line)
        return self._shown.get(service, True)
