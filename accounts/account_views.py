"""The endpoints for proving and changing an address, for a new password, and for ending sessions (SPEC §15)."""

from uuid import UUID

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import addresses, services, sessions, throttles
from accounts.serializers import (
    ChangeEmailBody,
    ForgotPasswordBody,
    MailTokenBody,
    ResetPasswordBody,
    SessionSerializer,
)
from accounts.sessions import CookieJWTAuthentication, PresentedSession, clear_auth_cookie
from accounts.views import SIGNED_IN, caller_of, signed_in, user_of
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from pipedai.api.views import ApiViewSet, IsPublic, IsSignedIn

_TOKEN = "acc_2jmGzT6n…"  # noqa: S105 - It stands in an example.


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
        answers={204: None},
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
        answers={204: None},
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
        answers={204: None},
    )
    def revoke_others(self, request: Request) -> Response:
        sessions.end_other_sessions(principal=user_of(request), actor=actor_of(request))
        return Response(status=204)
