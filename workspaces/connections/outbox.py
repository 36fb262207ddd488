"""The tables of what ends grants at their authorization servers, an outbox (SPEC §24)."""

from django.db import models
from django.db.models import Q

from pipedai.outgoing import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from workspaces.encryption.sealed_fields import SealedField
from workspaces.tenant_columns import environment_key, has_its_key, tenant_key

# The column that is encrypted.
REVOCATION_REQUEST = SealedField("connection_revocation", "request", "request_key_id")


class Revocation(OutboxRow):
    """A request that ends a grant at its authorization server: it revokes a token (RFC 7009) or removes a client that
    was registered for the connection (RFC 7592). The row has all that the request needs, as the connection may be gone.
    """

    class Purpose(models.TextChoices):
        # The request revokes a refresh token, or an access token if there is no other.
        TOKEN = "token"  # noqa: S105 - it is no password
        # The request removes the registration of a client.
        CLIENT = "client"

    environment = environment_key()
    # The connection whose grant it was. It is no foreign key, as the connection may be gone.
    connection_id = models.UUIDField()
    purpose = models.CharField(max_length=6, choices=Purpose.choices)
    # The encrypted request; NULL once it is delivered or given up.
    request = models.BinaryField(null=True)
    request_key = tenant_key("workspaces.DataKey", null=True)

    class Meta:
        db_table = "connection_revocation"
        constraints = (
            models.UniqueConstraint(
                fields=["environment", "id"], name="connection_revocation_in_environment"
            ),
            *outbox_constraints(),
            has_its_key("connection_revocation", "request"),
            models.CheckConstraint(
                condition=Q(status="pending", request__isnull=False)
                | (~Q(status="pending") & Q(request__isnull=True)),
                name="connection_revocation_is_forgotten",
            ),
        )
        indexes = (
            *outbox_indexes(of_environments=True),
            models.Index(
                fields=["created_at"],
                name="connection_revocation_old",
                condition=~Q(status="pending"),
            ),
        )

    def __str__(self) -> str:
        return str(self.id)


class RevocationAttempt(SendAttempt):
    pk = models.CompositePrimaryKey("revocation_id", "n")
    environment = environment_key()
    revocation = models.ForeignKey(
        Revocation,
        on_delete=models.PROTECT,
        related_name="attempts",
        db_constraint=False,
        db_index=False,
    )

    class Meta:
        db_table = "connection_revocation_attempt"
        constraints = attempt_constraints("connection_revocation_attempt_has_an_end")
