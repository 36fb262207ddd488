"""`python -m bin.changelog_check` fails if API.md has changed and CHANGELOG.md has not, or lacks a section."""

import re
import subprocess
import sys
from pathlib import Path

from pipedai.version import VERSION

_ROOT = Path(__file__).resolve().parent.parent
_CHANGELOG, _REFERENCE = "CHANGELOG.md", "API.md"


def main() -> int:
    """Print what is wrong. Return 1 if anything is, else 0."""
    wrong = sections_wrong((_ROOT / _CHANGELOG).read_text(), VERSION)
    if wrong:
        print(wrong)
    changed = names_changed(_ROOT)
    for name in changed:
        print(name)
    if changed:
        print(
            f"{_REFERENCE} has changed and {_CHANGELOG} has not: add a line to its [Unreleased] section"
            ' (CONTRIBUTING.md, "Commits").'
        )
    return bool(changed or wrong)


def sections_wrong(text: str, version: str) -> str | None:
    """Return a sentence about what is wrong with the sections of a changelog, or None.

    The first section is [Unreleased]. The next one has the newest release and its day: this version, or for one that is
    in development (`.dev0`) a release before it.
    """
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    if not sections or sections[0] != "[Unreleased]":
        return f"The first section of {_CHANGELOG} must be [Unreleased]."
    newest = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}", "".join(sections[1:2]))
    coming, is_coming, _ = version.partition(".dev")
    fits = newest and (_parts(newest[1]) < _parts(coming) if is_coming else newest[1] == version)
    if not fits:
        wanted = f"a release before {coming}" if is_coming else f"`## [{version}] - YYYY-MM-DD`"
        return (
            f"Below [Unreleased], {_CHANGELOG} must have the section of {wanted},"
            f" since pipedai/version.py has {version} (docs/releasing.md)."
        )
    return None


def _parts(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]


def names_changed(root: Path) -> list[str]:
    """Return what API.md gained (`+ …`) and lost (`- …`) since CHANGELOG.md last changed. The list is empty if
    CHANGELOG.md has uncommitted changes, or if there is no Git history.
    """
    last = _git(root, "log", "-1", "--format=%H", "--", _CHANGELOG)
    if not last or _git(root, "status", "--porcelain", "--", _CHANGELOG):
        return []
    then = _git(root, "show", f"{last.strip()}:{_REFERENCE}")
    if not then:
        return []
    before, now = names_in(then), names_in((root / _REFERENCE).read_text())
    return [f"+ {name}" for name in sorted(now - before)] + [
        f"- {name}" for name in sorted(before - now)
    ]


def names_in(reference: str) -> set[str]:
    calls = re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)`", reference)
    return {*calls, *re.findall(r"`\??(\w+)=?`", reference), *re.findall(r'"(\w+)":', reference)}


def _git(root: Path, *arguments: str) -> str:
    """Return the output of a Git command; an empty text if Git is not installed or the command fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
