"""Makes open event streams ask again whether their reader may still read, when that may have changed."""

from typing import Any

from django.dispatch import receiver

from pipedai.events import Event, happened
from pipedai.wakeups import wake_workers

# What may take somebody's access away. The targets are users, or the environment itself. The revocation of an API key
# is announced where it is done.
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
    """Wakes the streams that the users opened, when the transaction commits. Each then asks its endpoint, which checks
    the session and the role.
    """
    wake_workers(event.target_id for event in events if event.action in _ENDING)
