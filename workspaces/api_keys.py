"""Makes and revokes API keys: keys that people ask for, keys of hosts, and `wrk_` keys that other keys ask for.

SPEC §4 says how many keys an environment may have and when unused ones expire, §5 how keys are made and revoked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.api.errors import NotFound
from pipedai.events import Actor, Event, emit
from pipedai.wakeups import wake_workers
from workspaces.acting import hold_role, hold_role_of_user
from workspaces.ceilings import check_ceiling
from workspaces.locks import hold_environment, lock_environment
from workspaces.models import ApiKey
from workspaces.pools import checked_pools, told_pools
from workspaces.roles import Role
from workspaces.serializers import WRK_LIFETIME

MINTED_LIFETIME = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, repr=False)
class Minted:
    """A new API key and its token. The token is shown once and stored nowhere."""

    key: ApiKey
    token: str


def mint_api_key(
    *,
    environment_id: UUID,
    name: str,
    kind: str,
    role: str | None = None,
    expires_at: datetime | None = None,
    pool_ids: list[UUID] | None = None,
    user_id: UUID,
    actor: Actor,
) -> tuple[ApiKey, str]:
    """Makes an API key that a user asks for, and returns it with its token, which is stored nowhere.

    By default a `pwk` key has the role operator, and a `wrk` key expires after a day. `pool_ids` are the pools that the
    worker joins which registers with a `wrk` key.

    Raises NotFound if the environment has been deleted, Invalid if it lacks one of the pools, Conflict if it has as
    many keys as it may, and what `hold_role` raises for a user who is no admin.
    """
    token = tokens.mint(kind)
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role_of_user(user_id, environment_id, Role.ADMIN)
        check_room_for_key(environment_id)
        is_wrk = kind == ApiKey.Kind.WRK
        key = ApiKey.objects.create(
            environment_id=environment_id,
            kind=kind,
            name=name,
            role=None if is_wrk else role or Role.OPERATOR.value,
            pool_ids=checked_pools(environment_id, pool_ids),
            token_digest=token.digest,
            last_four=token.last_four,
            created_by_id=user_id,
            expires_at=Now() + WRK_LIFETIME if is_wrk and expires_at is None else expires_at,
        )
        key.refresh_from_db(fields=["expires_at"])
        emit(
            Event(
                "api-key.created",
                actor,
                environment_id,
                "api-key",
                key.id,
                {
                    "name": name,
                    "prefix": kind,
                    "role": key.role,
                    "lastFour": key.last_four,
                    **told_pools(key.pool_ids),
                },
            )
        )
    return key, token.value


def create_host_key(*, environment_id: UUID, name: str, created_by: UUID | None) -> Minted:
    """Makes the `hos_` key of a new host. The caller must have locked the environment, and emits the audit event
    itself.

    `created_by` is the user who let the host in. Raises Conflict if the environment has as many keys as it may.
    """
    check_room_for_key(environment_id)
    return _create(
        environment_id, ApiKey.Kind.HOS, name=name, created_by_id=created_by, expires_at=None
    )


def mint_registration_token(
    *, environment_id: UUID, label: str | None, pool_ids: list[UUID] | None = None, actor: Actor
) -> Minted:
    """Makes a `wrk_` key at the request of another key, the acting one. One new worker can register with it within
    MINTED_LIFETIME, unless the acting key is revoked before. The worker then joins the pools `pool_ids`.

    Raises Invalid if the environment lacks one of the pools, Conflict if it has as many keys as it may, Unauthenticated
    if the acting key has been revoked meanwhile.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        # `hold_role` locks the acting key. A request that revokes it at the same moment waits, and then also revokes
        # the key that is made here.
        hold_role(actor, environment_id, Role.ADMIN)
        check_room_for_key(environment_id)
        minted = _create(
            environment_id,
            ApiKey.Kind.WRK,
            name=label or "Registration token",
            parent_id=actor.id,
            pool_ids=checked_pools(environment_id, pool_ids),
            expires_at=Now() + MINTED_LIFETIME,
        )
        minted.key.refresh_from_db(fields=["expires_at"])
        metadata = {
            "name": minted.key.name,
            "prefix": minted.key.kind,
            "role": None,
            "lastFour": minted.key.last_four,
            "parentId": str(actor.id),
            **told_pools(minted.key.pool_ids),
        }
        emit(Event("api-key.created", actor, environment_id, "api-key", minted.key.id, metadata))
    return minted


def end_minted_tokens(parent_id: UUID) -> list[UUID]:
    """Revokes the unused `wrk_` keys that were made at the request of a key, and returns their ids."""
    unused = ApiKey.objects.select_for_update(no_key=True).filter(
        parent_id=parent_id, revoked_at__isnull=True, consumed_at__isnull=True
    )
    ids = list(unused.order_by("id").values_list("id", flat=True))
    ApiKey.objects.filter(id__in=ids).update(revoked_at=Now())
    return ids


def revoke_api_key(*, environment_id: UUID, key_id: UUID, actor: Actor) -> None:
    """Revokes a key at once, and with it the unused `wrk_` keys that were made at its request. A second call changes
    nothing.

    Raises NotFound for a key of another environment.
    """
    own = ApiKey.objects.filter(id=key_id, environment_id=environment_id)
    with transaction.atomic():
        hold_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        if own.filter(revoked_at__isnull=True).update(revoked_at=Now()):
            minted = end_minted_tokens(key_id)
            metadata = {"keysRevoked": [str(token_id) for token_id in minted]} if minted else {}
            wake_workers([key_id])  # This ends the event streams that the revoked key opened.
            emit(Event("api-key.revoked", actor, environment_id, "api-key", key_id, metadata))
        elif not own.exists():
            raise NotFound


def revoke_unused_keys(*, user_id: UUID, environment_id: UUID) -> list[UUID]:
    """Revokes the unused `wrk_` keys that a user made in one environment, and returns their ids."""
    return [key.id for key in _revoke(user_id, environment_id=environment_id)]


def end_keys_of_deactivated(user_id: UUID, actor: Actor) -> None:
    """Revokes the unused `wrk_` keys that a deactivated user made in any environment, and emits an event for each."""
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
    # The rows are locked in the order of their ids, so that two transactions that revoke the same keys don't deadlock.
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


def check_room_for_key(environment_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many keys as it may. The caller must have locked the
    environment's row.
    """
    usable = ApiKey.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=Now()),
        environment_id=environment_id,
        revoked_at__isnull=True,
        consumed_at__isnull=True,
    )
    check_ceiling(
        "keys", "usable keys", held=usable.count(), limit=settings.MAX_KEYS_PER_ENVIRONMENT
    )


def _create(environment_id: UUID, kind: ApiKey.Kind, **values: object) -> Minted:
    token = tokens.mint(kind)
    key = ApiKey.objects.create(
        environment_id=environment_id,
        kind=kind.value,
        token_digest=token.digest,
        last_four=token.last_four,
        **values,
    )
    return Minted(key, token.value)
