"""What the app adds to the service: receivers of events that end access, invitations, a check of keys, connections."""

from typing import Any

from django.conf import settings
from django.dispatch import receiver

from accounts.addresses import Rights, register_rights
from pipedai.checks import register_probe
from pipedai.events import Event, emit, happened
from pipedai.loop import register_job
from pipedai.outgoing.pool import register_kind
from pipedai.retention import Retention, register_retention, rows_where
from pipedai.wakeups import wake_workers
from workspaces.api_keys import end_keys_of_deactivated
from workspaces.connections import files  # noqa: F401 - importing it registers the kind
from workspaces.connections.authorizers import Authorizers, ToDiscover, ToExchange
from workspaces.connections.models import (
    Connection,
)
from workspaces.connections.refreshing import Ailing, Healthy, Refreshers
from workspaces.connections.revoking import REVOCATIONS
from workspaces.encryption.check import keys_open
from workspaces.members import (
    accept_by_registering,
    end_rights,
    leave_all,
    lock_environments,
)
from workspaces.services import register_dependents

# The actions that may end somebody's access. Their targets are users, or the environment itself. Revoked API keys are
# missing because `api_keys.py` wakes their streams itself.
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
        "user.deleted",
        "user.unlinked",
        "user.link-undone",
        "environment.deleted",
    }
)


@receiver(happened, dispatch_uid="workspaces.recheck_streams")
def recheck_streams(events: tuple[Event, ...], **_: Any) -> None:
    """Makes the users' event streams ask again after the commit; the endpoint then checks session and role."""
    wake_workers(event.target_id for event in events if event.action in _ENDING)


@receiver(happened, dispatch_uid="workspaces.tell_who_left_connections")
def tell_who_left_connections(events: tuple[Event, ...], **_: Any) -> None:
    """Emits an event for each connection whose user leaves the environment, because its grant remains valid."""
    emit(
        *(
            Event(
                "connection.user-left",
                event.actor,
                event.environment_id,
                "connection",
                connection.id,
                {"name": connection.name, "userId": str(event.target_id)},
            )
            for event in events
            if event.action == "member.removed" and event.environment_id
            for connection in Connection.objects.filter(
                environment_id=event.environment_id, connected_by_id=event.target_id
            ).order_by("id")
        )
    )


# Ended revocations keep no secret, so they can stay until pruning. Their attempts are deleted with them.
prune_revocations = rows_where(
    "connection_revocation",
    "t.created_at < %(before)s AND t.status <> 'pending'",
    by="t.created_at",
)
prune_authorizations = rows_where(
    "connection_authorization", "t.expires_at < %(before)s", by="t.expires_at"
)

register_probe("keys", keys_open)
register_rights(
    Rights(lock_environments, accept_by_registering, end_rights, end_keys_of_deactivated, leave_all)
)
register_dependents("connection", lambda id_: Connection.objects.filter(environment_id=id_).count())
register_job(
    Refreshers(Healthy()).job(
        "refresh-connections",
        does="Refreshes the access tokens of connections, on threads of their own.",
    )
)
register_job(
    Refreshers(Ailing()).job(
        "refresh-ailing-connections",
        does="Refreshes those whose server failed lately, on other threads.",
    )
)
register_job(
    Authorizers(ToDiscover()).job(
        "discover-servers",
        does="Reads the metadata of authorization servers, on threads of their own.",
    )
)
register_job(
    Authorizers(ToExchange()).job(
        "exchange-codes",
        does="Exchanges the codes of authorizations for tokens, on threads of their own.",
    )
)
register_kind(REVOCATIONS)
register_retention(
    Retention(
        "revocations",
        "requests to revoke the tokens of connections that were sent or given up",
        lambda: settings.DELIVERY_RETENTION_DAYS or settings.RUN_RETENTION_DAYS or None,
        prune_revocations,
    ),
    Retention(
        "authorizations",
        "authorizations of connections that nobody finished in time",
        lambda: 1,
        prune_authorizations,
    ),
)
