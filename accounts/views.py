"""The auth and user endpoints."""

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services, throttles
from accounts.authentication import CookieJWTAuthentication, PresentedSession
from accounts.cookies import clear_auth_cookie, set_auth_cookie
from accounts.emails import NotAnEmail, read_email
from accounts.models import Session, User
from accounts.serializers import ChangePasswordBody, LoginBody, RegisterBody, UserSerializer
from pipedai.api.errors import Invalid
from pipedai.api.permissions import IsPublic, IsSignedIn
from pipedai.api.principal import UserPrincipal, address_of, principal_of
from pipedai.api.request_id import current_request_id
from pipedai.api.serializers import read_body
from pipedai.api.views import ApiViewSet
from pipedai.events import Actor


class SessionViewSet(ApiViewSet):
    """Opens and ends a browser's session."""

    permissions = {"register": IsPublic, "login": IsPublic, "logout": IsPublic}
    browser_entries = frozenset({"register", "login", "logout"})
    throttles = {"register": throttles.REGISTER, "login": throttles.LOGIN}

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Returns the authentication that finds the session of the request, if it has one."""
        return [PresentedSession()]

    def register(self, request: Request) -> Response:
        """POST /auth/register"""
        body = read_body(RegisterBody, request)
        user, session = services.register_user(
            **body, address=throttles.address_digest(request), actor=_caller(request)
        )
        return self._signed_in(user, session, status=201)

    def login(self, request: Request) -> Response:
        """POST /auth/login"""
        body = read_body(LoginBody, request)
        user, session = services.log_in(
            **body,
            replaces=_presented(request),
            address=throttles.address_digest(request),
            actor=_caller(request),
        )
        return self._signed_in(user, session, status=200)

    def logout(self, request: Request) -> Response:
        """POST /auth/logout: works also without a session, and with one that has ended."""
        if principal := _presented(request):
            services.log_out(principal=principal, actor=_caller(request))
        response = Response(status=204, headers={"Clear-Site-Data": '"cache"'})
        clear_auth_cookie(response)
        return response

    def _signed_in(self, user: User, session: Session, *, status: int) -> Response:
        response = Response({"user": UserSerializer(user).data}, status=status)
        set_auth_cookie(response, session)
        return response


class MeViewSet(ApiViewSet):
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"retrieve": IsSignedIn, "change_password": IsSignedIn}
    throttles = {"change_password": throttles.CHANGE_PASSWORD}

    def retrieve(self, request: Request) -> Response:
        """GET /auth/me"""
        user = User.objects.get(id=principal_of(request).id)
        return Response({"user": UserSerializer(user).data})

    def change_password(self, request: Request) -> Response:
        """POST /auth/change-password: ends all sessions and gives this browser a new one."""
        session = services.change_password(
            **read_body(ChangePasswordBody, request),
            principal=_user(request),
            address=throttles.address_digest(request),
            actor=_caller(request),
        )
        response = Response(status=204)
        set_auth_cookie(response, session)
        return response


class UserLookupViewSet(ApiViewSet):
    """Finds a user by e-mail address, so that an admin can add them as a member."""

    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"lookup": IsSignedIn}
    throttles = {"lookup": throttles.FIND_USER}

    def lookup(self, request: Request) -> Response:
        """GET /users/lookup?email="""
        email = request.query_params.get("email")
        if not email:
            raise Invalid({"email": ["This parameter is required."]})
        try:
            user = services.find_user(read_email(email))
        except NotAnEmail as error:
            raise Invalid({"email": [str(error)]}) from None
        return Response({"user": {"id": user.id, "email": user.email, "name": user.name}})


def _user(request: Request) -> UserPrincipal:
    principal = principal_of(request)
    assert isinstance(principal, UserPrincipal), "the viewset accepts only cookies"
    return principal


def _caller(request: Request) -> Actor:
    """Returns an actor without an id, which the service fills in when it knows the user."""
    return Actor("user", None, address_of(request), current_request_id.get() or None)


def _presented(request: Request) -> UserPrincipal | None:
    """Returns the live session of the request, or None."""
    principal: object = request.user
    return principal if isinstance(principal, UserPrincipal) else None
