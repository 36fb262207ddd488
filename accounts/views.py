"""The endpoints by which users register, log in and out, look after their account, and find other users."""

from uuid import UUID

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import addresses, services, sessions, throttles
from accounts.emails import NotAnEmail, read_email
from accounts.models import Session, User
from accounts.registration import register_user
from accounts.serializers import (
    ChangeEmailBody,
    ChangePasswordBody,
    ForgotPasswordBody,
    FoundUserSerializer,
    LoginBody,
    MailTokenBody,
    RegisterBody,
    ResetPasswordBody,
    SessionSerializer,
    UserSerializer,
)
from accounts.sessions import (
    CookieJWTAuthentication,
    PresentedSession,
    clear_auth_cookie,
    device_of,
    open_session,
    set_auth_cookie,
)
from pipedai.api.errors import Invalid
from pipedai.api.principal import UserPrincipal, actor_of, address_of, principal_of
from pipedai.api.schema.operation import Operation, answer, query
from pipedai.api.serializers import read_body
from pipedai.api.views import ApiViewSet, IsPublic, IsSignedIn
from pipedai.events import Actor
from pipedai.ids import current_request_id

# The e-mail address and password in the OpenAPI document's examples of request bodies.
_CREDENTIALS = {"email": "ada@example.com", "password": "correct horse battery"}
_TOKEN = "acc_2jmGzT6n…"  # noqa: S105 - It stands in an example.
_COOKIE = ("Set-Cookie",)
SIGNED_IN = answer("SignedIn", "The signed-in user.", user=UserSerializer())


class SessionViewSet(ApiViewSet):
    tag = "Accounts"
    permissions = {"register": IsPublic, "login": IsPublic, "logout": IsPublic}
    browser_entries = frozenset({"register", "login", "logout"})
    throttles = {"register": throttles.REGISTER, "login": throttles.LOGIN}

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [PresentedSession()]

    @Operation(
        "POST /auth/register",
        id="register",
        summary="Register",
        body=RegisterBody,
        example={**_CREDENTIALS, "name": "Ada"},
        answers={201: SIGNED_IN},
        answer_headers={201: _COOKIE},
    )
    def register(self, request: Request) -> Response:
        body = read_body(RegisterBody, request)
        user, session = register_user(**body, device=device_of(request), actor=caller_of(request))
        return self._with_cookie(user, session, status=201)

    @Operation(
        "POST /auth/login",
        id="login",
        summary="Log in",
        body=LoginBody,
        example=_CREDENTIALS,
        answers={200: SIGNED_IN},
        answer_headers={200: _COOKIE},
    )
    def login(self, request: Request) -> Response:
        body = read_body(LoginBody, request)
        user, session = services.log_in(
            **body,
            replaces=_presented(request),
            device=device_of(request),
            actor=caller_of(request),
        )
        return self._with_cookie(user, session, status=200)

    @Operation(
        "POST /auth/logout",
        id="logout",
        summary="Log out",
        answer_headers={204: (*_COOKIE, "Clear-Site-Data")},
    )
    def logout(self, request: Request) -> Response:
        """Succeeds also if the session has ended already or the request came without one."""
        if principal := _presented(request):
            services.log_out(principal=principal, actor=caller_of(request))
        response = Response(status=204, headers={"Clear-Site-Data": '"cache"'})
        clear_auth_cookie(response)
        return response

    def _with_cookie(self, user: User, session: Session, *, status: int) -> Response:
        response = signed_in(user, status=status)
        set_auth_cookie(response, session)
        return response


class MeViewSet(ApiViewSet):
    tag = "Accounts"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"retrieve": IsSignedIn, "change_password": IsSignedIn}
    throttles = {"change_password": throttles.CHANGE_PASSWORD}

    @Operation(
        "GET /auth/me",
        id="getMe",
        summary="Who am I?",
        answers={200: SIGNED_IN},
    )
    def retrieve(self, request: Request) -> Response:
        user = User.objects.get(id=principal_of(request).id)
        return signed_in(user)

    @Operation(
        "POST /auth/change-password",
        id="changePassword",
        summary="Change the password",
        body=ChangePasswordBody,
        example={
            "currentPassword": _CREDENTIALS["password"],
            "newPassword": "another horse battery",
        },
        answer_headers={204: _COOKIE},
    )
    def change_password(self, request: Request) -> Response:
        session = services.change_password(
            **read_body(ChangePasswordBody, request),
            user_id=principal_of(request).id,
            actor=caller_of(request),
            enter=lambda user: open_session(user, device_of(request)),
        )
        response = Response(status=204)
        set_auth_cookie(response, session)
        return response


class ForgottenPasswordViewSet(ApiViewSet):
    """The endpoints for people who have forgotten their password. They have no session."""

    tag = "Accounts"
    permissions = {"forgot": IsPublic, "reset": IsPublic}
    browser_entries = frozenset({"forgot", "reset"})
    throttles = {"forgot": throttles.FORGOT_PASSWORD, "reset": throttles.RESET_PASSWORD}

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [PresentedSession()]

    @Operation(
        "POST /auth/forgot-password",
        id="forgotPassword",
        summary="Ask for a new password",
        body=ForgotPasswordBody,
        example={"email": "ada@example.com"},
        answers={202: None},
    )
    def forgot(self, request: Request) -> Response:
        services.forget_password(**read_body(ForgotPasswordBody, request))
        return Response(status=202)

    @Operation(
        "POST /auth/reset-password",
        id="resetPassword",
        summary="Set a new password by the token of a mail",
        body=ResetPasswordBody,
        example={"token": _TOKEN, "newPassword": "another horse battery"},
    )
    def reset(self, request: Request) -> Response:
        services.reset_password(**read_body(ResetPasswordBody, request), actor=caller_of(request))
        return Response(status=204)


class AddressViewSet(ApiViewSet):
    tag = "Accounts"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"verify": IsSignedIn, "resend": IsSignedIn, "change": IsSignedIn}
    throttles = {
        "verify": throttles.VERIFY_EMAIL,
        "resend": throttles.RESEND_VERIFICATION,
        "change": throttles.CHANGE_EMAIL,
    }

    @Operation(
        "POST /auth/verify-email",
        id="verifyEmail",
        summary="Confirm an e-mail address",
        body=MailTokenBody,
        example={"token": _TOKEN},
        answers={200: SIGNED_IN},
    )
    def verify(self, request: Request) -> Response:
        user = addresses.verify_email(
            **read_body(MailTokenBody, request),
            principal=user_of(request),
            actor=actor_of(request),
        )
        return signed_in(user)

    @Operation(
        "POST /auth/resend-verification",
        id="resendVerification",
        summary="Send the mail that confirms the address once more",
        answers={202: None},
    )
    def resend(self, request: Request) -> Response:
        addresses.resend_verification(principal=user_of(request), actor=actor_of(request))
        return Response(status=202)

    @Operation(
        "POST /auth/change-email",
        id="changeEmail",
        summary="Change the e-mail address",
        body=ChangeEmailBody,
        example={"newEmail": "ada@example.org", "currentPassword": "correct horse battery"},
        answers={202: None},
    )
    def change(self, request: Request) -> Response:
        addresses.change_email(
            **read_body(ChangeEmailBody, request),
            principal=user_of(request),
            actor=actor_of(request),
        )
        return Response(status=202)


class OwnSessionsViewSet(ApiViewSet):
    tag = "Accounts"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsSignedIn, "destroy": IsSignedIn, "revoke_others": IsSignedIn}

    @Operation(
        "GET /auth/sessions",
        id="listSessions",
        summary="List my sessions",
        items=SessionSerializer,
    )
    def list(self, request: Request) -> Response:
        principal = user_of(request)
        rows = sessions.live_sessions(principal.id)
        return self.page(request, rows, SessionSerializer, current=principal.session_id)

    @Operation(
        "DELETE /auth/sessions/{sessionId}",
        id="endSession",
        summary="End one of my sessions",
    )
    def destroy(self, request: Request, session_id: UUID) -> Response:
        """Ends a session, at once. The cookie goes too if it is the request's own."""
        principal = user_of(request)
        sessions.end_session(principal=principal, session_id=session_id, actor=actor_of(request))
        response = Response(status=204)
        if session_id == principal.session_id:
            clear_auth_cookie(response)
        return response

    @Operation(
        "POST /auth/sessions/revoke-others",
        id="endOtherSessions",
        summary="End all my sessions but this one",
    )
    def revoke_others(self, request: Request) -> Response:
        sessions.end_other_sessions(principal=user_of(request), actor=actor_of(request))
        return Response(status=204)


class UserLookupViewSet(ApiViewSet):
    tag = "Accounts"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"lookup": IsSignedIn}
    throttles = {"lookup": throttles.FIND_USER}

    @Operation(
        "GET /users/lookup",
        id="lookUpUser",
        summary="Find a user by address",
        parameters=(
            query(
                "email",
                {"type": "string", "minLength": 1},
                description="The whole address; its case does not matter.",
                required=True,
            ),
        ),
        answers={
            200: answer(
                "Lookup",
                "The user who was looked for.",
                user=FoundUserSerializer(),
            )
        },
    )
    def lookup(self, request: Request) -> Response:
        email = request.query_params.get("email")
        if not email:
            raise Invalid({"email": ["This parameter is required."]})
        try:
            user = services.find_user(read_email(email))
        except NotAnEmail as error:
            raise Invalid({"email": [str(error)]}) from None
        return Response({"user": FoundUserSerializer(user).data})


def signed_in(user: User, *, status: int = 200) -> Response:
    return Response({"user": UserSerializer(user).data}, status=status)


def user_of(request: Request) -> UserPrincipal:
    principal = principal_of(request)
    assert isinstance(principal, UserPrincipal), "the viewset accepts only cookies"
    return principal


def caller_of(request: Request) -> Actor:
    """It has no user id yet, because nobody has logged in; the service adds the id."""
    return Actor("user", None, address_of(request), current_request_id.get() or None)


def _presented(request: Request) -> UserPrincipal | None:
    principal: object = request.user
    return principal if isinstance(principal, UserPrincipal) else None
