"""Reads the bodies of the auth endpoints, and renders users."""

from typing import Any

from rest_framework import serializers

from accounts.emails import Email, NotAnEmail, looks_like_itself, read_email
from accounts.models import User
from pipedai.api.fields import NameField, TextField
from pipedai.api.serializers import StrictBody

# The longest password that is accepted, in characters. Hashing a megabyte would cost a second of CPU.
_MAX_PASSWORD = 1024


class EmailField(TextField):
    """The e-mail address of an account, of at most 254 characters (RFC 5321)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=254, **options)

    def to_internal_value(self, data: Any) -> Email:
        """Returns the address in the spelling of stored accounts. Raises a field error if it is no address."""
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return _read(data)


class NewEmailField(serializers.EmailField):
    """The e-mail address of an account that is about to be made, of at most 254 characters (RFC 5321)."""

    def __init__(self) -> None:
        super().__init__(max_length=254)

    def to_internal_value(self, data: Any) -> Email:
        """Returns the address in the spelling of stored accounts. Raises a field error if it is no address, or if it
        could be mistaken for another one that looks the same.
        """
        if not isinstance(data, str):
            self.fail("invalid")
        email = _read(data)
        if not looks_like_itself(email):
            self.fail("invalid")
        return email


def _read(text: str) -> Email:
    try:
        return read_email(text)
    except NotAnEmail as error:
        raise serializers.ValidationError(str(error)) from None


class RegisterBody(StrictBody):
    """The body of POST /auth/register."""

    email = NewEmailField()
    password = TextField(max_length=_MAX_PASSWORD, trim_whitespace=False)
    name = NameField(max_length=200, required=False, allow_blank=True, default="")


class LoginBody(StrictBody):
    """The body of POST /auth/login."""

    email = EmailField()
    password = TextField(max_length=_MAX_PASSWORD, trim_whitespace=False)


class ChangePasswordBody(StrictBody):
    """The body of POST /auth/change-password."""

    currentPassword = TextField(
        source="current_password", max_length=_MAX_PASSWORD, trim_whitespace=False
    )
    newPassword = TextField(source="new_password", max_length=_MAX_PASSWORD, trim_whitespace=False)


class UserSerializer(serializers.ModelSerializer[User]):
    """A user, as the API shows them to themselves."""

    createdAt = serializers.DateTimeField(source="created_at")

    class Meta:
        model = User
        fields = ("id", "email", "name", "createdAt")


class FoundUserSerializer(serializers.ModelSerializer[User]):
    """A user as the API shows them to another person who looks them up by e-mail address."""

    class Meta:
        model = User
        fields = ("id", "email", "name")
