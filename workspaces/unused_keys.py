"""Ends the unused `wrk_` keys of users who may bring in no machine any more (SPEC §4)."""

from uuid import UUID

from django.db.models.functions import Now

from pipedai.events import Actor, Event, emit
from workspaces.models import ApiKey


def revoke_unused_keys(*, user_id: UUID, environment_id: UUID) -> list[UUID]:
    """Revokes those that the user minted in one environment; their ids."""
    return [key.id for key in _revoke(user_id, environment_id=environment_id)]


def end_keys_of_deactivated(user_id: UUID, actor: Actor) -> None:
    """Revokes those that the user minted anywhere. Each environment's audit log tells of its own."""
    emit(
        *(
            Event(
                "api-key.revoked",
                actor,
                key.environment_id,
                "api-key",
                key.id,
                {"because": "user.deactivated"},
            )
            for key in _revoke(user_id)
        )
    )


def _revoke(user_id: UUID, **where: UUID) -> list[ApiKey]:
    # Locked by id, so that two who revoke the same keys don't wait for each other.
    unused = ApiKey.objects.select_for_update(no_key=True).filter(
        created_by_id=user_id,
        kind=ApiKey.Kind.WRK,
        revoked_at__isnull=True,
        consumed_at__isnull=True,
        **where,
    )
    keys = list(unused.order_by("id"))
    ApiKey.objects.filter(id__in=[key.id for key in keys]).update(revoked_at=Now())
    return keys
