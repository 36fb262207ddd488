"""Users, their browser sessions, and what opens Django admin to staff."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower, Now

from accounts.emails import NotAnEmail, read_email
from pipedai.ids import new_id


class UserManager(BaseUserManager["User"]):
    """Makes users and finds them by e-mail, whatever its case."""

    def get_by_natural_key(self, username: str | None) -> "User":
        """The user with this e-mail address. Raises User.DoesNotExist."""
        try:
            return self.get(email=read_email(username or ""))
        except NotAnEmail:
            raise self.model.DoesNotExist from None


class User(AbstractBaseUser):
    """A person. `is_staff` opens Django admin and nothing under /api/v1."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    email = models.CharField(max_length=254, unique=True)  # stored as `read_email` spells it
    name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_login = None  # sessions tell

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        db_table = "user_account"
        constraints = (
            models.CheckConstraint(
                condition=models.Q(email=Lower("email")), name="user_account_email_is_lower_case"
            ),
        )

    def __str__(self) -> str:
        return self.email

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Staff may do in admin whatever admin offers."""
        return self.is_active and self.is_staff

    def has_module_perms(self, app_label: str) -> bool:
        """As `has_perm`."""
        return self.is_active and self.is_staff


class Session(models.Model):
    """What an `auth_token` cookie stands for: the JWT names it, and it alone says whether the JWT still counts."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="sessions", db_index=False
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    # An HMAC of the address it was opened from: an account's login limit never locks that address out.
    address_digest = models.BinaryField(max_length=32, null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "session"
        verbose_name = "API session"
        indexes = (
            models.Index(
                fields=["user"],
                name="session_live_of_user",
                condition=models.Q(revoked_at__isnull=True),
            ),
            models.Index(fields=["expires_at"], name="session_expired"),
        )


class StaffSession(models.Model):
    """What a `staff_session` cookie stands for: it opens Django admin, and nothing under /api/v1.

    Only the digest of its key is here, so that a copy of the database opens nothing. An ended session's row stays for
    a month without its data, to tell an address that its user has logged in from.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    key_digest = models.BinaryField(max_length=32, unique=True)
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="staff_sessions", db_index=False
    )
    data = models.JSONField(default=dict)
    address_digest = models.BinaryField(max_length=32)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "staff_session"
        indexes = (
            models.Index(fields=["user", "created_at"], name="staff_session_of_user"),
            models.Index(fields=["expires_at"], name="staff_session_expired"),
        )


class Authenticator(models.Model):
    """A staff user's time-based one-time passwords (RFC 6238); asked for at login once confirmed."""

    user = models.OneToOneField(
        User, primary_key=True, on_delete=models.CASCADE, related_name="authenticator"
    )
    secret = models.BinaryField()  # wrapped under a master key, bound to the user
    master_key_id = models.CharField(max_length=64)
    # The time step of the last code that was accepted: no code counts twice.
    last_step = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "authenticator"


class RecoveryCode(models.Model):
    """Stands in for a lost authenticator, once. Random enough that its digest needs no slow hash."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    authenticator = models.ForeignKey(
        Authenticator, on_delete=models.CASCADE, related_name="recovery_codes", db_index=False
    )
    code_digest = models.BinaryField(max_length=32)
    used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "recovery_code"
        constraints = (
            models.UniqueConstraint(
                fields=["authenticator", "code_digest"], name="recovery_code_once"
            ),
        )
