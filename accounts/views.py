"""The endpoints by which users register, log in and out, look after their account, and find other users."""

from typing import Any
from uuid import UUID

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import addresses, own_account, services, sessions, throttles, unlinking
from accounts.emails import NotAnEmail, read_email
from accounts.models import Session, User
from accounts.registration import register_user
from accounts.serializers import (
    AccountBody,
    ChangeEmailBody,
    ChangePasswordBody,
    ForgotPasswordBody,
    FoundUserSerializer,
    LoginBody,
    MailTokenBody,
    OwnPasswordBody,
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
from pipedai.api.principal import UserPrincipal, actor_from, actor_of, principal_of
from pipedai.api.schema.operation import Operation, answer, query
from pipedai.api.serializers import Values
from pipedai.api.views import ApiViewSet, IsPublic, IsSignedIn
from pipedai.events import Actor

# The e-mail address and password in the OpenAPI document's examples of request bodies.
_CREDENTIALS = {"email": "ada@example.com", "password": "correct horse battery"}
_TOKEN = "acc_2jmGzT6n…"  # noqa: S105 - It stands in an example.
_COOKIE = ("Set-Cookie",)
SIGNED_IN = answer("SignedIn", "The signed-in user.", user=UserSerializer())


class EntryViewSet(ApiViewSet):
    """What people may do who have no session yet, or who have forgotten their password."""

    tag = "Accounts"
    permissions = dict.fromkeys(
        ("register", "login", "logout", "forgot", "reset", "undo_link"), IsPublic
    )
    browser_entries = frozenset(permissions)
    throttles = {
        "register": throttles.REGISTER,
        "login": throttles.LOGIN,
        "forgot": throttles.FORGOT_PASSWORD,
        "reset": throttles.RESET_PASSWORD,
        "undo_link": throttles.UNDO_LINK,
    }

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
    def register(self, request: Request, body: Values) -> Response:
        user, session = register_user(**body, device=device_of(request), actor=caller_of(request))
        return entered(user, session, status=201)

    @Operation(
        "POST /auth/login",
        id="login",
        summary="Log in",
        body=LoginBody,
        example=_CREDENTIALS,
        answers={200: SIGNED_IN},
        answer_headers={200: _COOKIE},
    )
    def login(self, request: Request, body: Values) -> Response:
        user, session = services.log_in(
            **body,
            replaces=presented_by(request),
            device=device_of(request),
            actor=caller_of(request),
        )
        return entered(user, session)

    @Operation(
        "POST /auth/logout",
        id="logout",
        summary="Log out",
        answer_headers={204: (*_COOKIE, "Clear-Site-Data")},
    )
    def logout(self, request: Request) -> Response:
        """Succeeds also if the session has ended already or the request came without one."""
        if principal := presented_by(request):
            services.log_out(principal=principal, actor=caller_of(request))
        return clear_auth_cookie(Response(status=204, headers={"Clear-Site-Data": '"cache"'}))

    @Operation(
        "POST /auth/forgot-password",
        id="forgotPassword",
        summary="Ask for a new password",
        body=ForgotPasswordBody,
        example={"email": "ada@example.com"},
        answers={202: None},
    )
    def forgot(self, request: Request, body: Values) -> None:
        services.forget_password(**body)

    @Operation(
        "POST /auth/reset-password",
        id="resetPassword",
        summary="Set a new password by the token of a mail",
        body=ResetPasswordBody,
        example={"token": _TOKEN, "newPassword": "another horse battery"},
    )
    def reset(self, request: Request, body: Values) -> None:
        services.reset_password(**body, actor=caller_of(request))

    @Operation(
        "POST /auth/undo-link",
        id="undoLink",
        summary="Undo the link to the issuer by the token of a mail",
        body=MailTokenBody,
        example={"token": _TOKEN},
    )
    def undo_link(self, request: Request, body: Values) -> None:
        unlinking.undo_link(**body, actor=caller_of(request))


class AccountViewSet(ApiViewSet):
    """What a signed-in user may do about their own account, and how they find other users."""

    tag = "Accounts"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = dict.fromkeys(
        (
            "me",
            "update",
            "destroy",
            "unlink",
            "change_password",
            "verify",
            "resend",
            "change_email",
            "list_sessions",
            "end_session",
            "end_other_sessions",
            "lookup",
        ),
        IsSignedIn,
    )
    throttles = {
        "change_password": throttles.CHANGE_PASSWORD,
        "destroy": throttles.CHANGE_PASSWORD,
        "unlink": throttles.CHANGE_PASSWORD,
        "verify": throttles.VERIFY_EMAIL,
        "resend": throttles.RESEND_VERIFICATION,
        "change_email": throttles.CHANGE_EMAIL,
        "lookup": throttles.FIND_USER,
    }

    @Operation(
        "GET /auth/me",
        id="getMe",
        summary="Who am I?",
        answers={200: SIGNED_IN},
    )
    def me(self, request: Request) -> Any:
        users = User.objects.select_related("identity")
        return {"user": users.get(id=principal_of(request).id)}

    @Operation(
        "PATCH /auth/me",
        id="updateMe",
        summary="Change my name or time zone",
        body=AccountBody,
        example={"name": "Ada Lovelace", "timezone": "Europe/London"},
        answers={200: SIGNED_IN},
    )
    def update(self, request: Request, body: Values) -> Any:
        user = own_account.update_account(
            principal=user_of(request), values=body, actor=actor_of(request)
        )
        return {"user": user}

    @Operation(
        "DELETE /auth/me",
        id="deleteMe",
        summary="Delete my account",
        body=OwnPasswordBody,
        example={"password": _CREDENTIALS["password"]},
        answer_headers={204: _COOKIE},
    )
    def destroy(self, request: Request, body: Values) -> Response:
        own_account.delete_account(**body, principal=user_of(request), actor=actor_of(request))
        return clear_auth_cookie(Response(status=204))

    @Operation(
        "DELETE /auth/me/single-sign-on",
        id="unlinkMe",
        summary="End the link of my account to the issuer",
        body=OwnPasswordBody,
        example={"password": _CREDENTIALS["password"]},
    )
    def unlink(self, request: Request, body: Values) -> Response:
        """Ends the link, and the sessions that began by it. The cookie goes too if the request's own is one of them."""
        goes_on = unlinking.unlink(**body, principal=user_of(request), actor=actor_of(request))
        response = Response(status=204)
        return response if goes_on else clear_auth_cookie(response)

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
    def change_password(self, request: Request, body: Values) -> Response:
        session = services.change_password(
            **body,
            user_id=principal_of(request).id,
            actor=caller_of(request),
            enter=lambda user: open_session(user, device_of(request)),
        )
        return set_auth_cookie(Response(status=204), session)

    @Operation(
        "POST /auth/verify-email",
        id="verifyEmail",
        summary="Confirm an e-mail address",
        body=MailTokenBody,
        example={"token": _TOKEN},
        answers={200: SIGNED_IN},
    )
    def verify(self, request: Request, body: Values) -> Any:
        user = addresses.verify_email(**body, principal=user_of(request), actor=actor_of(request))
        return {"user": user}

    @Operation(
        "POST /auth/resend-verification",
        id="resendVerification",
        summary="Send the mail that confirms the e-mail address once more",
        answers={202: None},
    )
    def resend(self, request: Request) -> None:
        addresses.resend_verification(principal=user_of(request), actor=actor_of(request))

    @Operation(
        "POST /auth/change-email",
        id="changeEmail",
        summary="Change the e-mail address",
        body=ChangeEmailBody,
        example={"newEmail": "ada@example.org", "currentPassword": "correct horse battery"},
        answers={202: None},
    )
    def change_email(self, request: Request, body: Values) -> None:
        addresses.change_email(**body, principal=user_of(request), actor=actor_of(request))

    @Operation(
        "GET /auth/sessions",
        id="listSessions",
        summary="List my sessions",
        items=SessionSerializer,
    )
    def list_sessions(self, request: Request) -> Response:
        principal = user_of(request)
        rows = sessions.live_sessions(principal.id)
        return self.page(request, rows, SessionSerializer, current=principal.session_id)

    @Operation(
        "DELETE /auth/sessions/{sessionId}",
        id="endSession",
        summary="End one of my sessions",
    )
    def end_session(self, request: Request, session_id: UUID) -> Response:
        """Ends a session, at once. The cookie goes too if it is the request's own."""
        principal = user_of(request)
        sessions.end_session(principal=principal, session_id=session_id, actor=actor_of(request))
        response = Response(status=204)
        return clear_auth_cookie(response) if session_id == principal.session_id else response

    @Operation(
        "POST /auth/sessions/revoke-others",
        id="endOtherSessions",
        summary="End all my sessions but this one",
    )
    def end_other_sessions(self, request: Request) -> None:
        sessions.end_other_sessions(principal=user_of(request), actor=actor_of(request))

    @Operation(
        "GET /users/lookup",
        id="lookUpUser",
        summary="Find a user by e-mail address",
        parameters=(
            query(
                "email",
                {"type": "string", "minLength": 1},
                description="The whole e-mail address; its case does not matter.",
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
    def lookup(self, request: Request) -> Any:
        email = request.query_params.get("email")
        if not email:
            raise Invalid({"email": ["This parameter is required."]})
        try:
            user = services.find_user(read_email(email))
        except NotAnEmail as error:
            raise Invalid({"email": [str(error)]}) from None
        return {"user": user}


def entered(user: User, session: Session, *, status: int = 200, **more: str) -> Response:
    """Returns the answer to a person who has just got a session, with the session's cookie."""
    return set_auth_cookie(
        Response({"user": UserSerializer(user).data, **more}, status=status), session
    )


def user_of(request: Request) -> UserPrincipal:
    principal = principal_of(request)
    assert isinstance(principal, UserPrincipal), "the viewset accepts only cookies"
    return principal


def caller_of(request: Request) -> Actor:
    """Returns the actor of a request before its login. The service adds the user's id afterwards."""
    return actor_from(request, "user")


def presented_by(request: Request) -> UserPrincipal | None:
    principal: object = request.user
    return principal if isinstance(principal, UserPrincipal) else None
