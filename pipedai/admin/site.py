"""Defines the admin site, and its start page: what is wrong now, as numbers that lead to lists of what they count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from pipedai.version import VERSION

# Rows are counted up to this number, since counting more takes too long. A larger number is shown as "over 100,000".
_MOST_COUNTED = 100_000


def page_of(model: type[Model], row_id: Any) -> str:
    opts = model._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[row_id])


def list_of(model: type[Model], **filters: Any) -> str:
    opts = model._meta
    page = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    return f"{page}?{urlencode(filters)}" if filters else page


@dataclass(frozen=True)
class Figure:
    """One number on the start page. `is_alarm` means that a person should look into it."""

    label: str
    value: str
    href: str
    is_alarm: bool


_of_what_is_wrong: list[Callable[[], Sequence[Figure]]] = []


def count_of(
    label: str, rows: QuerySet[Any], *, none_is_wrong: bool = False, **filters: Any
) -> Figure:
    """Returns how many of these rows there are, which an index must tell, and a link to their list by `filters`. Some
    are an alarm, or none with `none_is_wrong`.
    """
    count = rows[: _MOST_COUNTED + 1].count()
    value = f"{count:,}" if count <= _MOST_COUNTED else f"over {_MOST_COUNTED:,}"
    return Figure(label, value, list_of(rows.model, **filters), bool(count) is not none_is_wrong)


def show_on_start_page(read: Callable[[], Sequence[Figure]]) -> None:
    """Each visit of the start page calls `read`, so it must read few rows and find them by an index."""
    _of_what_is_wrong.append(read)


class StaffSite(AdminSite):
    site_header = site_title = "PipedAI staff"
    site_url = None
    index_title = "What is wrong now"
    index_template = "staff/start.html"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        figures = [figure for read in _of_what_is_wrong for figure in read()]
        return super().index(request, {**(extra_context or {}), "figures": figures})

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "version": VERSION}


site = StaffSite()


def model_named(name: str) -> Any:
    names = {
        str(model._meta.verbose_name).lower().replace(" ", "-"): model for model in site._registry
    }
    return names.get(name)
