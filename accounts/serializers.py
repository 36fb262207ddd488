"""Bodies of the auth endpoints, and the user as it goes out."""

from rest_framework import serializers

from accounts.models import User
from pipedai.api.fields import NameField, TextField
from pipedai.api.serializers import StrictBody

# Argon2 hashes anything; a bound keeps a megabyte of password from costing a second of CPU.
_MAX_PASSWORD = 1024


class EmailField(serializers.EmailField):
    """An e-mail address of at most 254 characters (RFC 5321)."""

    def __init__(self) -> None:
        super().__init__(max_length=254)


class RegisterBody(StrictBody):
    """POST /auth/register."""

    email = EmailField()
    password = TextField(max_length=_MAX_PASSWORD, trim_whitespace=False)
    name = NameField(max_length=200, required=False, allow_blank=True, default="")


class LoginBody(StrictBody):
    """POST /auth/login."""

    email = TextField(max_length=254)
    password = TextField(max_length=_MAX_PASSWORD, trim_whitespace=False)


class ChangePasswordBody(StrictBody):
    """POST /auth/change-password."""

    currentPassword = TextField(
        source="current_password", max_length=_MAX_PASSWORD, trim_whitespace=False
    )
    newPassword = TextField(source="new_password", max_length=_MAX_PASSWORD, trim_whitespace=False)


class UserSerializer(serializers.ModelSerializer[User]):
    """A user to themselves."""

    createdAt = serializers.DateTimeField(source="created_at")

    class Meta:
        model = User
        fields = ("id", "email", "name", "createdAt")
