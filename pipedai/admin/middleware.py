"""Sessions, users, messages and CSRF tokens for Django admin, and for nothing outside its path (SPEC §10)."""

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware

from pipedai.api.authentication import times_sent
from pipedai.api.overload import overload

PATH = "/admin"


class _BelowAdmin:
    """Mixed into a middleware: it does not see other requests, so that admin's cookies mean nothing to them."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if _is_below_admin(request):
            return super().__call__(request)  # type: ignore[misc,no-any-return]
        return self.get_response(request)  # type: ignore[attr-defined,no-any-return]


class AdminSessions(_BelowAdmin, SessionMiddleware):
    """`request.session` by the `staff_session` cookie. Of two such cookies none counts: somebody has planted one."""

    def process_request(self, request: HttpRequest) -> None:
        """Attaches the session."""
        if times_sent(settings.SESSION_COOKIE_NAME, request.META) > 1:
            del request.COOKIES[settings.SESSION_COOKIE_NAME]
        super().process_request(request)

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Keeps what the request changed of the session."""
        try:
            return super().process_response(request, response)
        except OperationalError as error:
            if overload(error) is None:
                raise
            # The view has done its work and says so: all that is lost is what it wanted to tell on the next page.
            return response


class AdminUsers(_BelowAdmin, AuthenticationMiddleware):
    """`request.user` by the session."""


class AdminMessages(_BelowAdmin, MessageMiddleware):
    """What the next page tells the user."""


class AdminCsrf(_BelowAdmin, CsrfViewMiddleware):
    """Tokens in forms; the API has its own check, pipedai.api.origin."""

    def process_view(self, request: HttpRequest, *view: Any) -> Any:
        """Checks the token; Django asks this of every request, whoever handles it."""
        return super().process_view(request, *view) if _is_below_admin(request) else None


def _is_below_admin(request: HttpRequest) -> bool:
    return request.path_info == PATH or request.path_info.startswith(f"{PATH}/")
