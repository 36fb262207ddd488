"""The start page: figures and charts that the apps register, remembered for a few seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache

from pipedai.admin.charts import Chart

_FIGURES_SECONDS = 5
_CHARTS_SECONDS = 60


@dataclass(frozen=True)
class Figure:
    """One number. `is_alarm` says that somebody should look."""

    label: str
    value: str
    note: str = ""
    href: str = ""
    is_alarm: bool = False


_figures: list[Callable[[], Sequence[Figure]]] = []
_charts: list[Callable[[], Chart]] = []


def show_figures(read: Callable[[], Sequence[Figure]]) -> None:
    """Has the start page show what `read` finds. It must read little, by index: somebody looks every few seconds."""
    _figures.append(read)


def show_chart(read: Callable[[], Chart]) -> None:
    """Has the start page draw what `read` finds, at most once a minute."""
    _charts.append(read)


def start_page() -> dict[str, Any]:
    """What the template shows."""
    return {
        "figures": cache.get_or_set("admin.figures", _read_figures, _FIGURES_SECONDS),
        "charts": cache.get_or_set("admin.charts", _read_charts, _CHARTS_SECONDS),
    }


def _read_figures() -> list[Figure]:
    return [figure for read in _figures for figure in read()]


def _read_charts() -> list[Chart]:
    return [read() for read in _charts]
