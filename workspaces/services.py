"""Creates workspaces and environments; mints and revokes API keys (SPEC §4, §5)."""

from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.api.errors import Conflict, NotFound
from pipedai.events import Actor, Event, emit
from workspaces.keys import create_data_key
from workspaces.locks import hold_environment
from workspaces.models import ApiKey, Environment, Membership, Workspace
from workspaces.roles import Role
from workspaces.serializers import WRK_LIFETIME


def create_workspace(*, name: str, user_id: UUID, actor: Actor) -> Workspace:
    """A new workspace of the user's."""
    with transaction.atomic():
        workspace = Workspace.objects.create(name=name, created_by_id=user_id)
        emit(Event("workspace.created", actor, None, "workspace", workspace.id, {"name": name}))
    return workspace


def create_environment(
    *, workspace_id: UUID, name: str, user_id: UUID, actor: Actor
) -> Environment:
    """A new environment with its data key and the user as its owner. Raises Conflict for a taken name."""
    try:
        with transaction.atomic():
            environment = Environment.objects.create(workspace_id=workspace_id, name=name)
            create_data_key(environment.id)
            Membership.objects.create(
                environment=environment, user_id=user_id, role=Role.OWNER.value
            )
            emit(
                Event(
                    "environment.created",
                    actor,
                    environment.id,
                    "environment",
                    environment.id,
                    {"name": name},
                )
            )
    except IntegrityError:
        raise Conflict("The workspace has an environment of this name already.") from None
    return environment


def mint_api_key(
    *,
    environment_id: UUID,
    name: str,
    kind: str,
    role: str | None = None,
    expires_at: datetime | None = None,
    user_id: UUID,
    actor: Actor,
) -> tuple[ApiKey, str]:
    """A new key and its token, which is stored nowhere. Raises NotFound if the environment has been deleted.

    A `pwk` key is an operator unless told otherwise; a `wrk` key expires after a day unless told otherwise.
    """
    token = tokens.mint(kind)
    with transaction.atomic():
        hold_environment(environment_id)
        is_wrk = kind == ApiKey.Kind.WRK
        key = ApiKey.objects.create(
            environment_id=environment_id,
            kind=kind,
            name=name,
            role=None if is_wrk else role or Role.OPERATOR.value,
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
                {"name": name, "prefix": kind, "role": key.role, "lastFour": key.last_four},
            )
        )
    return key, token.value


def revoke_api_key(*, environment_id: UUID, key_id: UUID, actor: Actor) -> None:
    """The key is dead at once; a repeat changes nothing. Raises NotFound for a key of another environment."""
    own = ApiKey.objects.filter(id=key_id, environment_id=environment_id)
    with transaction.atomic():
        if own.filter(revoked_at__isnull=True).update(revoked_at=Now()):
            emit(Event("api-key.revoked", actor, environment_id, "api-key", key_id))
        elif not own.exists():
            raise NotFound
