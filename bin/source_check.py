"""`python -m bin.source_check` fails if the changelog lacks a line, or a file has risky dates or time zones."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from pipedai.version import VERSION

_ROOT = Path(__file__).resolve().parent.parent
_CHANGELOG, _REFERENCE = "CHANGELOG.md", "API.md"
# These tests may have any dates, because they pass every time to calendars as an argument and read no clock.
_CALENDARS = frozenset(
    f"triggers/schedules/tests/{name}.py"
    for name in ("test_clock_changes", "test_cron", "test_rare_schedules")
)
# A date in a test from this year on is so late that it counts as always in the future.
_FAR = 2099
_YEAR = re.compile(r"\b20\d\d\b")
# The year in a date such as `2026-05-04` or `4 May 2026`.
_DATES = re.compile(r"\b(20\d\d)-[01]\d\b|\b[A-Z][a-z]{2,8} (20\d\d)\b")
# `UTC` is the same in every edition of the time zone database.
_ZONE_IN_SQL = re.compile(r"AT[ ]TIME ZONE (?!'UTC')(\S+)")


def main() -> int:
    """Print what is wrong. Return 1 if anything is, else 0."""
    wrong = [
        *changelog_problems(_ROOT),
        *(
            f"{path.relative_to(_ROOT)}:{line}: {sentence}"
            for path in _files()
            for line, sentence in problems(
                str(path.relative_to(_ROOT)), path.read_text(), datetime.now(UTC).date()
            )
        ),
    ]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return bool(wrong)


def changelog_problems(root: Path) -> Iterator[str]:
    """Yield what is wrong with the changelog. If API.md has changed and CHANGELOG.md has an uncommitted line, only a
    person can tell whether that line is about the change, so this prints the names that changed in API.md.
    """
    if wrong := sections_wrong((root / _CHANGELOG).read_text(), VERSION):
        yield wrong
    changed = names_changed(root)
    if changed and has_new_line(root):
        print(f"See that the new lines of {_CHANGELOG} tell of all that is new in {_REFERENCE}:")
        print(*changed, sep="\n")
    elif changed:
        yield from changed
        yield (
            f"{_REFERENCE} has changed and {_CHANGELOG} has no new line: add one to its [Unreleased] section"
            ' (CONTRIBUTING.md, "Commits").'
        )


def sections_wrong(text: str, version: str) -> str | None:
    """Return what is wrong with a changelog's first sections: [Unreleased], and the newest release; or None."""
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
    """Return the names that API.md gained (`+ …`) and lost (`- …`) since CHANGELOG.md was last committed, if ever."""
    last = git(root, "log", "-1", "--format=%H", "--", _CHANGELOG)
    then = last and git(root, "show", f"{last.strip()}:{_REFERENCE}")
    if not then:
        return []
    before, now = names_in(then), names_in((root / _REFERENCE).read_text())
    return [f"+ {name}" for name in sorted(now - before)] + [
        f"- {name}" for name in sorted(before - now)
    ]


def has_new_line(root: Path) -> bool:
    """Tell whether the [Unreleased] section of CHANGELOG.md has a line that the last commit lacks."""
    committed = _unreleased(git(root, "show", f"HEAD:{_CHANGELOG}"))
    return bool(_unreleased((root / _CHANGELOG).read_text()) - committed)


def _unreleased(text: str) -> set[str]:
    section = re.split(r"^## ", text, flags=re.MULTILINE)[1:2]
    return {line for line in "".join(section).splitlines() if line}


def names_in(reference: str) -> set[str]:
    calls = re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)`", reference)
    return {*calls, *re.findall(r"`\??(\w+)=?`", reference), *re.findall(r'"(\w+)":', reference)}


def git(root: Path, *arguments: str) -> str:
    """Return the output of a Git command; an empty text if Git is not installed or the command fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def problems(path: str, text: str, today: date) -> Iterator[tuple[int, str]]:
    """Yields the line and a sentence about each problem of a file. `path` begins at the root of the repository."""
    for found in _ZONE_IN_SQL.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield (
            line,
            f"compute it in Python and pass it in: PostgreSQL has another edition of {found[1]}.",
        )
    if _is_test(path) and path not in _CALENDARS:
        yield from _of_test(text, range(today.year + 1, _FAR))


def _of_test(text: str, years: range) -> Iterator[tuple[int, str]]:
    if "replace(year=" not in text and not any(int(each) in years for each in _YEAR.findall(text)):
        return  # Most files need not be parsed.
    tree = ast.parse(text)
    prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant | ast.Call):
            continue
        named: list[int] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            named = [int(one or other) for one, other in _DATES.findall(node.value)]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            given = [each.value for each in node.keywords if each.arg == "year"]
            if name == "replace" and given:
                yield node.lineno, "add a timedelta: 29 February is not in every year."
            if name in ("date", "datetime"):
                given += node.args[:1]
                numbers = (each.value for each in given if isinstance(each, ast.Constant))
                named = [each for each in numbers if isinstance(each, int)]
        for year in named:
            if year in years:
                yield node.lineno, f"{year} will be past one day: take 2100, or pass `now` in."


def _is_test(path: str) -> bool:
    parts = Path(path).parts
    return bool({"tests", "testing"} & set(parts)) or parts[-1] == "conftest.py"


def _files() -> Iterator[Path]:
    yield from _ROOT.glob("*.py")
    for directory in sorted(_ROOT.iterdir()):
        if directory.is_dir() and not directory.name.startswith("."):
            yield from sorted(directory.rglob("*.py"))


if __name__ == "__main__":
    sys.exit(main())
