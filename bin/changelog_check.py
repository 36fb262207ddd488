"""Refuses a change of the API's contract that CHANGELOG.md does not mention.

python -m bin.changelog_check
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_CHANGELOG, _SCHEMA = "CHANGELOG.md", "docs/openapi.json"


def main() -> int:
    """The exit code: 1 if operations, parameters or fields came or went since CHANGELOG.md was changed last."""
    changed = names_changed(_ROOT)
    for name in changed:
        print(name)
    if changed:
        print(
            f"{_SCHEMA} has changed and {_CHANGELOG} has not: add a line to its [Unreleased] section"
            ' (CONTRIBUTING.md, "Commits").'
        )
    return bool(changed)


def names_changed(root: Path) -> list[str]:
    """The names that came (`+ …`) and went (`- …`) since the last commit that changed CHANGELOG.md.

    None if it is being changed right now, or if there is no Git history to compare with.
    """
    last = _git(root, "log", "-1", "--format=%H", "--", _CHANGELOG)
    if not last or _git(root, "status", "--porcelain", "--", _CHANGELOG):
        return []
    then = _git(root, "show", f"{last.strip()}:{_SCHEMA}")
    if not then:
        return []
    before, now = names_in(json.loads(then)), names_in(json.loads((root / _SCHEMA).read_text()))
    return [f"+ {name}" for name in sorted(now - before)] + [
        f"- {name}" for name in sorted(before - now)
    ]


def names_in(schema: dict[str, Any]) -> set[str]:
    """The operations of a schema, their parameters, and the fields of its components. Prose does not matter."""
    names = set()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if not isinstance(operation, dict):
                continue
            call = f"{method.upper()} {path}"
            names |= {call}
            names |= {
                f"{call} ?{each['name']}"
                for each in operation.get("parameters", [])
                if "name" in each
            }
    for component, described in schema["components"]["schemas"].items():
        names |= {f"{component}.{field}" for field in described.get("properties", {})}
    return names


def _git(root: Path, *arguments: str) -> str:
    """What Git prints; nothing if it is not there or fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
