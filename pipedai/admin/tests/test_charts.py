"""The axes of bar charts have the right figures."""

from datetime import timedelta

import pytest

from pipedai.admin.start_page import Chart, Series
from testing.world.instants import INSTANTS
from testing.world.runs import Runs
from triggers.admin.start_page import cost_per_day, runs_per_hour
from triggers.models import Run


def chart(*values, unit=""):
    return Chart("Runs", [str(n) for n in range(len(values))], [Series("a", "a", values)], unit)


@pytest.mark.parametrize(
    ("highest", "axis"),
    [
        (0, ["2", "1", "0"]),
        (1, ["2", "1", "0"]),
        (3, ["4", "2", "0"]),
        (4, ["4", "2", "0"]),
        (5, ["6", "3", "0"]),
        (10, ["20", "10", "0"]),
        (61, ["80", "40", "0"]),
        (99_000, ["100,000", "50,000", "0"]),
    ],
)
def test_the_axis_of_a_count_has_whole_figures_that_no_bar_passes(highest, axis):
    assert chart(0, highest, 0).axis == axis


def test_each_bar_has_its_number_and_each_part_of_it_one_in_the_table():
    spent = Chart(
        "Cost", ["Mon", "Tue"], [Series("a", "a", [1.5, 0]), Series("b", "b", [2, 0])], "$"
    )
    assert spent.totals == ["$3.50", "$0"]
    assert chart(9_999, 12_345).totals == ["9,999", "12k"]
    assert (spent.headers, spent.rows) == (
        ["When", "a", "b"],
        [["Mon", "$1.50", "$2"], ["Tue", "$0", "$0"]],
    )


def test_bars_stand_on_each_other():
    stacked = Chart("Runs", ["now"], [Series("a", "a", [1]), Series("b", "b", [3])])
    assert [(bar["y"], bar["height"]) for bar in stacked.bars] == [
        ("135.00", "45.00"),
        ("0.00", "135.00"),
    ]


def test_the_last_bar_has_the_runs_of_the_present_hour_and_day_at_each_instant_of_the_calendar(
    cast,
):
    ledger = Runs(cast, cast.trigger_id)
    before, after = (ledger.ended(costUsd=cost) for cost in (1, 2))
    for now in INSTANTS.values():
        hour = now.replace(minute=0, second=0)
        for chart_of, begin, bars, figures in (
            (runs_per_hour, hour, 24, (1, 1)),
            (cost_per_day, hour.replace(hour=0), 14, (1, 2)),
        ):
            for run_id, moment in ((before, begin - timedelta(microseconds=1)), (after, begin)):
                times = ("queued_at", "available_at", "claimed_at", "started_at", "ended_at")
                Run.objects.filter(id=run_id).update(**dict.fromkeys(times, moment))
            drawn = chart_of(now=now)
            assert len(drawn.labels) == bars
            (series,) = (each for each in drawn.series if sum(each.values))
            assert (series.values[-2], series.values[-1], sum(series.values)) == (
                *figures,
                sum(figures),
            )
