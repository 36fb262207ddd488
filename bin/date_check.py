"""`python -m bin.date_check` fails if a test breaks when a year comes, or if SQL asks PostgreSQL about a time zone."""

import ast
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
# These tests ask calendars alone. They pass every moment in, and read no clock.
_CALENDARS = frozenset(
    f"triggers/schedules/tests/{name}.py"
    for name in ("test_clock_changes", "test_cron", "test_rare_schedules")
)
# From this year on a date in a test is for ever in the future.
_FAR = 2099
_YEAR = re.compile(r"\b20\d\d\b")
# What a text says of a year, as in `2026-05-04` and in `4 May 2026`.
_DATES = re.compile(r"\b(20\d\d)-[01]\d\b|\b[A-Z][a-z]{2,8} (20\d\d)\b")
# `UTC` is the same in every edition of the time zone database.
_ZONE_IN_SQL = re.compile(r"AT[ ]TIME ZONE (?!'UTC')(\S+)")


def main() -> int:
    """Print what is wrong. Return 1 if anything is, else 0."""
    wrong = [
        f"{path.relative_to(_ROOT)}:{line}: {sentence}"
        for path in _files()
        for line, sentence in problems(
            str(path.relative_to(_ROOT)), path.read_text(), datetime.now(UTC).date()
        )
    ]
    for each in wrong:
        print(each)
    return bool(wrong)


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
