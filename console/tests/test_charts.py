"""What charts draw: the shapes of outcomes, whole scales, and never a mark outside of its chart."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from console import charts

ID = "01a20e61-cb11-7c02-9d5e-3a4b5c6d7e8f"


def run(status, milliseconds=1000, **more):
    at = "2100-01-04T06:00:00Z"
    return {"id": ID, "status": status, "durationMs": milliseconds, "queuedAt": at, **more}


def test_the_shape_of_a_tick_says_the_outcome_without_its_colour():
    """The line is at 15.5."""
    boxes = {
        status: re.findall('mark" d="([^"]+)"', charts.strip([run(status)]))[0]
        for status in ("succeeded", "failed", "timed_out", "running")
    }
    assert boxes["succeeded"] == "M233 1.5h5v14h-5z"
    assert boxes["failed"].startswith("M233 15.5h5")
    assert boxes["timed_out"].count("z") == 2
    assert "hollow" in charts.strip([run("running")])
    assert "hollow" in charts.strip([run("succeeded", nothingNew=True)])


def test_a_strip_says_what_it_shows():
    shown = charts.strip([run("succeeded"), run("failed"), run("succeeded", None)])
    assert "Last 30 runs: 2 succeeded, 1 failed" in shown
    assert "none so far" in charts.strip([])


def test_a_scale_has_round_steps_and_reaches_the_longest():
    for longest in (0, 1, 999, 4200, 61_000, 3_700_000, 90_000_000):
        drawn = charts.outcomes([run("succeeded", longest), run("failed", 1)])
        heights = [float(each) for each in re.findall(r"v([\d.]+)h-6z", drawn.marks)]
        assert max(heights) <= drawn.height, longest
        assert len(drawn.scale) <= 7, longest
        assert "0" in drawn.scale, longest


def test_an_hour_without_runs_is_there_and_what_has_not_ended_is_hollow():
    hours = [
        {"key": f"2100-01-04T{n:02}:00:00Z", "good": n % 3, "bad": n % 2, "late": 0}
        for n in range(24)
    ]
    hours[-1]["open"] = 2
    said = {"good": "Succeeded", "bad": "Failed", "late": "Timed out", "open": "Not ended"}
    drawn = charts.by_hour("Runs", hours, said)
    assert len(drawn.rows) == 24
    assert drawn.marks.count("hollow") == 1
    assert ("open", "not ended") in drawn.legend


def test_what_a_subscription_covers_is_paler():
    part = charts.Part(Decimal("1.5"), Decimal("0.5"), "<Report>")
    days = [charts.Day("2100-01-04", {0: part}), charts.Day("2100-01-05")]
    drawn = charts.by_day(days, tall=True)
    assert drawn.marks.count("pale") == 1
    assert "&lt;Report&gt;: $1.50" in drawn.marks
    assert drawn.rows[0][1:] == ["$1.50", "$0.50"]
    assert drawn.scale[-1].startswith("$0")


def test_a_bar_of_a_trace_stays_on_the_axis_and_is_seen():
    begun = datetime(2100, 1, 4, tzinfo=UTC)
    for length in (timedelta(0), timedelta(seconds=58), timedelta(days=3)):
        trace = charts.Trace(begun, begun + length, is_live=True)
        assert 1 <= len(trace.axis) <= 5
        for since in (begun - timedelta(hours=1), begun, begun + length * 2):
            drawn = trace.bar(since, since, "busy-mark")
            ((x, width),) = re.findall(r' x="([\d.]+)" y="10" width="([\d.]+)"', drawn)
            assert float(x) + float(width) <= 1000
            assert float(width) >= 3


def test_a_strip_of_notices_has_the_shapes_of_outcomes():
    notices = [{"status": each} for each in ("delivered", "dead", "digested", "pending")]
    shown = charts.strip(notices, "notices")
    assert "Last 30 notices: 1 delivered, 1 not delivered, 1 in a digest, 1 on its way" in shown
    assert re.findall('"bad-mark" d="([^"]+)"', shown) == ["M217 15.5h5v8h-5z"]
    assert shown.count("hollow") == 2


def test_the_requests_of_a_source_stand_are_hollow_or_hang():
    quiet = [0] * 22
    recent = {"taken": [*quiet, 4, 0], "started": [*quiet, 1, 0], "refused": [*quiet, 0, 2]}
    shown = charts.requests(recent)
    assert "In 24 hours 4 came, 1 started something, 2 were refused" in shown
    assert re.findall('"good-mark" d="([^"]+)"', shown) == ["M133 11.5h4v4h-4z"]
    assert re.findall('"hollow good-mark" d="([^"]+)"', shown) == ["M133.5 1.5h3v10h-3z"]
    assert re.findall('"bad-mark" d="([^"]+)"', shown) == ["M139 15.5h4v7h-4z"]
    assert "d=" in charts.requests({name: [0] * 24 for name in recent})
