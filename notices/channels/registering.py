"""Registers what channels add to the service: a kind of messages, columns with secrets, and how long rows are kept."""

from django.conf import settings

from notices.channels.models import SECRET, URL
from notices.channels.pruning import prune_notices
from notices.channels.sending import NOTICES
from pipedai.outgoing import register_kind
from pipedai.retention import Retention, register_retention
from workspaces.encryption.sealed_fields import register_sealed_field


def register_channels() -> None:
    """Registers the kind of messages, the columns and the retentions of channels. Call it from `AppConfig.ready()`."""
    register_kind(NOTICES)
    for field in (URL, SECRET):
        register_sealed_field(field)
    register_retention(
        Retention(
            "notices",
            "notices that were sent, told in a digest or given up, and deleted channels",
            lambda: settings.DELIVERY_RETENTION_DAYS or settings.RUN_RETENTION_DAYS or None,
            prune_notices,
        )
    )
