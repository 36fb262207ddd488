"""Builds the start page from figures and charts that the apps register. It caches the figures for a few seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache

from pipedai.admin.charts import Chart

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


_figures: list[Callable[[], Sequence[Figure]]] = []
_charts: list[Callable[[], Chart]] = []


def show_figures(read: Callable[[], Sequence[Figure]]) -> None:
    """Makes the start page show the figures that `read` returns.

    `read` may be called every few seconds, so it must read only few rows and find them by an index.
    """
    _figures.append(read)


def show_chart(read: Callable[[], Chart]) -> None:
    """Makes the start page draw the chart that `read` returns. `read` is called at most once a minute."""
    _charts.append(read)


def start_page() -> dict[str, Any]:
    """Returns the values that the template of the start page shows."""
    return {
        "figures": cache.get_or_set("admin.figures", _read_figures, _FIGURES_SECONDS),
        "charts": cache.get_or_set("admin.charts", _read_charts, _CHARTS_SECONDS),
    }


def _read_figures() -> list[Figure]:
    return [figure for read in _figures for figure in read()]


def _read_charts() -> list[Chart]:
    return [read() for read in _charts]
