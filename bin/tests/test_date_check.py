"""bin/source_check.py: no test breaks when a year comes, and no SQL asks PostgreSQL about a time zone."""

from datetime import date

from bin import source_check
from bin.source_check import problems
from testing.world.cases import cases

TODAY = date(2026, 12, 1)
COMING = TODAY.year + 1


def lines(text, path="triggers/tests/test_it.py", today=TODAY):
    return [line for line, _ in problems(path, text, today)]


@cases(
    "text",
    [
        f"NOON = datetime({COMING}, 5, 4)",
        f"NOON = datetime.datetime(year={COMING}, month=5, day=4)",
        f"NOON = date({COMING}, 5, 4)",
        f"NOON = '{COMING}-05-04T12:00:00Z'",
        f"NOON = f'{COMING}-05-04T{{hour}}'",
        f"NOON = 'Mon 4 Jan {COMING}'",
        "NOON = datetime(2098, 5, 4)",
        "NOON = now.replace(year=now.year + 1)",
    ],
)
def test_a_year_that_will_be_past_is_refused_in_tests_alone(text):
    assert lines(f"import x\n{text}\n") == [2]
    assert lines(text, "testing/world/it.py") == lines(text, "conftest.py") == [1]
    assert lines(text, "triggers/it.py") == []
    assert lines(text, "triggers/schedules/tests/test_cron.py") == []


@cases(
    "text",
    [
        "NOON = datetime(2026, 5, 4)",
        "NOON = datetime(2100, 5, 4)",
        "EXPIRES = '2099-01-01'",
        "BYTES = 2048",
        "at(2048, '2048 bytes')",
        f'"""On {COMING}-05-04 the clocks change."""',
    ],
)
def test_any_other_number_is_not(text):
    assert lines(text) == []


def test_a_year_that_has_come_is_not_refused_so_that_the_check_itself_is_no_bomb():
    text = f"NOON = datetime({COMING}, 5, 4)"
    assert lines(text, today=TODAY.replace(day=31)) == [1]
    assert lines(text, today=date(2100, 1, 1)) == []


def test_sql_converts_by_no_zone_but_utc():
    at = "AT " + "TIME ZONE"
    assert lines(f"a = 1\nb = 'SELECT now() {at} %(zone)s'", "triggers/it.py") == [2]
    assert lines(f"b = \"SELECT now() {at} 'UTC'\"", "triggers/it.py") == []


def test_this_repository_has_neither(capsys):
    assert source_check.main() == 0, capsys.readouterr().out
