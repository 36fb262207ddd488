"""The base of the authentication classes for users, API keys and workers.

If a request has an Authorization header, only this header decides who calls. Each view lists the classes that it
accepts; `RefuseTheRest` comes last.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Forbidden, Unauthenticated
from pipedai.api.principal import Principal, TokenPrincipal
from pipedai.server.memory_budget import note_caller


class PostedForm(Request):
    """A request whose `data` is Django's `request.POST`, so that a throttle counts the value that the view uses."""

    @property
    def data(self) -> Any:
        return self._request.POST


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def check_origin(request: Request) -> None:
    """Raises Forbidden if another site's page made the browser send this request. If `Origin` is `null`, the header
    `Sec-Fetch-Site` must be `same-origin`. Without `Origin`, `Sec-Fetch-Site` decides. No browser sends neither.
    """
    origin = request.META.get("HTTP_ORIGIN")
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if origin is None:
        foreign = site in {"cross-site", "same-site"}
    elif origin == "null":
        foreign = site != "same-origin"
    else:
        foreign = origin not in settings.ALLOWED_ORIGINS and not _is_own(origin, request)
    if foreign:
        raise Forbidden(
            "This origin may not call the API with a session cookie.",
            code=ErrorCode.FOREIGN_ORIGIN,
        )


def is_from_own_page(request: HttpRequest) -> bool:
    """Whether a page of this service itself made the browser send the request, by `Origin`, or by `Sec-Fetch-Site` if
    `Origin` is missing or `null`.

    Pages of ALLOWED_ORIGINS may call the API, but must not post our own forms.
    """
    origin = request.META.get("HTTP_ORIGIN")
    if origin not in {None, "null"}:
        return _is_own(origin, request)
    return request.META.get("HTTP_SEC_FETCH_SITE") == "same-origin"


def _is_own(origin: str, request: Request | HttpRequest) -> bool:
    own = urlsplit(settings.PUBLIC_URL)
    if origin == f"{own.scheme}://{own.netloc}":
        return True
    return origin == f"{'https' if request.is_secure() else 'http'}://{request.get_host()}"


AUTH_COOKIE = "auth_token"


def cookie_name(name: str) -> str:
    """Returns the name under which browsers have our cookie."""
    return f"{settings.COOKIE_PREFIX}{name}"


def delete_cookie(
    response: HttpResponse, name: str, *, samesite: Literal["Lax", "Strict", "None"] = "Lax"
) -> None:
    """Deletes our cookie. Django makes the header Secure for such a prefix, without which browsers would ignore it."""
    response.delete_cookie(cookie_name(name), path="/", samesite=samesite)


def only_cookie(name: str, request: HttpRequest | Request) -> str | None:
    """Returns the value of our cookie, or None. Raises TwoCookies if two of the name were sent."""
    sent = cookie_name(name)
    if times_sent(sent, request.META) > 1:
        raise TwoCookies(sent)
    value = request.COOKIES.get(sent)
    return str(value) if value else None


class TwoCookies(Unauthenticated):
    """401: two cookies of one name were sent. Another subdomain planted one of them (cookie tossing)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Two {name} cookies were sent.", code=ErrorCode.UNAUTHENTICATED)


CHALLENGE = 'Bearer realm="pipedai"'

# Every bad token gets this sentence, because a more precise one would help only somebody who guesses tokens.
BAD_TOKEN = "The token is invalid, expired or revoked."  # noqa: S105


def bearer_token(request: Request) -> str | None:
    """Returns None without an Authorization header. Raises Unauthenticated for one that is no Bearer token."""
    header = request.META.get("HTTP_AUTHORIZATION")
    if header is None:
        return None
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() != "bearer" or not value or "," in value:
        raise Unauthenticated(
            "The Authorization header must be: Bearer <token>.", code=ErrorCode.UNAUTHENTICATED
        )
    return str(value)


def auth_cookie(request: Request) -> str | None:
    return only_cookie(AUTH_COOKIE, request)


def times_sent(cookie: str, meta: Mapping[str, Any]) -> int:
    header = meta.get("HTTP_COOKIE", "")
    return [pair.partition("=")[0].strip() for pair in header.split(";")].count(cookie)


def refusal(token: str) -> Unauthenticated:
    """Returns the error for a token of a kind that this view does not accept. Its sentence names the kind."""
    prefix = tokens.prefix_of(token)
    if prefix is None:
        return bad_token()
    return _not_accepted(tokens.KINDS[prefix])


def bad_token(code: ErrorCode = ErrorCode.INVALID_TOKEN) -> Unauthenticated:
    return Unauthenticated(BAD_TOKEN, code=code)


def _not_accepted(credentials: str) -> Unauthenticated:
    return Unauthenticated(
        f"{credentials} is not accepted on this endpoint.",
        code=ErrorCode.CREDENTIALS_NOT_ACCEPTED,
    )


class BearerAuthentication(BaseAuthentication):
    """Authenticates by a Bearer token. A subclass names one prefix of tokens and finds their owner."""

    prefix: ClassVar[str]

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        token = bearer_token(request)
        if token is None:
            return None
        prefix = tokens.prefix_of(token)
        if prefix is None:
            raise bad_token()
        if prefix != self.prefix:
            return None
        principal = self.find(tokens.digest(token))
        if principal is None:
            raise bad_token()
        note_caller(request, principal.workspace_id)
        return principal, self.prefix

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE

    def find(self, digest: bytes) -> TokenPrincipal | None:
        """Returns None for an unknown or revoked token. Raises Unauthenticated if the token has expired."""
        raise NotImplementedError


class RefuseTheRest(BaseAuthentication):
    """Comes last in each view's list, and refuses, by kind, credentials that no other class accepted."""

    def authenticate(self, request: Request) -> None:
        token = bearer_token(request)
        if token is not None:
            raise refusal(token)
        if auth_cookie(request) is not None:
            raise _not_accepted("The session cookie")

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE
