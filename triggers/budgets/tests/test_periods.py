"""Where the days and months of budgets begin and end in time zones whose clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from testing.world.cases import cases
from testing.world.instants import INSTANTS, ZONES
from triggers.budgets.periods import period_around


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@cases(
    ("moment", "period", "zone", "begin", "end"),
    [
        ("2026-05-04T12:00", "day", "UTC", "2026-05-04T00:00", "2026-05-05T00:00"),
        ("2025-12-31T23:59", "month", "UTC", "2025-12-01T00:00", "2026-01-01T00:00"),
        ("2026-05-31T22:00", "month", "Europe/Berlin", "2026-05-31T22:00", "2026-06-30T22:00"),
        # The day on which clocks go forward has 23 hours, and the one on which they go back has 25.
        ("2026-03-29T12:00", "day", "Europe/Berlin", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("2026-10-25T12:00", "day", "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T23:00"),
        # The clocks skip midnight, so the day begins at 01:00.
        ("2026-03-29T12:00", "day", "Asia/Beirut", "2026-03-28T22:00", "2026-03-29T21:00"),
        # The clocks show midnight twice, and the day begins with the first one.
        ("2025-11-02T04:30", "day", "America/Havana", "2025-11-02T04:00", "2025-11-03T05:00"),
        ("2025-11-02T05:30", "day", "America/Havana", "2025-11-02T04:00", "2025-11-03T05:00"),
        # At a minute past midnight the clocks went back to the day before, which had ended all the same.
        ("2010-11-07T02:31", "day", "America/St_Johns", "2010-11-07T02:30", "2010-11-08T03:30"),
        ("2010-11-07T03:00", "day", "America/St_Johns", "2010-11-07T02:30", "2010-11-08T03:30"),
        ("2026-05-04T12:00", "day", "No/Such_Zone", "2026-05-04T00:00", "2026-05-05T00:00"),
    ],
)
def test_a_window_begins_with_the_first_midnight(moment, period, zone, begin, end):
    assert period_around(at(moment), period, zone) == (at(begin), at(end))


@given(
    moment=st.integers(0, 30 * 366 * 86_400).map(
        lambda seconds: at("2005-01-01T00:00") + timedelta(seconds=seconds)
    ),
    period=st.sampled_from(["day", "month"]),
    zone=st.sampled_from([*ZONES, "Pacific/Apia", "Africa/Casablanca"]),
)
def test_windows_follow_each_other_without_gap_or_overlap(moment, period, zone):
    check_window(moment, period, zone)


def test_windows_are_right_at_each_instant_of_the_calendar():
    for moment in INSTANTS.values():
        for zone in ZONES:
            check_window(moment, "day", zone)
            check_window(moment, "month", zone)


def check_window(moment: datetime, period: str, zone: str) -> None:
    """A window has the moment in it, begins with the day or month of a clock there, and touches its neighbours."""
    begin, end = period_around(moment, period, zone)
    assert begin <= moment < end
    assert period_around(begin, period, zone) == (begin, end)
    assert period_around(end - timedelta(microseconds=1), period, zone) == (begin, end)
    assert period_around(end, period, zone)[0] == end
    assert end.astimezone(ZoneInfo(zone)).time().hour in (0, 1)
