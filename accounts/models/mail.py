"""The outbox of the mails about accounts, with the one-time tokens that these mails carry (SPEC §15)."""

from django.db import models
from django.db.models import Q

from accounts.models.people import User
from pipedai.outgoing import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)


class AccountMail(OutboxRow):
    """A mail about an account, and the one-time token in its link if it has one.

    The token itself is stored nowhere. `accounts.mail.tokens` makes it from the row's id and the service's secret when
    the mail is sent. The token works once, and only for this purpose, address and account.
    """

    class Purpose(models.TextChoices):
        """What the mail is for, and what its token permits."""

        # The token proves that the address of the user is theirs.
        VERIFY = "verify"
        # The token makes `address` the new address of the user.
        CHANGE = "change"
        # Tells the old address that its account is about to get another one. It has no token.
        CHANGE_NOTICE = "change_notice"
        # The token permits one new password.
        RESET = "reset"
        # The token permits to register `address`, although somebody who never proved it has an account with it.
        REGISTRATION = "registration"
        # The token accepts an invitation into an environment.
        INVITATION = "invitation"

    # What the mail is for; it never changes.
    purpose = models.CharField(max_length=16, choices=Purpose.choices)
    # Where the mail goes. The token in it works only for this address.
    address = models.CharField(max_length=254)
    # The account that the mail is about. None for an invitation. None also if somebody asked for a new password at an
    # address without an account; that mail is never sent.
    user = models.ForeignKey(
        User, null=True, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    # What the mail's text says beside its link, such as the name of the environment in an invitation.
    facts = models.JSONField(default=dict)
    # The SHA-256 of the token. None for a mail without a token.
    token_digest = models.BinaryField(max_length=32, null=True, unique=True)
    # When the token stops working, by the database's clock. None for a mail without a token.
    expires_at = models.DateTimeField(null=True)
    # When the token was used, or when another act made it void, such as a new password. None while it works.
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "account_mail"
        verbose_name = "account mail"
        constraints = (
            *outbox_constraints(),
            models.CheckConstraint(
                condition=Q(token_digest__isnull=True, expires_at__isnull=True)
                | Q(token_digest__isnull=False, expires_at__isnull=False),
                name="account_mail_token_expires",
            ),
        )
        indexes = (
            *outbox_indexes(of_environments=False),
            # Django admin's page of a user reads this index, and so does the code that makes a user's tokens void.
            models.Index(fields=["user", "created_at"], name="account_mail_of_user"),
            models.Index(fields=["created_at"], name="account_mail_old"),
        )


class AccountMailAttempt(SendAttempt):
    pk = models.CompositePrimaryKey("mail_id", "n")
    # The mail that was to be sent.
    mail = models.ForeignKey(
        AccountMail, on_delete=models.CASCADE, related_name="attempts", db_index=False
    )

    class Meta:
        db_table = "account_mail_attempt"
        constraints = attempt_constraints("account_mail_attempt_ended_somehow")
