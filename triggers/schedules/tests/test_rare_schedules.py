"""Due times agree with a computation that looks at the clocks at every minute, in any zone, for rare schedules too."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testing.world.cases import cases
from triggers.schedules.cron import BadSchedule, Schedule, Ticks, coming_times, parse
from triggers.schedules.tests.slow_clocks import MINUTE, SlowSchedule, change_days

ZONES = [
    "UTC",
    "Africa/Casablanca",  # until 2087, clocks go back for Ramadan, whose date moves through the year
    "Africa/El_Aaiun",
    "America/New_York",
    "America/Santiago",  # clocks change at midnight
    "America/Nuuk",  # clocks change in the evening
    "Antarctica/Troll",  # clocks change by two hours
    "Asia/Gaza",  # clocks change four times a year
    "Asia/Kathmandu",  # the offset has a quarter of an hour, and clocks never change
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Europe/Berlin",
    "Europe/Dublin",  # winter time is the deviation from standard time
    "Pacific/Apia",  # the zone moved across the date line in 2011
]
RARE = [
    "*/100 */100 29 2 */7",
    "0 0 29 2 *",
    "30 2 29 2 */7",
    "*/20 1-2 24-31 3 */7",  # in Berlin, there are no such times on the last Sunday
    "0 2 25-31 3 */7",
    "*/30 0 2-9 9 */7",  # in Santiago, there are no such times on the first Sunday
    "59 23 31 12 *",
    "*/30 2 31 */2 1",
    "15 */100 30 4,6 */6",
    "0 12 13 * 5",
    "5,35 0-3 28-31 3,10 0",
    "*/10 1 1 11 */7",
    "0 0 1 1 */100",
]
# All changes of these zones are within the hours of the first.
DENSE = [
    "* 0-4,21-23 * * *",
    "*/7 * * * *",
    "10-40/15 */3 * * *",
    "0,30 0-4 * * *",
    "45 23 * * 0,5,6",
]
START = datetime(2026, 10, 20, 7, 3, tzinfo=UTC)


@cache
def changes(zone: str) -> list[datetime]:
    """Returns the days with changes. All zones take a second, which whoever only collects tests need not wait for."""
    return change_days(zone, 2011, 2045)


@cases("zone", ZONES)
def test_a_rare_schedule_comes_due_when_the_clocks_say_so(zone: str) -> None:
    for expression in RARE:
        slow = list(islice(SlowSchedule(expression, zone).ticks_after(START), 2))
        coming = [time.at for time in coming_times(parse(expression, zone), START, 2)]
        assert coming == slow, expression


@cases("zone", ZONES)
def test_a_dense_schedule_goes_through_changes_as_the_clocks_do(zone: str) -> None:
    # The test takes the first changes and the last. For Apia these include that of 2011 by which it moved.
    for day, expression in product({*changes(zone)[:3], *changes(zone)[-1:]}, DENSE):
        schedule = parse(expression, zone)
        ticks, tick = [], day - timedelta(hours=6)
        slow = list(SlowSchedule(expression, zone).ticks_after(tick, days=2))
        for _ in slow:
            tick = schedule.next_after(tick)
            ticks.append(tick)
        assert ticks == slow, f"{expression} around {day:%F}"


def test_apia_skipped_a_day() -> None:
    """Apia had no 30 December 2011. A tick of that day is due when the next day begins."""
    start = datetime(2011, 12, 29, 12, tzinfo=UTC)
    midnight = datetime(2011, 12, 30, 10, tzinfo=UTC)
    named = parse("30 15 30 * *", "Pacific/Apia")
    assert named.next_after(start) == midnight
    (coming,) = coming_times(named, start, 1)
    assert coming.note == "Clocks go forward: there is no 15:30 on 2011-12-30. It fires at 00:00."
    (coming,) = coming_times(parse("*/30 * 30 * *", "Pacific/Apia"), start, 1)
    assert coming.at == datetime(2012, 1, 29, 10, tzinfo=UTC)
    assert coming.note == (
        "Clocks go forward: there is no 00:00, 00:30, 01:00, 01:30, 02:00… on 2011-12-30."
    )


def test_a_note_names_the_last_of_several_changes() -> None:
    """On each Sunday that the schedule names before 24 March 2030, clocks go forward, so it is not due."""
    (coming,) = coming_times(parse("*/30 2 24-31 3 */7", "Europe/Berlin"), START, 1)
    assert coming.at == datetime(2030, 3, 24, 1, tzinfo=UTC)
    assert coming.note == "Clocks go forward: there is no 02:00, 02:30 on 2029-03-25."


@cases(
    ("expression", "zone"),
    [
        ("*/30 2 25-31 3 */7", "Europe/Berlin"),
        ("* 2 8-14 3 */7", "America/New_York"),
        ("*/100 0 2-8 9 */7", "America/Santiago"),
    ],
)
def test_one_whose_times_are_all_left_out_never_comes_due(expression: str, zone: str) -> None:
    with pytest.raises(BadSchedule) as error:
        parse(expression, zone)
    assert str(error.value) == "It never comes due: clocks go forward over each of its times."
    assert parse(expression, "UTC").next_after(START)


# --- Schedules of any kind, at times of which many are near a clock change


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    pairs = st.lists(number, min_size=2, max_size=2, unique=True).map(sorted)
    spans = pairs.map(lambda pair: f"{pair[0]}-{pair[1]}")
    items = st.one_of(number.map(str), spans, st.builds("{}/{}".format, spans, st.integers(1, 9)))
    return st.one_of(
        st.just("*"),
        st.integers(1, high + 9).map("*/{}".format),
        st.lists(items, min_size=1, max_size=3).map(",".join),
    )


def _schedules(*fields: st.SearchStrategy[str]) -> st.SearchStrategy[Schedule]:
    expressions = st.tuples(*fields).map(" ".join)
    return st.builds(Schedule, expressions, st.sampled_from(ZONES))


ANY = _schedules(_field(0, 59), _field(0, 23), _field(1, 29), _field(1, 12), _field(0, 7))
NEAR_CHANGES = _schedules(_field(0, 59), _field(0, 3), st.just("*"), st.just("*"), _field(0, 7))
SELDOM = _schedules(
    _field(0, 59),
    st.sampled_from(["*/100", "0", "2", "*/2", "1-3", "23"]),
    st.sampled_from(["29", "1", "24-31", "25-31", "8-14", "*/28", "2-9"]),
    st.sampled_from(["2", "3", "10", "2,3", "4-9", "11"]),
    st.sampled_from(["*", "*/7", "0", "*/6", "1-5"]),
)
SCHEDULES = st.one_of(ANY, NEAR_CHANGES, SELDOM)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Schedule, datetime]:
    schedule = draw(SCHEDULES)
    near_change: bool = draw(st.booleans())
    if near_change and (days := changes(schedule.timezone)):
        moment = draw(st.sampled_from(days)) + draw(st.integers(-600, 2400)) * MINUTE
    else:
        moment = datetime(2011, 1, 1, tzinfo=UTC) + draw(st.integers(0, 34 * 525_600)) * MINUTE
    return schedule, moment


@given(_cases())
@settings(deadline=None, max_examples=100)
def test_any_schedule_comes_due_when_the_clocks_say_so(case: tuple[Schedule, datetime]) -> None:
    schedule, moment = case
    slow = SlowSchedule(schedule.expression, schedule.timezone)
    try:
        times = [time.at for time in coming_times(schedule, moment, 3)]
    except BadSchedule:
        assert list(slow.ticks_after(moment, days=12 * 366)) == []
    else:
        # For rare schedules only the first due time is compared, because the search for more takes long.
        first = next(slow.ticks_after(moment))
        near = slow.ticks_after(moment, days=(first - moment).days + 40)
        assert times[0] == first
        assert all(ours == theirs for ours, theirs in zip(times, near, strict=False))


def _walked(schedule: Schedule, first: datetime, until: datetime) -> Ticks:
    latest, count, last_earlier = first, 0, None
    while (following := schedule.next_after(latest)) <= until:
        latest, last_earlier, count = following, latest, count + 1
    return Ticks(latest, count, last_earlier, following)


@given(_cases(), st.integers(0, 10 * 24 * 60))
@settings(deadline=None, max_examples=100)
def test_missed_ticks_are_counted_as_if_each_were_visited(
    case: tuple[Schedule, datetime], minutes: int
) -> None:
    schedule, moment = case
    try:
        first = schedule.next_after(moment)
    except BadSchedule:
        return
    until = first + minutes * MINUTE
    assert schedule.ticks(first, until) == _walked(schedule, first, until)


@cases("zone", ZONES)
def test_ticks_missed_in_years_are_counted_through_all_changes(zone: str) -> None:
    for expression in (
        "30 2 * * *", "0 0 * * 1-5", "*/30 0-3 * * 0", "0,59 0-3 */5 * *", "0 0 29 2 *"
    ):  # fmt: skip
        schedule = Schedule(expression, zone)
        first = schedule.next_after(datetime(2011, 6, 1, tzinfo=UTC))
        # The next 29 February is four years later.
        until = first + timedelta(days=(6 if " 29 2 " in expression else 3) * 365)
        assert schedule.ticks(first, until) == _walked(schedule, first, until), expression
