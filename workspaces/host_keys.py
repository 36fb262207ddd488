"""The `hos_` keys of hosts, and the registration tokens that a key mints and that die with it."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.events import Actor, Event, emit
from workspaces.acting import hold_role
from workspaces.key_room import check_room_for_key
from workspaces.locks import lock_environment
from workspaces.models import ApiKey
from workspaces.roles import Role

MINTED_LIFETIME = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, repr=False)
class Minted:
    """A new key, and its token, which is stored nowhere."""

    key: ApiKey
    token: str


def create_host_key(*, environment_id: UUID, name: str, created_by: UUID | None) -> Minted:
    """A new host's key. The caller has locked the environment and tells what happened. Raises Conflict for one key
    too many.
    """
    check_room_for_key(environment_id)
    return _create(
        environment_id, ApiKey.Kind.HOS, name=name, created_by_id=created_by, expires_at=None
    )


def mint_registration_token(*, environment_id: UUID, label: str | None, actor: Actor) -> Minted:
    """A `wrk_` key that registers one new worker within MINTED_LIFETIME, as long as the key that acts lives.

    Raises Conflict for one key too many, Unauthenticated if that key has died meanwhile.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        # The key that acts is held: whoever revokes it now finds the token too.
        hold_role(actor, environment_id, Role.ADMIN)
        check_room_for_key(environment_id)
        minted = _create(
            environment_id,
            ApiKey.Kind.WRK,
            name=label or "Registration token",
            parent_id=actor.id,
            expires_at=Now() + MINTED_LIFETIME,
        )
        minted.key.refresh_from_db(fields=["expires_at"])
        metadata = {
            "name": minted.key.name,
            "prefix": minted.key.kind,
            "role": None,
            "lastFour": minted.key.last_four,
            "parentId": str(actor.id),
        }
        emit(Event("api-key.created", actor, environment_id, "api-key", minted.key.id, metadata))
    return minted


def end_minted_tokens(parent_id: UUID) -> list[UUID]:
    """Revokes the unused registration tokens that a key minted; their ids."""
    unused = ApiKey.objects.select_for_update(no_key=True).filter(
        parent_id=parent_id, revoked_at__isnull=True, consumed_at__isnull=True
    )
    ids = list(unused.order_by("id").values_list("id", flat=True))
    ApiKey.objects.filter(id__in=ids).update(revoked_at=Now())
    return ids


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
