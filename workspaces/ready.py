"""What the app adds to the service: what ends with a user's access, invitations, a probe of the keys, connections."""

from typing import Any

from django.dispatch import receiver

from accounts.proof import Rights, register_rights
from pipedai.checks import register_probe
from pipedai.events import Event, happened
from pipedai.wakeups import wake_workers
from workspaces.api_keys import end_keys_of_deactivated
from workspaces.connections import files  # noqa: F401 - importing it registers the kind
from workspaces.connections.models import HEADERS, Connection
from workspaces.dependents import register_dependents
from workspaces.deployment import keys_open
from workspaces.encryption.sealed_fields import register_sealed_field
from workspaces.invitations import accept_by_registering, lock_environments
from workspaces.members import end_rights

# The actions that may take somebody's access away. Their targets are users, or the environment itself. The revocation
# of an API key is announced where it is done.
_ENDING = frozenset(
    {
        "member.removed",
        "member.role-changed",
        "user.logged-out",
        "user.session-ended",
        "user.password-changed",
        "user.password-reset",
        "user.displaced",
        "user.deactivated",
        "environment.deleted",
    }
)


@receiver(happened, dispatch_uid="workspaces.recheck_streams")
def recheck_streams(events: tuple[Event, ...], **_: Any) -> None:
    """When this transaction commits, makes the users' streams ask again; the endpoint checks session and role."""
    wake_workers(event.target_id for event in events if event.action in _ENDING)


register_probe("keys", keys_open)
register_rights(
    Rights(lock_environments, accept_by_registering, end_rights, end_keys_of_deactivated)
)
register_sealed_field(HEADERS)
register_dependents("connection", lambda id_: Connection.objects.filter(environment_id=id_).count())
