"""Builds the start page from figures and SVG charts that the apps register, and caches them for a short time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache
from django.db.models import QuerySet
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from pipedai.admin.values import list_of

# The size in the chart's own units. The browser stretches the drawing to the page's width, but not the text beside it.
_WIDTH, _HEIGHT = 720.0, 180.0
_GAP = 0.22  # The part of a bar's room that stays empty.


@dataclass(frozen=True)
class Series:
    name: str
    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Stacked bars, one for each label. `unit`, such as `$`, is written before the figures of the axis."""

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    unit: str = ""
    nothing: str = "Nothing yet."

    @property
    def is_empty(self) -> bool:
        return not any(any(series.values) for series in self.series)

    @property
    def top(self) -> float:
        """The value of the axis's top line: the least round number that no bar exceeds and whose half is round too."""
        highest = max((sum(stack) for stack in self._stacks()), default=0.0) or 1.0
        magnitude = 10.0 ** math.floor(math.log10(highest))
        return next(step * magnitude for step in (2, 4, 6, 8, 10) if step * magnitude >= highest)

    @property
    def axis(self) -> list[str]:
        return [self.shown(self.top), self.shown(self.top / 2), self.shown(0)]

    @property
    def bars(self) -> list[dict[str, Any]]:
        """The rectangles, from left to right and from the bottom up, each with the text of its tooltip."""
        room = _WIDTH / max(1, len(self.labels))
        drawn = []
        for n, label in enumerate(self.labels):
            y = _HEIGHT
            for series in self.series:
                height = series.values[n] / self.top * _HEIGHT
                y -= height
                if height:
                    drawn.append(
                        {
                            "x": f"{n * room + room * _GAP / 2:.2f}",
                            "y": f"{y:.2f}",
                            "width": f"{room * (1 - _GAP):.2f}",
                            "height": f"{height:.2f}",
                            "name": series.name,
                            "says": f"{label}: {self.shown(series.values[n])} {series.label}",
                        }
                    )
        return drawn

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """The meaning of each colour: the series' name and label, and the sum of its values."""
        return [
            (each.name, each.label, self.shown(float(sum(each.values)))) for each in self.series
        ]

    @property
    def totals(self) -> list[str]:
        """The number below each bar, in thousands if it would be too long there."""
        return [
            self.shown(each) if each < 10_000 else f"{self.unit}{each / 1000:,.0f}k"
            for each in map(sum, self._stacks())
        ]

    @property
    def headers(self) -> list[str]:
        return ["When", *(series.label for series in self.series)]

    @property
    def rows(self) -> list[list[str]]:
        """The chart as a table with these headers."""
        stacks = zip(self.labels, self._stacks(), strict=True)
        return [[label, *map(self.shown, stack)] for label, stack in stacks]

    @property
    def ends(self) -> tuple[str, str, str]:
        return self.labels[0], self.labels[len(self.labels) // 2], self.labels[-1]

    def shown(self, value: float) -> str:
        digits = 2 if self.unit and value < 100 and value != int(value) else 0
        if not self.unit and value != int(value):
            digits = 1
        return f"{self.unit}{value:,.{digits}f}"

    def _stacks(self) -> list[tuple[float, ...]]:
        return list(zip(*(series.values for series in self.series), strict=True))


def share_bar(parts: Sequence[tuple[str, str, float]], *, whole: float) -> SafeString:
    """Returns a bar of the taken parts of a whole, above their texts: each with its colour's name, text and size."""
    scale = max(whole, sum(size for *_, size in parts)) or 1.0
    drawn, x = [], 0.0
    for name, says, size in parts:
        width = 100 * size / scale
        drawn.append((f"{x:.2f}", f"{width:.2f}", name, says))
        x += width
    rects = format_html_join(
        "",
        '<rect x="{}" width="{}" height="10" class="staff-bar-{}"><title>{}</title></rect>',
        drawn,
    )
    return format_html(
        '<svg class="staff-share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
        '<span class="staff-quiet">{}</span>',
        rects,
        ", ".join(says for _, says, _ in parts),
    )


# Rows are counted up to this number, since counting more takes too long. A larger number is shown as "over 100,000".
MOST_COUNTED = 100_000
_FIGURES_SECONDS = 5
_CHARTS_SECONDS = 60


@dataclass(frozen=True)
class Figure:
    """One number on the start page. `is_alarm` means that a person should look into it."""

    label: str
    value: str
    note: str = ""
    href: str = ""
    is_alarm: bool = False


_alarms: list[Callable[[], Sequence[Figure]]] = []
_figures: list[Callable[[], Sequence[Figure]]] = []
_charts: list[Callable[[], Chart]] = []


def shown_count(count: int) -> str:
    return f"{count:,}" if count <= MOST_COUNTED else f"over {MOST_COUNTED:,}"


def alarm(label: str, rows: QuerySet[Any], **filters: Any) -> Figure:
    """Returns how many of these rows there are, which an index must tell, and a link to their list by `filters`."""
    count = rows[: MOST_COUNTED + 1].count()
    href = list_of(rows.model, **filters)
    return Figure(label, shown_count(count), href=href, is_alarm=count > 0)


def show_alarms(read: Callable[[], Sequence[Figure]]) -> None:
    """Makes the start page begin with the figures of what is wrong now. For `read` see `show_figures`."""
    _alarms.append(read)


def show_figures(read: Callable[[], Sequence[Figure]]) -> None:
    """`read` may be called every few seconds, so it must read few rows and find them by an index."""
    _figures.append(read)


def show_chart(read: Callable[[], Chart]) -> None:
    """Makes the start page draw the chart that `read` returns. `read` is called at most once a minute."""
    _charts.append(read)


def start_page() -> dict[str, Any]:
    return {
        "alarms": cache.get_or_set("admin.alarms", lambda: _read(_alarms), _FIGURES_SECONDS),
        "figures": cache.get_or_set("admin.figures", lambda: _read(_figures), _FIGURES_SECONDS),
        "charts": cache.get_or_set("admin.charts", _read_charts, _CHARTS_SECONDS),
    }


def _read(figures: Sequence[Callable[[], Sequence[Figure]]]) -> list[Figure]:
    return [figure for read in figures for figure in read()]


def _read_charts() -> list[Chart]:
    return [read() for read in _charts]
