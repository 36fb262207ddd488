from typing import Any

from django.utils.http import url_has_allowed_host_and_scheme
from rest_framework import serializers

from accounts.emails import Email, NotAnEmail, looks_like_itself, read_email
from accounts.models import Identity, Session, User
from pipedai.api.fields import NameField, TextField, TimezoneField
from pipedai.api.serializers import NamedSerializer, StrictBody

# The longest password that is accepted, in characters. Hashing a megabyte would cost a second of CPU.
_MAX_PASSWORD = 1024


class EmailField(TextField):
    """The e-mail address of an account, of at most 254 characters (RFC 5321)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=254, **options)

    def to_internal_value(self, data: Any) -> Email:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return _read(data)


class NewEmailField(serializers.EmailField):
    """The e-mail address that an account is about to get, of at most 254 characters (RFC 5321)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=254, **options)

    def to_internal_value(self, data: Any) -> Email:
        """Raises a field error for a text that is no address, or that looks like another address."""
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


def _password(**options: Any) -> TextField:
    return TextField(max_length=_MAX_PASSWORD, trim_whitespace=False, **options)


def _mail_token(**options: Any) -> TextField:
    """Returns the field for the token of a mail. A malformed token is refused when it is looked up."""
    return TextField(max_length=255, **options)


def _code() -> TextField:
    return TextField(max_length=64, allow_blank=True, default="")


class RegisterBody(StrictBody):
    email = NewEmailField()
    password = _password()
    name = NameField(max_length=200, allow_blank=True, default="")
    registrationToken = _mail_token(required=False)
    invitationToken = _mail_token(required=False)


class MailTokenBody(StrictBody):
    token = _mail_token()


class ForgotPasswordBody(StrictBody):
    email = EmailField()


class ResetPasswordBody(StrictBody):
    token = _mail_token()
    newPassword = _password()


class ChangeEmailBody(StrictBody):
    newEmail = NewEmailField()
    currentPassword = _password()


class LoginBody(StrictBody):
    email = EmailField()
    password = _password()


class ChangePasswordBody(StrictBody):
    currentPassword = _password()
    newPassword = _password()


class AccountBody(StrictBody):
    name = NameField(max_length=200, allow_blank=True, required=False)
    timezone = TimezoneField(required=False, allow_null=True)


class OwnPasswordBody(StrictBody):
    password = _password(allow_blank=True, default="")


class BeginBody(StrictBody):
    next = TextField(max_length=1024, default="/console/")

    def validate_next(self, path: str) -> str:
        if not path.startswith("/") or not url_has_allowed_host_and_scheme(path, None):
            raise serializers.ValidationError("Must be a path of this service.")
        return path


class FinishBody(StrictBody):
    """What the browser brings from the issuer."""

    state, code, iss, error = (
        TextField(max_length=4096, allow_blank=True, default="") for _ in range(4)
    )


class LinkBody(StrictBody):
    password = _password()
    code = _code()


class LinkByMailBody(MailTokenBody):
    code = _code()


class LinkSerializer(NamedSerializer):
    """The link of an account to the issuer."""

    of = Identity
    shows = "issuer linkedAt lastUsedAt address"
    linkedAt = serializers.DateTimeField(source="created_at")


class UserSerializer(NamedSerializer):
    """A user, as the API shows them to themselves."""

    of = User
    shows = "id email emailVerified name timezone hasPassword singleSignOn createdAt"
    emailVerified = serializers.BooleanField(source="has_proved_email")
    hasPassword = serializers.BooleanField(source="has_usable_password")
    singleSignOn = LinkSerializer(source="link", allow_null=True)


class SessionSerializer(NamedSerializer):
    """A live session, as its user sees it."""

    of = Session
    shows = "id began createdAt lastUsedAt address userAgent current"
    address = serializers.CharField(allow_null=True)
    current = serializers.SerializerMethodField()

    def get_current(self, session: Session) -> bool:
        return bool(session.id == self.context["current"])


class FoundUserSerializer(NamedSerializer):
    """A user as the API shows them to another person who looks them up by e-mail address."""

    of = User
    shows = "id email name"
