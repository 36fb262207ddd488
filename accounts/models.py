"""The tables of users and their browser sessions, and of the staff's sessions and authenticators for Django admin."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower, Now

from accounts.emails import NotAnEmail, read_email
from pipedai.ids import new_id


class UserManager(BaseUserManager["User"]):
    """Makes users and finds them by e-mail, whatever its case."""

    def get_by_natural_key(self, username: str | None) -> "User":
        """Returns the user with this e-mail address. Raises User.DoesNotExist."""
        try:
            return self.get(email=read_email(username or ""))
        except NotAnEmail:
            raise self.model.DoesNotExist from None


class User(AbstractBaseUser):
    """A person with an account.

    The column `password` comes from Django's base class: it is an Argon2 hash, which registration, password changes and
    logins that replace an old hash write (accounts/passwords.py).
    """

    # A UUIDv7, which the service makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The e-mail address by which the user logs in, in the spelling that `read_email` returns. It never changes.
    email = models.CharField(max_length=254, unique=True)
    # What the user wants to be called; registration writes it, and it may be empty.
    name = models.CharField(max_length=200, blank=True)
    # False: staff deactivated the user, who can't log in any more (accounts/deactivation.py).
    is_active = models.BooleanField(default=True)
    # Whether the user may log in to Django admin; `create_staff` sets it. It permits nothing under /api/v1.
    is_staff = models.BooleanField(default=False)
    # When the user registered; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # The base class has this column and this table does not: the sessions say when a user logged in.
    last_login = None

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
        """Staff have every permission that Django admin asks for."""
        return self.is_active and self.is_staff

    def has_module_perms(self, app_label: str) -> bool:
        """Staff see every app in Django admin."""
        return self.is_active and self.is_staff


class Session(models.Model):
    """A browser's session of the API. The JWT in the `auth_token` cookie names it and is valid only until it ends.

    The scheduler deletes the row some time after its end, since it tells which addresses the user has logged in from.
    """

    # A UUIDv7, which the login makes and the JWT carries.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The user who logged in.
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="sessions", db_index=False
    )
    # When the user logged in; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When it ends by itself: seven days after the login, whatever happens in it.
    expires_at = models.DateTimeField()
    # The HMAC-SHA256 of the IP address from which the user logged in: the limit on failed logins to an account does not
    # apply to addresses that its user has logged in from. None for sessions that are older than this column.
    address_digest = models.BinaryField(max_length=32, null=True)
    # When it was ended early: by logout, another login, a new password or the user's deactivation. None: it was not.
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
    """A staff user's session of Django admin, which the `staff_session` cookie names. It permits nothing under /api/v1.

    The row of a session that has ended stays for a month without its data, since it tells which addresses the user has
    logged in from.
    """

    # A UUIDv7, which the login makes. It is no secret: the cookie carries another key.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The SHA-256 of the key in the cookie, so that nobody can use a session who has a copy of the database.
    key_digest = models.BinaryField(max_length=32, unique=True)
    # The staff user who logged in.
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="staff_sessions", db_index=False
    )
    # What Django keeps in a session, such as the user's id; the session middleware writes it. Empty once it has ended.
    data = models.JSONField(default=dict)
    # The HMAC-SHA256 of the IP address from which the user logged in; see Session.address_digest.
    address_digest = models.BinaryField(max_length=32)
    # When the user logged in; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When it ends by itself: eight hours after the login, whatever happens in it.
    expires_at = models.DateTimeField()
    # When it was ended early: by logout, a new password or the user's deactivation. None: it was not.
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "staff_session"
        indexes = (
            models.Index(fields=["user", "created_at"], name="staff_session_of_user"),
            models.Index(fields=["expires_at"], name="staff_session_expired"),
        )


class Authenticator(models.Model):
    """The app with which a staff user makes one-time passwords (RFC 6238).

    Setting it up makes the row and removing it deletes the row; accounts/authenticators.py alone writes it.
    """

    # The staff user whose app it is.
    user = models.OneToOneField(
        User, primary_key=True, on_delete=models.CASCADE, related_name="authenticator"
    )
    # The secret that the service shares with the app, encrypted under a master key and bound to the user.
    secret = models.BinaryField()
    # The id in MASTER_KEYS of the master key that encrypts `secret`. When there is a newer one, the scheduler replaces
    # both columns.
    master_key_id = models.CharField(max_length=64)
    # The time step (30 s each, since 1970) of the last code that was accepted. Only codes of later steps are accepted
    # from then on, so that no code works twice.
    last_step = models.BigIntegerField(default=0)
    # When the user began to set it up; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the user entered a first right code: from then on the login asks for one. None: it is not set up yet.
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "authenticator"


class RecoveryCode(models.Model):
    """A code that a staff user may enter once instead of one of their authenticator, if they have lost it."""

    # A UUIDv7, which the service makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The authenticator that it replaces, with which it is deleted.
    authenticator = models.ForeignKey(
        Authenticator, on_delete=models.CASCADE, related_name="recovery_codes", db_index=False
    )
    # The digest of the code. The code is so random that nobody can guess it, so a fast hash is enough.
    code_digest = models.BinaryField(max_length=32)
    # When the user entered it, after which it is refused. None: it is unused.
    used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "recovery_code"
        constraints = (
            models.UniqueConstraint(
                fields=["authenticator", "code_digest"], name="recovery_code_once"
            ),
        )
