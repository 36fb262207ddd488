"""The axes of bar charts have the right figures."""

import pytest

from pipedai.admin.start_page import Chart, Series


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
