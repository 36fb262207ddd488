"""Creates workspaces, and creates, renames and deletes environments (SPEC §4, §5)."""

from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from accounts.authentication import session_ended
from accounts.models import User
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict
from pipedai.api.wording import counted
from pipedai.events import Actor, Event, emit
from workspaces.acting import hold_right_to_create_in, hold_role
from workspaces.dependents import dependents_of
from workspaces.encryption.keys import create_data_key
from workspaces.locks import close_environment, lock_environment
from workspaces.models import Environment, Membership, Workspace
from workspaces.roles import Role

_NAME_TAKEN = "The workspace has an environment of this name already."


def create_workspace(*, name: str, user_id: UUID, actor: Actor) -> Workspace:
    """Makes a workspace with the user as its creator. Raises Conflict if they have as many workspaces as they may."""
    with transaction.atomic():
        _check_room_for_workspace(user_id)
        workspace = Workspace.objects.create(name=name, created_by_id=user_id)
        emit(Event("workspace.created", actor, None, "workspace", workspace.id, {"name": name}))
    return workspace


def create_environment(
    *, workspace_id: UUID, name: str, user_id: UUID, actor: Actor
) -> Environment:
    """Makes an environment with a data key, and makes the user its owner.

    Raises NotFound for a workspace that the user may not see, Forbidden if the user may not create environments in it,
    and Conflict if the name is taken or the user has as many environments as they may.
    """
    try:
        with transaction.atomic():
            hold_right_to_create_in(workspace_id, user_id)
            _check_room_for_environment(user_id)
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
        raise Conflict(_NAME_TAKEN, code=ErrorCode.NAME_TAKEN) from None
    return environment


def rename_environment(*, environment_id: UUID, name: str, actor: Actor) -> None:
    """Renames an environment. If it has the name already, nothing changes. Raises NotFound, and Conflict for a taken
    name.
    """
    live = Environment.objects.filter(id=environment_id, deleted_at__isnull=True)
    try:
        with transaction.atomic():
            lock_environment(environment_id)
            hold_role(actor, environment_id, Role.ADMIN)
            old = live.values_list("name", flat=True).get()
            if old == name:
                return
            live.update(name=name)
            changes = {"name": [old, name]}
            emit(
                Event(
                    "environment.updated",
                    actor,
                    environment_id,
                    "environment",
                    environment_id,
                    changes,
                )
            )
    except IntegrityError:
        raise Conflict(_NAME_TAKEN, code=ErrorCode.NAME_TAKEN) from None


def delete_environment(*, environment_id: UUID, actor: Actor) -> None:
    """Deletes an empty environment by marking its row. Its name becomes free, and its keys and tokens stop working.

    Raises NotFound, and Conflict while the environment has rows of other apps, such as triggers; the error counts them.
    """
    with transaction.atomic():
        close_environment(environment_id)
        hold_role(actor, environment_id, Role.OWNER)
        if held := dependents_of(environment_id):
            what = ", ".join(counted(number, name) for name, number in held.items())
            raise Conflict(f"The environment still has {what}.", code=ErrorCode.HAS_CHILDREN)
        Environment.objects.filter(id=environment_id).update(deleted_at=Now())
        emit(Event("environment.deleted", actor, environment_id, "environment", environment_id))


def _check_room_for_workspace(user_id: UUID) -> None:
    limit = settings.MAX_WORKSPACES_PER_USER
    _lock_user(user_id)
    if Workspace.objects.filter(created_by_id=user_id).count() >= limit:
        raise CeilingReached(
            "workspaces", f"You have created {limit} workspaces, as many as you may."
        )


def _check_room_for_environment(user_id: UUID) -> None:
    limit = settings.MAX_ENVIRONMENTS_PER_USER
    _lock_user(user_id)
    owned = Membership.objects.filter(
        user_id=user_id, role=Role.OWNER, environment__deleted_at__isnull=True
    )
    if owned.count() >= limit:
        raise CeilingReached("environments", f"You own {limit} environments, as many as you may.")


def _lock_user(user_id: UUID) -> None:
    """Locks the user's row until the transaction ends. Requests that count how many workspaces or environments the user
    has therefore run one after the other. Raises Unauthenticated if the user was deactivated meanwhile.
    """
    active = User.objects.select_for_update(no_key=True).filter(id=user_id, is_active=True)
    if not active.exists():
        raise session_ended()
