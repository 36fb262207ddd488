"""Whether an environment has room for one more key (SPEC §4)."""

from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api.errors import CeilingReached
from workspaces.models import ApiKey


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
