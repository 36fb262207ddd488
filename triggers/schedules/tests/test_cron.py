"""Schedules have the right grammar, the right zones, and the right ticks across clock changes."""

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai.clocks import BadTimezone, check_timezone
from testing.world.cases import cases
from triggers.schedules.cron import BadSchedule, Schedule, parse


def at(text):
    """Returns a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(expression, timezone, after, count):
    """Returns the next ticks, as the clocks in the zone show them."""
    schedule, moment, found = parse(expression, timezone), at(after), []
    for _ in range(count):
        moment = schedule.next_after(moment)
        found.append(f"{moment.astimezone(schedule.zone):%m-%d %H:%M%z}")
    return found


class TestTheGrammar:
    @cases(
        ("expression", "following"),
        [
            ("* * * * *", "2026-01-01T00:01"),
            ("*/15 * * * *", "2026-01-01T00:15"),
            ("30 2 * * *", "2026-01-01T02:30"),
            ("0 0 * * *", "2026-01-02T00:00"),
            ("5,10-12,50-59/5 * * * *", "2026-01-01T00:05"),
            ("0 9-17/4 * * *", "2026-01-01T09:00"),
            ("0 0 1 jan *", "2027-01-01T00:00"),
            ("0 0 1 FEB,mar *", "2026-02-01T00:00"),
            ("0 0 * * 0", "2026-01-04T00:00"),
            ("0 0 * * 7", "2026-01-04T00:00"),
            ("0 0 * * sun", "2026-01-04T00:00"),
            ("0 0 * * Mon-FRI", "2026-01-02T00:00"),
            ("0 0 * * 5-7", "2026-01-02T00:00"),
            ("0 0 29 2 *", "2028-02-29T00:00"),
            ("0 0 31 * *", "2026-01-31T00:00"),
            ("59 23 31 12 *", "2026-12-31T23:59"),
            ("  0   9 *\t* * ", "2026-01-01T09:00"),
        ],
    )
    def test_these_are_schedules(self, expression, following):
        assert parse(expression, "UTC").next_after(at("2026-01-01T00:00")) == at(following)

    def test_day_of_month_or_day_of_week_is_enough(self):
        """If both fields are restricted, a day has to match only one of them, as in crontab(5)."""
        assert ticks("0 0 13 * fri", "UTC", "2026-02-01", 5) == [
            "02-06 00:00+0000",
            "02-13 00:00+0000",
            "02-20 00:00+0000",
            "02-27 00:00+0000",
            "03-06 00:00+0000",
        ]

    def test_what_is_kept_has_single_blanks(self):
        assert parse(" 0  9 * *\t* ", "UTC") == Schedule("0 9 * * *", "UTC")

    FIELDS = "Needs the 5 fields minute, hour, day of month, month, day of week; it has {}."

    @cases(
        ("expression", "count"),
        [
            ("", 0),
            ("*", 1),
            ("* * * *", 4),
            ("0 * * * * *", 6),
            ("@daily", 1),
            ("0 9 * * * root cmd", 7),
        ],
    )
    def test_there_are_five_fields(self, expression, count):
        with pytest.raises(BadSchedule) as error:
            parse(expression, "UTC")
        assert str(error.value) == self.FIELDS.format(count)

    @cases(
        ("field", "value"),
        [
            ("day of month", "L"),
            ("day of month", "l"),
            ("day of month", "LW"),
            ("day of month", "15W"),
            ("day of month", "1,L"),
            ("day of month", "?"),
            ("day of week", "5L"),
            ("day of week", "5#2"),
            ("day of week", "mon#1"),
            ("day of week", "?"),
            ("minute", "@"),
        ],
    )
    def test_there_is_nothing_beyond_crontab(self, field, value):
        with pytest.raises(BadSchedule) as error:
            parse(in_field(field, value), "UTC")
        assert str(error.value) == (
            f"The {field} field {value!r} is not crontab(5): no L, W, #, ? or @."
        )

    @cases(("field", "value"),
        [
            ("minute", "60"), ("minute", "-1"), ("minute", "a"), ("minute", "1.5"), ("minute", "*/0"),
            ("minute", "*/"), ("minute", "5-1"), ("minute", "1-"), ("minute", "1,,2"), ("minute", ","),
            ("minute", "**"), ("minute", "*5"), ("minute", "*-5"), ("minute", "*/5/2"), ("minute", "٣"),
            ("minute", "1e1"), ("minute", "0x5"), ("minute", "jan"), ("hour", "24"), ("hour", "12am"),
            ("day of month", "0"), ("day of month", "32"), ("month", "0"), ("month", "13"),
            ("month", "foo"), ("month", "january"), ("day of week", "8"), ("day of week", "sat-sun"),
            ("day of week", "monday"),
        ],
    )  # fmt: skip
    def test_a_wrong_field_is_named(self, field, value):
        with pytest.raises(BadSchedule) as error:
            parse(in_field(field, value), "UTC")
        assert str(error.value).startswith(f"The {field} field {value!r} is not valid. It takes ")

    @cases("expression", ["0 0 30 2 *", "0 0 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30-31 feb */2"])
    def test_one_that_never_comes_due_is_none(self, expression):
        with pytest.raises(BadSchedule) as error:
            parse(expression, "Europe/Berlin")
        assert str(error.value) == "It never comes due: none of its months has such a day."

    def test_a_day_that_never_comes_does_not_matter_where_a_weekday_is_enough(self):
        assert ticks("0 0 31 2 mon", "UTC", "2026-01-01", 1) == ["02-02 00:00+0000"]


def in_field(name, value):
    fields = ["minute", "hour", "day of month", "month", "day of week"]
    return " ".join(value if field == name else "*" for field in fields)


class TestZones:
    @cases("name",
        [
            "UTC", "Europe/Berlin", "America/Argentina/ComodRivadavia", "Asia/Kolkata", "Etc/GMT+5",
            "Australia/Lord_Howe", "America/Port-au-Prince",
        ],
    )  # fmt: skip
    def test_these_are(self, name):
        check_timezone(name)

    @cases("name",
        [
            "", "utc", "europe/berlin", "Europe", "America", "America/Argentina", "localtime", "posixrules",
            "Factory", "posix/UTC", "right/UTC", "../UTC", "/etc/localtime", "Europe/Berlin ", "+02:00",
            "CEST", "Mars/Olympus", "\x00", "zone.tab", "tzdata.zi", "Europe//Berlin", "Europe/../UTC",
        ],
    )  # fmt: skip
    def test_these_are_not(self, name):
        for check in (check_timezone, lambda name: parse("* * * * *", name)):
            with pytest.raises(BadTimezone) as error:
                check(name)
            assert str(error.value) == (
                "Not a time zone of the IANA database, such as Europe/Berlin."
            )

    def test_the_pinned_edition_decides_and_not_that_of_the_machine(self):
        """Alberta has kept its summer time all year since 2026, which editions before 2026f did not know."""
        assert zoneinfo.TZPATH == ()
        assert ticks("0 9 * * *", "America/Edmonton", "2026-11-30T00:00", 1) == ["11-30 09:00-0600"]

    def test_the_hour_is_that_of_the_zone(self):
        assert parse("0 9 * * *", "Asia/Kolkata").next_after(at("2026-01-01T00:00")) == at(
            "2026-01-01T03:30"
        )

    def test_the_day_is_that_of_the_zone(self):
        """Monday begins in Auckland while it is Sunday in UTC."""
        assert parse("0 0 * * mon", "Pacific/Auckland").next_after(at("2026-01-04T00:00")) == at(
            "2026-01-04T11:00"
        )


class TestClocksGoForward:
    """Clocks go from 2:00 to 3:00, in Berlin on 2027-03-28 and in New York on 2027-03-14.

    On Lord Howe they go from 2:00 to 2:30 on 2027-10-03.
    """

    @cases(
        ("expression", "timezone", "after", "expected"),
        [
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2027-03-27T02:00",
                ["03-28 03:00+0200", "03-29 02:30+0200"],
            ),
            (
                "0 2 * * *",
                "Europe/Berlin",
                "2027-03-27T02:00",
                ["03-28 03:00+0200", "03-29 02:00+0200"],
            ),
            (
                "30 2 * * *",
                "America/New_York",
                "2027-03-13T08:00",
                ["03-14 03:00-0400", "03-15 02:30-0400"],
            ),
            (
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2027-10-02T00:00",
                ["10-03 02:30+1100", "10-04 02:15+1100"],
            ),
            (
                "45 2 * * *",
                "Australia/Lord_Howe",
                "2027-10-02T00:00",
                ["10-03 02:45+1100", "10-04 02:45+1100"],
            ),
        ],
    )
    def test_a_time_in_the_gap_fires_once_at_its_end(self, expression, timezone, after, expected):
        assert ticks(expression, timezone, after, 2) == expected

    def test_several_times_in_the_gap_fire_once_together(self):
        assert ticks("0,15,30 2 * * *", "Europe/Berlin", "2027-03-27T12:00", 2) == [
            "03-28 03:00+0200",
            "03-29 02:00+0200",
        ]

    def test_the_gaps_end_itself_does_not_fire_twice(self):
        assert ticks("0 2,3 * * *", "Europe/Berlin", "2027-03-27T12:00", 2) == [
            "03-28 03:00+0200",
            "03-29 02:00+0200",
        ]

    def test_every_quarter_goes_on_through_it(self):
        assert ticks("*/15 * * * *", "Europe/Berlin", "2027-03-28T00:29", 4) == [
            "03-28 01:30+0100",
            "03-28 01:45+0100",
            "03-28 03:00+0200",
            "03-28 03:15+0200",
        ]

    def test_every_quarter_goes_on_through_half_an_hour(self):
        assert ticks("*/15 * * * *", "Australia/Lord_Howe", "2027-10-02T15:14", 3) == [
            "10-03 01:45+1030",
            "10-03 02:30+1100",
            "10-03 02:45+1100",
        ]

    def test_every_hour_goes_on_through_it(self):
        assert ticks("5 * * * *", "America/New_York", "2027-03-14T06:00", 3) == [
            "03-14 01:05-0500",
            "03-14 03:05-0400",
            "03-14 04:05-0400",
        ]


class TestClocksGoBack:
    """Clocks go back by an hour, in Berlin on 2027-10-31 and in New York on 2027-11-07.

    On Lord Howe they go back by half an hour on 2027-04-04.
    """

    @cases(
        ("expression", "timezone", "after", "expected"),
        [
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2027-10-30T12:00",
                ["10-31 02:30+0200", "11-01 02:30+0100"],
            ),
            (
                "30 1 * * *",
                "America/New_York",
                "2027-11-06T12:00",
                ["11-07 01:30-0400", "11-08 01:30-0500"],
            ),
            (
                "45 1 * * *",
                "Australia/Lord_Howe",
                "2027-04-03T12:00",
                ["04-04 01:45+1100", "04-05 01:45+1030"],
            ),
        ],
    )
    def test_a_time_that_comes_twice_fires_at_the_first(
        self, expression, timezone, after, expected
    ):
        assert ticks(expression, timezone, after, 2) == expected

    @cases(
        "after", ["2027-10-31T00:30", "2027-10-31T00:45", "2027-10-31T01:15", "2027-10-31T01:30"]
    )
    def test_asked_between_the_two_it_is_over_for_that_day(self, after):
        assert ticks("30 2 * * *", "Europe/Berlin", after, 1) == ["11-01 02:30+0100"]

    def test_every_quarter_goes_on_through_both(self):
        assert ticks("*/15 * * * *", "Europe/Berlin", "2027-10-31T00:29", 6) == [
            "10-31 02:30+0200",
            "10-31 02:45+0200",
            "10-31 02:00+0100",
            "10-31 02:15+0100",
            "10-31 02:30+0100",
            "10-31 02:45+0100",
        ]

    def test_every_quarter_goes_on_through_both_half_hours(self):
        assert ticks("*/15 * * * *", "Australia/Lord_Howe", "2027-04-03T14:29", 5) == [
            "04-04 01:30+1100",
            "04-04 01:45+1100",
            "04-04 01:30+1030",
            "04-04 01:45+1030",
            "04-04 02:00+1030",
        ]

    def test_every_hour_goes_on_through_both(self):
        assert ticks("5 * * * *", "America/New_York", "2027-11-07T05:00", 3) == [
            "11-07 01:05-0400",
            "11-07 01:05-0500",
            "11-07 02:05-0500",
        ]


ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "Asia/Kathmandu",
    ]
)
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=15 * 365)).map(
    lambda age: at("2020-01-01") + age
)


def _field(low, high):
    number = st.integers(low, high).map(str)
    ordered = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    return st.one_of(
        st.just("*"),
        number,
        ordered.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=2, max_size=4).map(",".join),
    )


EXPRESSIONS = st.tuples(
    _field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 7)
).map(" ".join)


@given(EXPRESSIONS, ZONES, MOMENTS)
def test_the_next_tick_is_later_on_a_whole_minute_in_utc(expression, zone, moment):
    tick = parse(expression, zone).next_after(moment)
    assert tick > moment
    assert (tick.second, tick.microsecond, tick.tzinfo) == (0, 0, UTC)


@given(EXPRESSIONS, ZONES, MOMENTS, st.timedeltas(timedelta(0), timedelta(days=40)))
def test_a_later_moment_never_has_an_earlier_tick(expression, zone, moment, wait):
    schedule = parse(expression, zone)
    first, second = schedule.next_after(moment), schedule.next_after(moment + wait)
    assert first <= second
    # There is no tick between a moment and the next tick after it.
    if first > moment + wait:
        assert first == second


@given(EXPRESSIONS, ZONES, MOMENTS)
def test_it_does_not_matter_in_which_zone_the_moment_is_given(expression, zone, moment):
    schedule = parse(expression, zone)
    there = moment.astimezone(schedule.zone)
    assert schedule.next_after(there) == schedule.next_after(moment)


@given(st.text(max_size=40), ZONES)
def test_whatever_is_written_is_a_schedule_or_an_error_of_ours(text, zone):
    try:
        parse(text, zone).next_after(at("2026-01-01"))
    except BadSchedule as error:
        assert str(error)  # noqa: PT017 - either way is right
