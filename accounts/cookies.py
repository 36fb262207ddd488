"""Sets and clears the `auth_token` cookie (SPEC §3)."""

from typing import Literal, cast

from django.conf import settings
from django.http import HttpResponse

from accounts.models import Session
from accounts.session_tokens import LIFETIME, issue
from pipedai.api.authentication import AUTH_COOKIE

_SAME_SITE = cast("Literal['Lax', 'Strict', 'None']", settings.COOKIE_SAMESITE)


def set_auth_cookie(response: HttpResponse, session: Session) -> None:
    """Sets the cookie of a session on the response: HttpOnly, without Domain, Secure in production."""
    response.set_cookie(
        AUTH_COOKIE,
        issue(session.user_id, session.id),
        max_age=LIFETIME,
        path="/",
        secure=settings.PRODUCTION or settings.COOKIE_SAMESITE == "None",
        httponly=True,
        samesite=_SAME_SITE,
    )


def clear_auth_cookie(response: HttpResponse) -> None:
    """Makes the response delete the `auth_token` cookie in the browser."""
    response.delete_cookie(AUTH_COOKIE, path="/", samesite=_SAME_SITE)
