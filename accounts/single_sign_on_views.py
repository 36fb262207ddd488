"""The endpoints for people who sign in at the issuer, the operator's OpenID provider.

The console's pages below /console/sso call them, because the issuer sends browsers back to only one URL. If the
settings name no issuer, these endpoints do not exist.
"""

from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import issuer, single_sign_on, throttles
from accounts.issuer import SignInFailed
from accounts.mails import LinkUnusable, Purpose, find_mail
from accounts.serializers import BeginBody, FinishBody, LinkBody, LinkByMailBody, UserSerializer
from accounts.sessions import PresentedSession, device_of
from accounts.single_sign_on import (
    BEGUN,
    LIFETIME_SECONDS,
    MAILED_SECONDS,
    PENDING,
    Entered,
    LinkNeeded,
    opened,
)
from accounts.views import caller_of, entered, presented_by
from pipedai.api.authentication import TwoCookies, cookie_name, delete_cookie, only_cookie
from pipedai.api.errors import NotFound
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Values
from pipedai.api.throttling import Rate, Throttle
from pipedai.api.views import ApiViewSet, IsPublic

# The names of the cookies, by their kind.
_NAMES = {BEGUN: "sso", PENDING: "sso_link"}
_COOKIE = ("Set-Cookie",)
_ENTERED = answer(
    "SignedInAtIssuer",
    "The signed-in user, and the page to go on to.",
    user=UserSerializer(),
    next=serializers.CharField(),
)


def _account_to_link(request: Request) -> str | None:
    """Returns the account that the token in the body names, or else the cookie. Returns None if neither works."""
    body = request.data
    token = body.get("token") if isinstance(body, dict) else None
    try:
        if isinstance(token, str):
            return str(find_mail(token, Purpose.LINK).user_id)
        return str(opened(_cookie(request, PENDING), PENDING)["user"])
    except (LinkUnusable, SignInFailed, TwoCookies):
        return None


# The limits are those for passwords elsewhere.
_OF_ACCOUNT = (
    Throttle(Rate("link-account", limit=10, seconds=60), _account_to_link),
    Throttle(Rate("link-account-hour", limit=60, seconds=3600), _account_to_link),
)


class SingleSignOnViewSet(ApiViewSet):
    tag = "Accounts"
    permissions = dict.fromkeys(("begin", "finish", "link", "mail_link", "link_by_mail"), IsPublic)
    browser_entries = frozenset(permissions)
    throttles = {
        "begin": throttles.SIGN_IN_AT_ISSUER,
        "finish": throttles.SIGN_IN_AT_ISSUER,
        "link": (throttles.LOGIN[0], *_OF_ACCOUNT),
        "mail_link": throttles.MAIL_LINK,
        "link_by_mail": (*throttles.MAIL_LINK, *_OF_ACCOUNT),
    }

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [PresentedSession()]

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        if not issuer.is_on():
            raise NotFound

    @Operation(
        "POST /auth/sso/begin",
        id="beginSignIn",
        summary="Begin to sign in at the issuer",
        body=BeginBody,
        example={"next": "/console/"},
        answers={
            200: answer("SignInBegun", "Where the browser goes.", url=serializers.CharField())
        },
        answer_headers={200: _COOKIE},
    )
    def begin(self, request: Request, body: Values) -> Response:
        url, cookie = single_sign_on.begin(on=body["next"])
        response = Response({"url": url})
        _set_cookie(response, BEGUN, cookie)
        return response

    @Operation(
        "POST /auth/sso/finish",
        id="finishSignIn",
        summary="Sign in with what the issuer sent back",
        body=FinishBody,
        example={"state": "n0nZ…", "code": "SplxlOBe…"},
        answers={200: _ENTERED},
        answer_headers={200: _COOKIE},
    )
    def finish(self, request: Request, body: Values) -> Response:
        try:
            found = single_sign_on.finish(
                brought=body,
                cookie=_cookie(request, BEGUN),
                replaces=presented_by(request),
                device=device_of(request),
                actor=caller_of(request),
            )
            response = _entered(found)
        except LinkNeeded as needed:
            response = Response(needed.body(), status=needed.status_code)
            _set_cookie(response, PENDING, needed.cookie)
        delete_cookie(response, _NAMES[BEGUN])
        return response

    @Operation(
        "POST /auth/sso/link",
        id="linkAccount",
        summary="Link the account with the issuer's e-mail address by its password",
        body=LinkBody,
        example={"password": "correct horse battery"},
        answers={200: _ENTERED},
        answer_headers={200: _COOKIE},
    )
    def link(self, request: Request, body: Values) -> Response:
        found = single_sign_on.link(
            **body,
            cookie=_cookie(request, PENDING),
            device=device_of(request),
            actor=caller_of(request),
        )
        response = _entered(found)
        delete_cookie(response, _NAMES[PENDING])
        return response

    @Operation(
        "POST /auth/sso/link-mail",
        id="mailLink",
        summary="Have a mail sent that links the account with the issuer's e-mail address",
        answers={202: None},
        answer_headers={202: _COOKIE},
    )
    def mail_link(self, request: Request) -> Response:
        cookie = single_sign_on.mail_link(cookie=_cookie(request, PENDING))
        response = Response(status=202)
        _set_cookie(response, PENDING, cookie, MAILED_SECONDS)
        return response

    @Operation(
        "POST /auth/sso/link-by-mail",
        id="linkByMail",
        summary="Link an account by the token of a mail",
        body=LinkByMailBody,
        example={"token": "acc_2jmGzT6n…"},
    )
    def link_by_mail(self, request: Request, body: Values) -> None:
        single_sign_on.link_by_mail(
            **body, cookie=_cookie(request, PENDING), actor=caller_of(request)
        )


def _entered(found: Entered) -> Response:
    """Returns the answer to a person who has signed in, with the cookie of an admin session if one has begun."""
    response = entered(found.user, found.session, next=found.path)
    if found.staff_session is not None:
        response.set_cookie(
            settings.SESSION_COOKIE_NAME,
            found.staff_session.session_key or "",
            max_age=settings.SESSION_COOKIE_AGE,
            path=settings.SESSION_COOKIE_PATH,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Strict",
        )
    return response


def _cookie(request: Request, kind: str) -> str | None:
    return only_cookie(_NAMES[kind], request)


def _set_cookie(response: Response, kind: str, value: str, seconds: int = LIFETIME_SECONDS) -> None:
    """Sets a cookie without SameSite=Strict, because browsers must send it when the issuer redirects to us."""
    response.set_cookie(
        cookie_name(_NAMES[kind]),
        value,
        max_age=seconds,
        path="/",
        secure=settings.PRODUCTION,
        httponly=True,
        samesite="Lax",
    )
