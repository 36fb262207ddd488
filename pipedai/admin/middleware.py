"""Adds sessions, users, messages and CSRF tokens to Django admin, and to no page outside its path."""

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware

from pipedai.api.authentication import times_sent
from pipedai.api.exceptions import unavailable

PATH = "/admin"


class _BelowAdmin:
    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if _is_below_admin(request):
            return super().__call__(request)  # type: ignore[misc,no-any-return]
        return self.get_response(request)  # type: ignore[attr-defined,no-any-return]


class AdminSessions(_BelowAdmin, SessionMiddleware):
    """Sets `request.session` from the `staff_session` cookie. It ignores two of them: an attacker planted one."""

    def process_request(self, request: HttpRequest) -> None:
        if times_sent(settings.SESSION_COOKIE_NAME, request.META) > 1:
            del request.COOKIES[settings.SESSION_COOKIE_NAME]
        super().process_request(request)

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            return super().process_response(request, response)
        except (DatabaseError, InterfaceError) as error:
            if unavailable(error) is None:
                raise
            # What the view wrote into the session is lost, such as a message for the next page. All else that the view
            # did is done, so its answer is sent.
            return response


class AdminUsers(_BelowAdmin, AuthenticationMiddleware):
    """Sets `request.user` from the session."""


class AdminMessages(_BelowAdmin, MessageMiddleware):
    """Keeps messages that the next page shows to the user."""


class AdminCsrf(_BelowAdmin, CsrfViewMiddleware):
    """Checks the CSRF tokens of forms. The API has its own check, pipedai.api.authentication."""

    def process_view(self, request: HttpRequest, *view: Any) -> Any:
        """Checks the tokens of admin's forms only, although Django calls this method for every request."""
        return super().process_view(request, *view) if _is_below_admin(request) else None


def _is_below_admin(request: HttpRequest) -> bool:
    return request.path_info == PATH or request.path_info.startswith(f"{PATH}/")
