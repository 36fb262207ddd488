"""Defines the admin site, and its start page, whose numbers say what is wrong now and lead to the rows that they count.

Its middleware adds sessions, users, messages and CSRF tokens to the site, and to no page outside its path.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.admin import AdminSite
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import DatabaseError, InterfaceError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.shortcuts import render
from django.urls import reverse

from pipedai.api.authentication import times_sent
from pipedai.api.exceptions import unavailable
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
    """Returns the number of these rows, which an index must find, and a link to their list by `filters`. The figure is
    an alarm if there are any rows, or with `none_is_wrong` if there are none.
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


PATH = "/admin"


class _BelowAdmin:
    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if _is_below_admin(request):
            return super().__call__(request)  # type: ignore[misc,no-any-return]
        return self.get_response(request)  # type: ignore[attr-defined,no-any-return]


class AdminSessions(_BelowAdmin, SessionMiddleware):
    """Sets `request.session` from the `staff_session` cookie. Two cookies of one name get a page that refuses the
    request, because an attacker may have set one of them.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:  # type: ignore[override]
        for name in (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME):
            if times_sent(name, request.META) > 1:
                said = f"Two {name} cookies were sent. Delete the cookies of this site, and log in again."
                context = {"title": "You may not do this", "sentences": [said], "path": PATH}
                return render(request, "pipedai/problem.html", context, status=400)
        super().process_request(request)
        return None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            return super().process_response(request, response)
        except (DatabaseError, InterfaceError) as error:
            if unavailable(error) is None:
                raise
            # The view's changes to the session are lost, such as a message for the next page. Its other work is done,
            # so its answer is sent.
            return response


class AdminUsers(_BelowAdmin, AuthenticationMiddleware):
    """Sets `request.user` from the session."""


class AdminMessages(_BelowAdmin, MessageMiddleware):
    """Keeps messages that the next page shows to the user."""


class AdminCsrf(_BelowAdmin, CsrfViewMiddleware):
    """Checks the CSRF tokens of forms. The API has its own check in pipedai.api.authentication."""

    def process_view(self, request: HttpRequest, *view: Any) -> Any:
        """Checks the tokens of admin's forms only, although Django calls this method for every request."""
        return super().process_view(request, *view) if _is_below_admin(request) else None


def _is_below_admin(request: HttpRequest) -> bool:
    return request.path_info == PATH or request.path_info.startswith(f"{PATH}/")
