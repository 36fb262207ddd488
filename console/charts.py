"""Draws all charts of the console as SVG: outcomes of runs, cost by day, the load of machines, the trace of a run.

Marks are SVG that the page stretches, and words are HTML, which never shrinks. The mark of a success stands on the
line, that of a failure hangs below it, that of a timeout hangs in two pieces, and that of a run which has not ended, or
found nothing new, is hollow. So the shape shows the outcome without the colour. Each chart has a sentence or a table
for readers who can't see it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil
from statistics import median
from typing import Any

from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from console.asking import Json
from console.templatetags.console import duration, money, when, word

# A strip has room for this many runs.
STRIP = 30
_UNENDED = ("queued", "claimed", "running", "waiting")


@dataclass(kw_only=True)
class Chart:
    """A chart with its axes and its table, ready for the template console/chart.html.

    `label` says what the chart shows. `scale` has the words beside its lines from the top to the bottom, at equal
    distances. `axis` has the words below it, each at the beginning of its part of the width.
    """

    label: str
    width: float
    height: float
    marks: SafeString
    scale: Sequence[str]
    axis: Sequence[str]
    heads: Sequence[str]
    rows: list[list[str]]
    # The meaning of its shapes: for each shape its kind (`good`, `bad`, `open` or `median`), and its words.
    legend: Sequence[tuple[str, str]] = ()
    tall: bool = False
    # Whether its marks are links. Only a mouse reaches these, so the table has the same links.
    leads: bool = False


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.6g} {y:.6g}h{width:.6g}v{height:.6g}h-{width:.6g}z"


def _path(shown: str, boxes: Iterable[str]) -> SafeString:
    drawn = "".join(boxes)
    return format_html('<path class="{}" d="{}"/>', shown, drawn) if drawn else SafeString("")


def _lines(ys: Iterable[float], width: float) -> SafeString:
    return _path("grid", (f"M0 {y:.6g}h{width:g}" for y in ys))


def _steps(top: float, most: int = 3) -> tuple[float, int]:
    """Returns the size of a scale's steps (1, 2 or 5, with zeros), and how many steps reach the top."""
    step = 10.0**-2
    while top > step * most:
        step *= 2.5 if f"{step:e}"[0] == "2" else 2
    return step, max(1, ceil(round(top / step, 6)))


def _tick(run: Json, x: float, width: float, line: float, size: float) -> tuple[str, str]:
    """Returns the class of a run's mark, and its boxes, which reach `size` up or down from the line."""
    match run["status"]:
        case "succeeded" | "delivered" | "digested":
            is_hollow = run.get("nothingNew") or run["status"] == "digested"
            shown = "hollow good-mark" if is_hollow else "good-mark"
            return shown, _box(x, line - size, width, size)
        case "failed" | "dead":
            return "bad-mark", _box(x, line, width, size)
        case "timed_out":
            return "bad-mark", "".join(_halves(x, line, width, size))
        case "canceled":
            return "calm-mark", _box(x, line - size / 8, width, size / 4)
    return "hollow busy-mark", _box(x, line - size, width, size)


def counted(runs: Iterable[Json]) -> str:
    """Returns the numbers of runs by outcome as text: `28 succeeded, 2 failed`."""
    counts = Counter(
        "not ended" if each["status"] in _UNENDED else word(each["status"]).lower() for each in runs
    )
    return ", ".join(f"{number} {said}" for said, number in counts.items()) or "none so far"


def strip(runs: Sequence[Json], of: str = "runs") -> SafeString:
    """Draws the last runs of a trigger, or other rows with outcomes, as ticks in one line of a list, the newest last.
    The height of a tick is its duration, if it has one.
    """
    runs = runs[-STRIP:]
    top = max((each.get("durationMs") or 0 for each in runs), default=0) or 1
    boxes = dict[str, list[str]]()
    for place, each in enumerate(runs, start=STRIP - len(runs)):
        part = max((each.get("durationMs", top) or 0) / top, 0.25)
        size = round(part * (8 if each["status"] in {"failed", "timed_out", "dead"} else 14))
        shown, drawn = _tick(each, place * 8 + 1, 5, 15.5, size)
        boxes.setdefault(shown, []).append(drawn)
    marks = [_path(shown, drawn) for shown, drawn in boxes.items()]
    return _strip("strip", 240, 15.5, f"Last {STRIP} {of}: {counted(runs)}", marks)


def _strip(shown: str, width: int, base: float, said: str, marks: list[SafeString]) -> SafeString:
    """Draws marks on a base line, for one line of a list."""
    return format_html(
        '<svg class="{}" viewBox="0 0 {} 24" role="img"><title>{}</title><path class="base" d="M0 {}h{}"/>{}</svg>',
        shown,
        width,
        said,
        base,
        width,
        mark_safe("".join(marks)),  # noqa: S308
    )


def outcomes(runs: Sequence[Json]) -> Chart:
    """Draws the last runs of a trigger, the newest last, with how long each took. Each tick links to its run."""
    took = [each["durationMs"] or 0 for each in runs]
    unit, said = next(
        (each for each in ((3600e3, "h"), (60e3, "min")) if max(took) > 2 * each[0]), (1e3, "s")
    )
    step, up = _steps(max(took) / unit, 2)
    down = up if any(each["status"] in {"failed", "timed_out"} for each in runs) else 0
    line, scale = up * 36.0, 36 / (step * unit)
    height, drawn = line + down * 36 + 1, list[SafeString]()
    for place, (each, ms) in enumerate(zip(runs, took, strict=True)):
        shown, boxes = _tick(each, place * 10 + 2, 6, line, max(ms * scale, 3))
        cost = f", {money(each['costUsd'])}" if each.get("costUsd") else ""
        drawn.append(
            format_html(
                '<a href="{}" tabindex="-1"><title>{}</title>{}<rect class="hit" x="{}" width="10" height="{}"/></a>',
                reverse("console:run", args=[each["id"]]),
                f"{word(each['status'])}, {duration(each['durationMs'])}{cost}",
                _path(shown, [boxes]),
                place * 10,
                height,
            )
        )
    width, middle = STRIP * 10, line - median(took) * scale
    lines = _lines([n * 36 + 0.5 for n in range(up + down + 1)], width)
    base = format_html(
        '<path class="base" d="M0 {0}h{2}"/><path class="median" d="M0 {1}h{2}"/>',
        line + 0.5,
        round(middle, 1),
        width,
    )
    numbers = [f"{abs(up - n) * step:g} {said}" if n != up else "0" for n in range(up + down + 1)]
    labels = [when(each["queuedAt"], "day") for each in runs[:: STRIP // 5]]
    labels += [""] * (5 - len(labels))
    return Chart(
        label="Runs by outcome and duration",
        width=width,
        height=height,
        marks=mark_safe(lines + "".join(drawn) + base),  # noqa: S308 - of parts that are escaped
        scale=numbers,
        axis=labels,
        heads=("Run", "State", "Took"),
        rows=[
            [when(each["queuedAt"]), word(each["status"]), duration(each["durationMs"])]
            for each in runs
        ],
        legend=(
            ("good", "succeeded"),
            *([("bad", "failed, below the line")] if down else []),
            ("median", "median"),
        ),
        tall=True,
        leads=True,
    )


def by_hour(label: str, hours: Sequence[Json], said: Mapping[str, str]) -> Chart:
    """Draws numbers for each hour, by `key`: `good` stands on the line, with `open` hollow above it; `bad` and then
    `late` hang below. `said` has the words for the keys that the chart uses.
    """
    ups = [each["good"] + each.get("open", 0) for each in hours]
    downs = [each["bad"] + each.get("late", 0) for each in hours]
    step = max(_steps(max(*ups, *downs, 1), 2)[0], 1)
    up, down = ceil(max(*ups, 1) / step), ceil(max(downs) / step)
    line, unit, width = up * 40.0, 40 / step, len(hours) * 10
    height = line + down * 40
    marks = [_lines([n * 40 + 0.5 for n in range(up + down + 1)], width)]
    for place, each in enumerate(hours):
        x = place * 10 + 1.5
        sizes = {name: each.get(name, 0) * unit for name in ("good", "open", "bad", "late")}
        for name, y in (("good", line), ("open", line - sizes["good"]), ("bad", line + 0.5)):
            size = sizes[name]
            boxes = [_box(x, y if name == "bad" else y - size, 7, size)] if size else []
            marks.append(_path("hollow" if name == "open" else f"{name}-mark", boxes))
        marks.append(_path("bad-mark", _halves(x, line + sizes["bad"] + 0.5, 7, sizes["late"])))
        told = ", ".join(f"{each.get(name, 0)} {words.lower()}" for name, words in said.items())
        marks.append(_hit(place * 10, 10, height, told))
    marks.append(format_html('<path class="base" d="M0 {}h{}"/>', line, width))
    below = [("bad", f"{said['bad'].lower()}, below the line")] if any(downs) else []
    opened = any(each.get("open") for each in hours)
    return Chart(
        label=label,
        width=width,
        height=height,
        marks=mark_safe("".join(marks)),  # noqa: S308
        scale=[f"{abs(up - n) * step:g}" for n in range(up + down + 1)],
        axis=[when(each["key"], "clock") for each in hours[:: max(len(hours) // 4, 1)]],
        heads=("From", *said.values()),
        rows=[[when(each["key"]), *(str(each.get(name, 0)) for name in said)] for each in hours],
        legend=(
            ("good", said["good"].lower()),
            *below,
            *([("open", said["open"].lower())] if opened else []),
        ),
    )


def _halves(x: float, y: float, width: float, height: float) -> list[str]:
    half = height * 0.4
    return [_box(x, y, width, half), _box(x, y + height - half, width, half)] if height else []


def _hit(x: float, width: float, height: float, said: str, *, y: float = 0) -> SafeString:
    shape = '<rect class="hit" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
    return format_html(shape, x, y, width, height, said)


@dataclass
class Part:
    """A part of a day's cost: the number of its `series` in the chart, the `name` of its trigger, and how much of the
    cost a subscription has paid for already.
    """

    cost: Decimal = Decimal(0)
    notional: Decimal = Decimal(0)
    name: str = ""


@dataclass
class Day:
    """The cost of a day, in parts by the number of their series."""

    date: str
    parts: dict[int, Part] = field(default_factory=dict)

    @property
    def cost(self) -> Decimal:
        return sum((each.cost for each in self.parts.values()), Decimal(0))

    @property
    def notional(self) -> Decimal:
        return sum((each.notional for each in self.parts.values()), Decimal(0))


def by_day(days: Sequence[Day], *, tall: bool = False) -> Chart:
    """Draws the cost of each day as a pile of its parts. Cost that a subscription covers is paler. Today's bar is
    hollow if it has only one part.
    """
    step, up = _steps(float(max(each.cost for each in days)), 4 if tall else 3)
    width, height, unit = len(days) * 10, up * 40.0, 40 / step
    marks = [_lines([n * 40 + 0.5 for n in range(up + 1)], width)]
    for place, day in enumerate(days):
        y, x = height, place * 10 + 1.5
        is_today = place == len(days) - 1 and not tall
        for series, part in sorted(day.parts.items()):
            whole, pale = float(part.cost) * unit, float(part.notional) * unit
            shown = f"busy-mark s{series}" if series else "busy-mark"
            shown = f"hollow {shown}" if is_today else shown
            y -= whole
            boxes = [_box(x, y + pale, 7, whole - pale)] if whole > pale else []
            marks += [_path(shown, boxes)]
            if pale:
                marks.append(_path(f"{shown} pale", [_box(x, y, 7, pale)]))
            if part.name:
                said = f"{_day(day.date)}, {part.name}: {money(part.cost)}"
                marks.append(_hit(place * 10, 10, whole, said, y=y))
        if not any(part.name for part in day.parts.values()):
            marks.append(_hit(place * 10, 10, height, f"{_day(day.date)}: {money(day.cost)}"))
    marks.append(format_html('<path class="base" d="M0 {}h{}"/>', height, width))
    places = 2 if step < 1 else 0
    # The words below the chart have equal shares of the width, so their number must divide the number of days.
    parts = max(n for n in range(1, 8 if tall else 3) if len(days) % n == 0)
    return Chart(
        label="Cost by day",
        width=width,
        height=height,
        marks=mark_safe("".join(marks)),  # noqa: S308
        scale=[f"${(up - n) * step:.{places}f}" for n in range(up + 1)],
        axis=[_day(each.date).split(" ", 1)[1] for each in days[:: len(days) // parts]],
        heads=("Day in UTC", "Cost", "Covered by subscription"),
        rows=[[_day(each.date), money(each.cost), money(each.notional)] for each in days],
        tall=tall,
    )


def _day(date: str) -> str:
    at = datetime.fromisoformat(date)
    return f"{at:%a} {at.day} {at:%b}"


def spark(numbers: Sequence[float], *, bad: bool = False) -> SafeString:
    """Draws a series of numbers as a line without axes."""
    top, width = max(*numbers, 1), max(len(numbers) - 1, 1)
    points = "L".join(
        f"{n * 72 / width:.4g} {23 - 20 * number / top:.4g}" for n, number in enumerate(numbers)
    )
    return format_html(
        '<svg viewBox="0 0 72 24" aria-hidden="true"><path class="spark{}" d="M{}"/></svg>',
        " bad" if bad else "",
        points,
    )


def load(hours: Sequence[int]) -> SafeString:
    """Draws in one line of a list how many runs of a machine ended in each of the last hours."""
    top = max(*hours, 1)
    sizes = [round(18 * number / top) for number in hours]
    boxes = (_box(n * 6 + 1, 21 - size, 4, size) for n, size in enumerate(sizes) if hours[n])
    said = f"{sum(hours)} runs ended in the last {len(hours)} hours"
    return _strip("strip load", 144, 21.5, said, [_path("busy-mark", boxes)])


def requests(recent: Json) -> SafeString:
    """Draws the requests of a source by hour, in one line of a list. Requests that started nothing are hollow, and
    refused ones hang below.
    """
    taken, started, refused = (recent[name] for name in ("taken", "started", "refused"))
    unit = min(14 / max(*taken, 1), 8 / max(*refused, 1))
    up, above, down = list[str](), list[str](), list[str]()
    for n, (came, began, failed) in enumerate(zip(taken, started, refused, strict=True)):
        solid, whole = (max(round(number * unit), 2) if number else 0 for number in (began, came))
        if began:
            up.append(_box(n * 6 + 1, 15.5 - solid, 4, solid))
        if whole > solid:
            above.append(_box(n * 6 + 1.5, 15.5 - whole, 3, whole - solid))
        if failed:
            down.append(_box(n * 6 + 1, 15.5, 4, max(round(failed * unit), 2)))
    shown = {"good-mark": up, "hollow good-mark": above, "bad-mark": down}
    said = f"{sum(taken)} came, {sum(started)} started something, {sum(refused)} were refused"
    marks = [_path(name, boxes) for name, boxes in shown.items()]
    return _strip("strip load", 144, 15.5, f"In {len(taken)} hours {said}", marks)


def slots(taken: int, of: int) -> SafeString:
    """Draws the slots of a machine, the taken ones filled. Draws nothing if they are many: words beside say it."""
    if of > 12:
        return SafeString("")
    boxes = format_html_join(
        "",
        '<rect class="{}" x="{}" y="3.5" width="9" height="9" rx="2"/>',
        (("taken" if n < taken else "", n * 12 + 0.5) for n in range(of)),
    )
    return format_html(
        '<svg class="slots" viewBox="0 0 {0} 16" width="{0}" height="16" aria-hidden="true">{1}</svg>',
        of * 12,
        boxes,
    )


def filled(percent: int, reserved: int, state: str) -> SafeString:
    """Draws a bar that shows how much of a limit is used and reserved."""
    marks = {"used_up": "bad", "near": "warn"}
    return format_html(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="{}-mark" width="{}" height="10"/><rect class="calm-mark" x="{}" width="{}" height="10"/></svg>',
        marks.get(state, "good"),
        percent,
        percent,
        reserved,
    )


# The possible distances between marks on the time axis of a trace, in seconds.
_SECONDS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    43200,
)


class Trace:
    """The time axis of a run, from its beginning until its end or until now. Each step of the run has a bar on it."""

    def __init__(self, begun: datetime, until: datetime, *, is_live: bool) -> None:
        self._begun = begun
        seconds = max((until - begun).total_seconds(), 0.1)
        step = next((each for each in _SECONDS if seconds / each <= 5), ceil(seconds / 5))
        parts = max(1, ceil(seconds / step))
        self._whole = parts * step
        self.axis = [
            duration(round(n * step * 1000)).replace(" ms", "\u00a0ms") for n in range(parts)
        ]
        grid = "".join(f"M{n * 1000 / parts:.6g} 0v32" for n in range(parts + 1))
        now = _path("now", [f"M{self._x(until):.6g} 0v32"] if is_live else [])
        self._ground = mark_safe(_path("grid", [grid]) + now)  # noqa: S308

    def _x(self, at: datetime) -> float:
        part = (at - self._begun).total_seconds() / self._whole
        return 1000 * min(max(part, 0), 1)

    def bar(self, since: datetime, until: datetime, shown: str) -> SafeString:
        """Draws the bar of one step. Even the shortest bar is wide enough to be seen."""
        x = self._x(since)
        return format_html(
            '<svg class="track" viewBox="0 0 1000 32" preserveAspectRatio="none" aria-hidden="true">{}'
            '<rect class="{}" x="{}" y="10" width="{}" height="12"/></svg>',
            self._ground,
            shown,
            f"{min(x, 997):.6g}",
            f"{max(self._x(until) - x, 3):.6g}",
        )

    def after(self, at: datetime) -> str:
        """Returns the time from the beginning of the run until this moment as text."""
        return duration(max(round((at - self._begun) / timedelta(milliseconds=1)), 0), parts=1)


def moment(text: Any) -> datetime:
    """Parses a time of the API."""
    return datetime.fromisoformat(text).astimezone(UTC)
