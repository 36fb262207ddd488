"""The table of connections: how an environment's runs show an MCP server who they are (SPEC §24)."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from workspaces.encryption.sealed_fields import SealedField
from workspaces.files.columns import FileColumns, own_key

# The column of a connection that is encrypted.
HEADERS = SealedField("connection", "headers", "headers_key_id")


class Connection(FileColumns):
    """The credentials for one MCP server, which any number of triggers use."""

    class Grant(models.TextChoices):
        """How a connection got its credentials. It never changes."""

        # Somebody gave the headers that runs send.
        HEADERS = "headers"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        "workspaces.Environment", on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The connection's name, which people chose: 1 to 200 characters. It need not be unique.
    name = models.CharField(max_length=200)
    # The URL of the MCP server, in ASCII. It never changes, because the credentials are for this server only. Each
    # trigger with the connection has a copy, which the key `trigger_connection_in_environment` keeps equal.
    mcp_url = models.CharField(max_length=2048)
    grant_type = models.CharField(max_length=18, choices=Grant.choices)
    # The headers that workers send to the server: encrypted JSON. Users write them, and a rotation of the data key
    # encrypts them anew.
    headers = models.BinaryField()
    # The data key that encrypts `headers`. The database refers to it together with the environment.
    headers_key = models.ForeignKey(
        "workspaces.DataKey",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a user last changed the name or the headers, by the database's clock.
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "connection"
        constraints = (
            own_key("connection"),
            models.UniqueConstraint(
                fields=["environment", "id", "mcp_url"], name="connection_in_environment"
            ),
            models.CheckConstraint(condition=Q(grant_type="headers"), name="connection_grant"),
        )
        indexes = (
            models.Index(fields=["environment", "created_at", "id"], name="connection_listed"),
        )

    def __str__(self) -> str:
        return self.name
