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
        says={201: "With the cookie."},
        errors={
            400: "Validation.",
            401: "A token or two cookies were sent.",
            409: "The address is taken.",
            503: "",
        },
        audit=("user.registered",),
    ),
    login=Operation(
        id="login",
        summary="Log in",
        body=LoginBody,
        example=_CREDENTIALS,
        answers={200: SignedInSerializer},
        answer_headers={200: _COOKIE},
        says={
            200: (
                'With `{ "user": { … } }` and a cookie for a new session; the session that came with '
                "the request ends."
            ),
        },
        errors={
            400: "Validation.",
            401: (
                "Wrong address or password, or a deactivated user: it says the same, and takes as "
                "long."
            ),
            503: "",
        },
        audit=("user.logged-in", "user.login-failed"),
    ),
    logout=Operation(
        id="logout",
        summary="Log out",
        answers={204: None},
        answer_headers={204: (*_COOKIE, "Clear-Site-Data")},
        says={204: 'With `Clear-Site-Data: "cache"`.'},
        errors={401: "A token or two cookies were sent."},
        audit=("user.logged-out",),
    ),
)
describe(
    MeViewSet,
    "Accounts",
    retrieve=Operation(
        id="getMe",
        summary="Who am I?",
        answers={200: SignedInSerializer},
        says={200: 'With `{ "user": { … } }`.'},
        errors={401: "Without a live session."},
    ),
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
        errors={400: "Validation, or the current password is wrong.", 503: ""},
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
        errors={400: "Without `email`, or one with a NUL character.", 404: "Nobody."},
    ),
)
