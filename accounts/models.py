"""The tables of users, their sessions, the staff's authenticators, and the mails about accounts."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now

from accounts.emails import NotAnEmail, read_email
from pipedai.ids import new_id
from pipedai.outgoing.kinds import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from pipedai.table_rules import check, has, index, lacks, unique


class UserManager(BaseUserManager["User"]):
    """Finds users by an e-mail address that somebody has typed."""

    def get_by_natural_key(self, username: str | None) -> "User":
        try:
            return self.get(email=read_email(username or ""))
        except NotAnEmail:
            raise self.model.DoesNotExist from None


class User(AbstractBaseUser):
    """A person with an account. `password`, from Django's base class, is the Argon2 hash of accounts/passwords.py."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The e-mail address by which the user logs in, in the form that `read_email` returns. The user may change it by
    # confirming another one. If another person proves that the address is theirs, a placeholder replaces it here.
    email = models.CharField(max_length=254, unique=True)
    # When the user confirmed that the address is theirs, by the link in a mail. For an account that the operator made,
    # this is the time at which it was made. None if nobody has confirmed the address.
    email_verified_at = models.DateTimeField(null=True)
    # Whether others can find the user by their address only after it is confirmed. Registration writes false if there
    # is no mail server at the time. Such accounts stay findable when there is one later.
    must_prove_email = models.BooleanField(default=False, db_default=False)
    # What the user wants to be called; registration writes it, and it may be empty.
    name = models.CharField(max_length=200, blank=True)
    # Whether the user may log in. False if staff deactivated the user (accounts/services.py).
    is_active = models.BooleanField(default=True)
    # Whether the user may log in to Django admin; `create_staff` sets it. It permits nothing under /api/v1.
    is_staff = models.BooleanField(default=False)
    # The IANA name of the time zone in which the user wants to see times; None if they have not said.
    timezone = models.CharField(max_length=64, null=True)
    # Whether this account may also log in to Django admin with its password while OIDC_ONLY is set. `create_staff
    # --password` sets it, so that somebody can log in when the issuer is away.
    password_allowed = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # Django's base class has a column `last_login`. None removes it, because the sessions say when a user logged in.
    last_login = None

    USERNAME_FIELD = "email"

    objects: ClassVar[UserManager] = UserManager()

    @property
    def has_proved_email(self) -> bool:
        return self.email_verified_at is not None

    @property
    def link(self) -> "Identity | None":
        """The account at the issuer that opens this one, if any."""
        return getattr(self, "identity", None)

    class Meta:
        db_table = "user_account"
        constraints = (check("user_account_email_is_lower_case", Q(email=Lower("email"))),)
        # The login page of Django admin finds by this index whether an account may use its password.
        indexes = (index("user_password_allowed", ["id"], where=Q(password_allowed=True)),)

    def __str__(self) -> str:
        return self.email

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return self.is_active and self.is_staff

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_active and self.is_staff


class Identity(models.Model):
    """A linked account: the account at the issuer with which a user signs in here."""

    # The issuer of OpenID Connect, as its ID tokens name it, and its id for the account. Unlike an e-mail address, this
    # id never changes and is never given to another person.
    issuer = models.CharField(max_length=2048)
    sub = models.CharField(max_length=255)
    # The user who signs in with the account at the issuer.
    user = models.OneToOneField(
        User, primary_key=True, on_delete=models.CASCADE, related_name="identity"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # The verified e-mail address that the issuer told last. The user's address follows only when the issuer tells
    # another one. None for a link of an older release that has not been used since.
    address = models.CharField(max_length=254, null=True)
    # When the user last signed in by the link; None if they have not, or not since an older release.
    last_used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "identity"
        constraints = (unique("identity_once", ["issuer", "sub"]),)


class Session(models.Model):
    """A user's login in one browser, to the API or to Django admin. The JWT in the cookie `auth_token` names a session
    of the API; the key in the cookie `staff_session` names one of admin, which alone has `key_digest` and `data`. The
    row outlives the session, because login throttles look up the addresses of earlier logins.
    """

    class Began(models.TextChoices):
        """How a session began."""

        # The user gave the password, or registered.
        PASSWORD = "password"  # noqa: S105
        # The user signed in at the issuer that the operator has named.
        SSO = "sso"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="sessions", db_index=False
    )
    # How the session began, which decides how long it lasts.
    began = models.CharField(
        max_length=8, choices=Began.choices, default=Began.PASSWORD, db_default=Began.PASSWORD
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the session expires: seven days after the login, twelve hours after a login at the issuer, eight hours in
    # Django admin. Use does not extend it.
    expires_at = models.DateTimeField()
    # The HMAC-SHA256 of the IP address from which the user logged in. The limit on failed logins to an account does not
    # apply to the addresses of its earlier logins.
    address_digest = models.BinaryField(max_length=32)
    # The IP address from which the user logged in, which the user sees in the list of their sessions. None if it is not
    # known.
    address = models.GenericIPAddressField(null=True)
    # The header User-Agent of the login, cut to 255 characters. Empty if there was none.
    user_agent = models.CharField(max_length=255, blank=True, default="", db_default="")
    # When a request of the API last used the session. Requests write it, at most every 10 s.
    last_used_at = models.DateTimeField(null=True)
    # When the session was ended before it expired: by logout, another login, a new password or the user's deactivation,
    # or by the user from another session. None if it was not.
    revoked_at = models.DateTimeField(null=True)
    # The SHA-256 of the key in the cookie of a session of Django admin, so that a copy of the database does not tell
    # the key. None for a session of the API.
    key_digest = models.BinaryField(max_length=32, unique=True, null=True)
    # The data that Django's session middleware stores in a session of Django admin, such as the user's id. It is empty
    # once the session has ended. None for a session of the API.
    data = models.JSONField(null=True)
    # The session of the API with which a session of Django admin began at the issuer, and with which it ends. It has no
    # foreign key, because either row may be pruned first. None for every other session.
    came_from = models.UUIDField(null=True)

    class Meta:
        db_table = "session"
        constraints = (
            check(
                "session_of_admin_has_key_and_data",
                lacks("key_digest", "data") | has("key_digest", "data"),
            ),
        )
        indexes = (
            index("session_live_of_user", ["user"], where=lacks("revoked_at")),
            # The throttles on logins ask for earlier logins from an address, most of which have ended.
            index("session_known_address", ["user", "address_digest", "created_at"]),
            index("session_expired", ["expires_at"]),
            index("session_from_another", ["came_from"], where=has("came_from")),
        )


class Authenticator(models.Model):
    """The authenticator app of a staff user (RFC 6238). Only accounts/authenticators.py writes these rows."""

    # The staff user to whom the authenticator app belongs.
    user = models.OneToOneField(
        User, primary_key=True, on_delete=models.CASCADE, related_name="authenticator"
    )
    # The secret that the service shares with the authenticator app. It is encrypted under a master key, and bound to
    # the user, so that a copy in another user's row can't be decrypted.
    secret = models.BinaryField()
    # The id, in the setting MASTER_KEYS, of the master key that encrypts `secret`. When a newer master key is set, the
    # scheduler encrypts the secret anew and writes both columns.
    master_key_id = models.CharField(max_length=64)
    # The time step of the last code that was accepted; time steps of 30 s are counted since 1970. Only codes of later
    # steps are accepted, so that no code works twice.
    last_step = models.BigIntegerField(default=0)
    # When the user began to set the authenticator up; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the user first entered a right code. From then on the login asks for codes. None if the set-up is not
    # finished.
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "authenticator"


class RecoveryCode(models.Model):
    """A code that a staff user who has lost their authenticator may enter once in place of its one-time password."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The authenticator in place of which the code may be used. Deleting the authenticator deletes the code.
    authenticator = models.ForeignKey(
        Authenticator, on_delete=models.CASCADE, related_name="recovery_codes", db_index=False
    )
    # The digest of the code. A fast hash is enough, because the code is random and too long to be guessed.
    code_digest = models.BinaryField(max_length=32)
    # When the user entered the code, which works only once. None if it is unused.
    used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "recovery_code"
        constraints = (unique("recovery_code_once", ["authenticator", "code_digest"]),)


class AccountMail(OutboxRow):
    """A mail about an account. The token in its link works once, for this purpose, address and account. It is stored
    nowhere: `accounts.mails` makes it when the mail is sent.
    """

    class Status(models.TextChoices):
        """Whether the mail still has to be sent, and how it ended."""

        PENDING = "pending"
        DELIVERED = "delivered"
        DEAD = "dead"
        # The mail is never sent. The person who caused it was shown its link, to hand it over to the owner.
        HANDED = "handed"

    class Purpose(models.TextChoices):
        """What the mail is for, and what its token permits."""

        # The token confirms that the address of the user is theirs.
        VERIFY = "verify"
        # The token makes `address` the new address of the user.
        CHANGE = "change"
        # The mail tells the old address that its account is about to get another one. It has no token.
        CHANGE_NOTICE = "change_notice"
        # The token permits one new password.
        RESET = "reset"
        # The token permits to register `address`, although a person who never confirmed it has an account with it.
        REGISTRATION = "registration"
        # The token accepts an invitation into an environment.
        INVITATION = "invitation"
        # The token links the account to the account at the issuer that `facts` names.
        LINK = "link"
        # The mail tells the owner of an account that it was linked. Its token undoes that.
        LINK_NOTICE = "link_notice"
        # The mail tells the old address that the account gets the one that the issuer tells now. Its token undoes that.
        FOLLOW_NOTICE = "follow_notice"
        # The mail tells the owner of an account that its link has ended. It has no token.
        UNLINK_NOTICE = "unlink_notice"

    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    # What the mail is for; it never changes.
    purpose = models.CharField(max_length=16, choices=Purpose.choices)
    # Where the mail goes. The token in it works only for this address.
    address = models.CharField(max_length=254)
    # The account that the mail is about. None for an invitation. None also if somebody asked for a new password at an
    # address without an account; that mail is never sent.
    user = models.ForeignKey(
        User, null=True, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    # Further words of the mail's text, such as the name of the environment in an invitation.
    facts = models.JSONField(default=dict)
    # The SHA-256 of the token. None for a mail without a token.
    token_digest = models.BinaryField(max_length=32, null=True, unique=True)
    # When the token stops working, by the database's clock. None for a mail without a token.
    expires_at = models.DateTimeField(null=True)
    # When the token was used, or became void by another act, such as a new password. None while it works.
    ended_at = models.DateTimeField(null=True)

    @property
    def proves_address(self) -> bool:
        """Returns whether the token proves the address, because only a reader of mails to it can have the token."""
        return self.status != self.Status.HANDED

    class Meta:
        db_table = "account_mail"
        verbose_name = "account mail"
        constraints = (
            *outbox_constraints(ended=("delivered", "dead", "handed")),
            check(
                "account_mail_token_expires",
                lacks("token_digest", "expires_at") | has("token_digest", "expires_at"),
            ),
        )
        indexes = (
            *outbox_indexes(of_environments=False),
            # Django admin's page of a user reads this index, and so does the code that makes a user's tokens void.
            index("account_mail_of_user", ["user", "created_at"]),
            index("account_mail_old", ["created_at"]),
        )


class AccountMailAttempt(SendAttempt):
    pk = models.CompositePrimaryKey("mail_id", "n")
    mail = models.ForeignKey(
        AccountMail, on_delete=models.CASCADE, related_name="attempts", db_index=False
    )

    class Meta:
        db_table = "account_mail_attempt"
        constraints = attempt_constraints("account_mail_attempt_ended_somehow")
