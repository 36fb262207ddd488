"""Describes the account endpoints for the OpenAPI schema."""

from typing import Any

from rest_framework import serializers

from accounts.models import User
from accounts.serializers import ChangePasswordBody, LoginBody, RegisterBody, UserSerializer
from accounts.views import MeViewSet, SessionViewSet, UserLookupViewSet
from pipedai.api.schema.operation import Operation, describe
from pipedai.api.schema.parameters import query

_CREDENTIALS = {"email": "ada@example.com", "password": "correct horse battery"}
_COOKIE = ("Set-Cookie",)


class SignedInSerializer(serializers.Serializer[Any]):
    """The signed-in user."""

    user = UserSerializer()


class FoundUserSerializer(serializers.ModelSerializer[User]):
    """A user as others find them."""

    class Meta:
        model = User
        fields = ("id", "email", "name")


class LookupSerializer(serializers.Serializer[Any]):
    """The user who was looked for."""

    user = FoundUserSerializer()


describe(
    SessionViewSet,
    "Accounts",
    register=Operation(
        id="register",
        summary="Register",
        body=RegisterBody,
        example={**_CREDENTIALS, "name": "Ada"},
        answers={201: SignedInSerializer},
        answer_headers={201: _COOKIE},
        errors=frozenset({409, 503}),
        audit=("user.registered",),
    ),
    login=Operation(
        id="login",
        summary="Log in",
        body=LoginBody,
        example=_CREDENTIALS,
        answers={200: SignedInSerializer},
        answer_headers={200: _COOKIE},
        errors=frozenset({503}),
        audit=("user.logged-in", "user.login-failed"),
    ),
    logout=Operation(
        id="logout",
        summary="Log out",
        answers={204: None},
        answer_headers={204: (*_COOKIE, "Clear-Site-Data")},
        audit=("user.logged-out",),
    ),
)
describe(
    MeViewSet,
    "Accounts",
    retrieve=Operation(id="getMe", summary="Who am I?", answers={200: SignedInSerializer}),
    change_password=Operation(
        id="changePassword",
        summary="Change the password",
        body=ChangePasswordBody,
        example={
            "currentPassword": _CREDENTIALS["password"],
            "newPassword": "another horse battery",
        },
        answers={204: None},
        answer_headers={204: _COOKIE},
        errors=frozenset({503}),
        audit=("user.password-changed",),
    ),
)
describe(
    UserLookupViewSet,
    "Accounts",
    lookup=Operation(
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
        answers={200: LookupSerializer},
        errors=frozenset({404}),
    ),
)
