"""Whether one more key may be minted now: by this user, and in this environment (SPEC §4)."""

from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api.errors import CeilingReached, NotFound
from pipedai.sql import fetch_one
from workspaces.models import ApiKey

# The environment's lock keeps the membership as it is, this one the user active.
_HOLD_ADMIN = """
SELECT FROM membership m JOIN user_account u ON u.id = m.user_id
WHERE m.environment_id = %(environment_id)s AND m.user_id = %(user_id)s AND m.role IN ('admin', 'owner') AND u.is_active
FOR SHARE OF u
"""


def is_still_admin(environment_id: UUID, user_id: UUID | None) -> bool:
    """Whether the user is active and an admin of the environment, whose row the caller has locked.

    Until the transaction ends the user stays so.
    """
    return (
        fetch_one(_HOLD_ADMIN, {"environment_id": environment_id, "user_id": user_id}) is not None
    )


def check_still_admin(environment_id: UUID, user_id: UUID) -> None:
    """Whoever is removed, demoted or deactivated at this moment mints no key that outlives it. Raises NotFound."""
    if not is_still_admin(environment_id, user_id):
        raise NotFound


def check_room_for_key(environment_id: UUID) -> None:
    """Raises CeilingReached if the environment, whose row the caller has locked, holds as many keys as it may."""
    limit = settings.MAX_KEYS_PER_ENVIRONMENT
    usable = ApiKey.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=Now()),
        environment_id=environment_id,
        revoked_at__isnull=True,
        consumed_at__isnull=True,
    )
    if usable.count() >= limit:
        raise CeilingReached("keys", f"The environment has {limit} usable keys, as many as it may.")
