"""Makes and revokes API keys."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.api.errors import NotFound
from pipedai.events import Actor, Event, emit
from pipedai.wakeups import wake_workers
from workspaces.ceilings import check_ceiling
from workspaces.locks import (
    changing,
    checked_pools,
    hold_role_of_user,
    lock_environment,
    pool_metadata,
)
from workspaces.models import ApiKey
from workspaces.roles import KEY_ROLES, Role
from workspaces.serializers import WRK_LIFETIME

MINTED_LIFETIME = timedelta(minutes=15)
# How long the key of a command line is valid.
LOGIN_LIFETIME = timedelta(days=90)


class Minted(NamedTuple):
    key: ApiKey
    token: str

    def __repr__(self) -> str:
        return f"Minted({self.key!r})"


def usable_keys(environment_id: UUID) -> QuerySet[ApiKey]:
    """Returns the keys that were not revoked, have not expired, and were not consumed by a worker's registration."""
    return ApiKey.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=Now()),
        environment_id=environment_id,
        revoked_at__isnull=True,
        consumed_at__isnull=True,
    )


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
) -> Minted:
    """Makes a key that a user asks for. By default a `pwk` key is an operator's, and a `wrk` key expires after a day.
    `pool_ids` are pools that the worker joins. Raises NotFound, Invalid for a missing pool, CeilingReached, and the
    errors of `hold_role`.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role_of_user(user_id, environment_id, Role.ADMIN)
        is_wrk = kind == ApiKey.Kind.WRK
        minted = _create(
            environment_id,
            kind,
            name=name,
            role=None if is_wrk else role or Role.OPERATOR.value,
            pool_ids=checked_pools(environment_id, pool_ids),
            created_by_id=user_id,
            expires_at=Now() + WRK_LIFETIME if is_wrk and expires_at is None else expires_at,
        )
        _emit_created(minted.key, actor)
    return minted


def create_host_key(*, environment_id: UUID, name: str, created_by: UUID | None) -> Minted:
    """Makes the key of a host. The caller has locked the environment and emits the event. Raises CeilingReached."""
    return _create(environment_id, ApiKey.Kind.HOS.value, name=name, created_by_id=created_by)


def create_login_key(
    *, environment_id: UUID, name: str, role: Role, user_id: UUID, actor: Actor
) -> Minted:
    """Makes the key of a command line. The caller has locked the environment and the user's role. Raises
    CeilingReached.
    """
    minted = _create(
        environment_id,
        ApiKey.Kind.PWK.value,
        name=name,
        role=role.value,
        created_by_id=user_id,
        is_login=True,
        expires_at=Now() + LOGIN_LIFETIME,
    )
    _emit_created(minted.key, actor)
    return minted


def mint_registration_token(
    *, environment_id: UUID, label: str | None, pool_ids: list[UUID] | None = None, actor: Actor
) -> Minted:
    """Makes a `wrk_` key at the request of another key. One worker can register with it, within MINTED_LIFETIME. Raises
    Invalid for a missing pool, CeilingReached, and Unauthenticated if the acting key was revoked.
    """
    # The acting key is locked, so that a request that revokes it meanwhile waits, and then revokes the new key too.
    with changing(environment_id, actor, alone=True):
        minted = _create(
            environment_id,
            ApiKey.Kind.WRK.value,
            name=label or "Registration token",
            parent_id=actor.id,
            pool_ids=checked_pools(environment_id, pool_ids),
            expires_at=Now() + MINTED_LIFETIME,
        )
        _emit_created(minted.key, actor, parentId=str(actor.id))
    return minted


def revoke_api_key(*, environment_id: UUID, key_id: UUID, actor: Actor) -> None:
    """Revokes a key, and the unused `wrk_` keys that were made at its request. Raises NotFound."""
    own = ApiKey.objects.filter(id=key_id, environment_id=environment_id)
    with changing(environment_id, actor):
        if own.filter(revoked_at__isnull=True).update(revoked_at=Now()):
            minted = [key.id for key in _revoke(Q(parent_id=key_id))]
            metadata = {"keysRevoked": [str(token_id) for token_id in minted]} if minted else {}
            wake_workers([key_id])  # This ends the event streams that the revoked key opened.
            emit(Event("api-key.revoked", actor, environment_id, "api-key", key_id, metadata))
        elif not own.exists():
            raise NotFound


def revoke_keys_beyond(*, user_id: UUID, environment_id: UUID, role: Role | None) -> list[UUID]:
    """Revokes what a user with this role (None after they left) may not have in an environment: unused `wrk_` keys
    unless they are an admin or owner, and keys of their command lines with a higher role. Returns the ids.
    """
    above = [each.value for each in KEY_ROLES if role is None or not role.includes(each)]
    beyond = Q(is_login=True, role__in=above)
    if role is None or not role.includes(Role.ADMIN):
        beyond |= Q(kind=ApiKey.Kind.WRK)
    return [key.id for key in _revoke(beyond & Q(created_by=user_id, environment=environment_id))]


def end_keys_of_deactivated(user_id: UUID, actor: Actor) -> None:
    """Revokes the unused `wrk_` keys that a deactivated user made in any environment, and the keys of their command
    lines, and emits an event for each.
    """
    keys = _revoke(Q(created_by_id=user_id) & (Q(kind=ApiKey.Kind.WRK) | Q(is_login=True)))
    emit(*revoked_because("user.deactivated", keys, actor))


def revoke_keys_of_displaced(user_id: UUID) -> list[ApiKey]:
    """Revokes and returns the user's keys, those of hosts that they let in, and unused `wrk_` keys of these hosts."""
    own = ApiKey.objects.filter(created_by_id=user_id, revoked_at__isnull=True)
    parents = list(own.values_list("id", flat=True))
    return _revoke(Q(created_by_id=user_id) | Q(parent_id__in=parents))


def revoked_because(reason: str, keys: Iterable[ApiKey], actor: Actor) -> list[Event]:
    """Returns the events of keys that were revoked because of what happened to their user, such as losing a role."""
    metadata = {"because": reason}
    return [
        Event("api-key.revoked", actor, key.environment_id, "api-key", key.id, metadata)
        for key in keys
    ]


def _revoke(of: Q) -> list[ApiKey]:
    """Revokes the matching keys that still work, which ends the event streams that they opened, and returns them. Locks
    them in the order of ids against deadlocks.
    """
    unused = ApiKey.objects.select_for_update(no_key=True).filter(
        of, revoked_at__isnull=True, consumed_at__isnull=True
    )
    keys = {key.id: key for key in unused.order_by("id")}
    ApiKey.objects.filter(id__in=keys).update(revoked_at=Now())
    wake_workers(keys)
    return list(keys.values())


def _create(environment_id: UUID, kind: str, **values: object) -> Minted:
    """Makes a key. The caller has locked the environment. Raises CeilingReached."""
    usable = usable_keys(environment_id)
    check_ceiling("keys", "usable keys", environment_id=environment_id, rows=usable)
    token = tokens.mint(kind)
    key = ApiKey.objects.create(
        environment_id=environment_id,
        kind=kind,
        token_digest=token.digest,
        last_four=token.last_four,
        **values,
    )
    return Minted(key, token.value)


def _emit_created(key: ApiKey, actor: Actor, **more: str) -> None:
    key.refresh_from_db(fields=["expires_at"])
    metadata = {
        "name": key.name,
        "prefix": key.kind,
        "role": key.role,
        "lastFour": key.last_four,
        **more,
        **pool_metadata(key.pool_ids),
    }
    emit(Event("api-key.created", actor, key.environment_id, "api-key", key.id, metadata))
