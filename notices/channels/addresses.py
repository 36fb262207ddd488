"""The tables of the addresses that get mail, or want none (SPEC §14)."""

from django.db import models
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.table_rules import index, unique
from workspaces.models import Environment

# The longest e-mail address (RFC 5321 §4.5.3.1.3, less the angle brackets).
MAX_ADDRESS = 254


class AskedAddress(models.Model):
    """Whether the owner of an address wants an environment's mail (SPEC §14). Before they confirm, they get only the
    one mail that asks. Users who name their own address, or make the environment, have agreed.
    """

    # The row's id, which the tokens in mails name. Links in earlier mails end when it changes, as it does if the owner
    # of the address is removed from the environment by somebody else.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The address, in lower case.
    address = models.CharField(max_length=MAX_ADDRESS)
    # The user who first named the address: by adding it to a channel, also with an API key that they minted, or by
    # leaving the environment. If it is the owner of the address, the address is not asked.
    asked_by = models.UUIDField()
    asked_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the owner of the address confirmed that they want the mail; NULL if they have not.
    confirmed_at = models.DateTimeField(null=True)
    # When the owner of the address refused the mail of this environment, by a link or by leaving it; NULL if they have
    # not, or have agreed after that.
    refused_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "asked_address"
        constraints = (unique("asked_address_once_an_environment", ["address", "environment"]),)
        indexes = (
            # These two indexes count the new addresses of a day: those of a user, and those of an environment.
            index("asked_address_by_user", ["asked_by", "asked_at"]),
            index("asked_address_of_environment", ["environment", "asked_at"]),
        )

    def __str__(self) -> str:
        return str(self.id)


class RefusedAddress(models.Model):
    # The address, in lower case.
    address = models.CharField(max_length=MAX_ADDRESS, primary_key=True)
    # When the owner of the address refused all notices, by the database's clock.
    refused_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "refused_address"

    def __str__(self) -> str:
        return "an address that wants no notices"
