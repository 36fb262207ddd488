"""A caller who loses the needed role while the act waits for a lock is refused, and nothing is done."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.db.models.functions import Now

from accounts.services import deactivate_user
from accounts.sessions import CookieJWTAuthentication
from audit.models import AuditEntry
from pipedai.api import tokens
from pipedai.api.errors import ApiError, Unauthenticated
from pipedai.events import Actor
from testing.probes.api_urls import authenticates, permission_of
from testing.probes.tables import contents
from testing.processes.racing import Started
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, Cast, bearer
from testing.world.routes import ROUTES, Route
from testing.world.stage import Stage
from testing.world.users import UserFactory
from workers.enrollment.issuing import approve_pairing, begin_pairing
from workers.models import Worker
from workspaces.access import ApiKeyAuthentication, HostKeyAuthentication, IsAdmin, IsOwner
from workspaces.api_keys import revoke_api_key
from workspaces.locks import hold_role, lock_environment
from workspaces.members import change_role, remove_member
from workspaces.models import ApiKey, Membership
from workspaces.roles import Role

# For these routes the service checks the role, and the permission class asks for less: any member may leave, and a
# workspace has no roles.
_LOOKED_AT_BY_THE_SERVICE = {
    "DELETE environments/:environment/members/:user",
    "POST workspaces/:workspace/environments",
}


def _takes_a_role(route: Route) -> bool:
    asks_for_one = permission_of(*route.key) in (IsAdmin, IsOwner)
    return route.method != "GET" and (asks_for_one or str(route) in _LOOKED_AT_BY_THE_SERVICE)


def _here(cast: Cast) -> dict[str, Any]:
    return {"environment_id": cast.environment.id, "actor": Actor("user", cast.owner.id)}


class Caller:
    """A caller with the highest role that its kind of credential allows."""

    def __init__(self, cast: Cast, substrate: type) -> None:
        self.cast = cast
        if substrate is CookieJWTAuthentication:
            self.user = UserFactory.create()
            Membership.objects.create(environment=cast.environment, user=self.user, role="owner")
            self.client = cast.client(self.user)
            return
        is_script = substrate is ApiKeyAuthentication
        token = cast.mint("pwk", role="admin") if is_script else cast.host().operator_token
        self.client = bearer(token)
        self.key = ApiKey.objects.get(token_digest=tokens.digest(token))

    def remove(self) -> None:
        remove_member(**_here(self.cast), user_id=self.user.id)

    def demote(self) -> None:
        change_role(**_here(self.cast), user_id=self.user.id, role=Role.OPERATOR)

    def deactivate(self) -> None:
        deactivate_user(user_id=self.user.id, actor=Actor("staff"))

    def revoke(self) -> None:
        revoke_api_key(**_here(self.cast), key_id=self.key.id)


# For each kind of credential: how its caller loses the role, and the status of the refusal.
LOSSES = (
    (CookieJWTAuthentication, Caller.remove, 404),
    (CookieJWTAuthentication, Caller.demote, 403),
    (CookieJWTAuthentication, Caller.deactivate, 401),
    (ApiKeyAuthentication, Caller.revoke, 401),
    (HostKeyAuthentication, Caller.revoke, 401),
)


def _losses(route: Route) -> list[tuple[type, Callable[[Caller], None], int]]:
    """Returns the losses of the callers who may call the route. A key is never an owner."""
    never_a_key = permission_of(*route.key) is IsOwner
    return [
        (substrate, lose, status)
        for substrate, lose, status in LOSSES
        if substrate in authenticates(*route.key)
        and not (never_a_key and substrate is ApiKeyAuthentication)
    ]


def _rows() -> dict[str, Any]:
    return {table: rows for table, rows in contents().items() if table != "throttle"}


@cases("route", [*filter(_takes_a_role, ROUTES)])
@pytest.mark.parametrize("is_of_membership", [True, False])
def test_who_loses_the_role_while_the_act_waits_is_refused(
    committed_stage: Stage, route: Route, is_of_membership: bool
) -> None:
    """Several callers lose the role in one transaction, for which the acts of all of them wait. The loss of a
    membership may also block other acts of the environment, so the others are lost apart.
    """
    stage = committed_stage
    losses = [
        each
        for each in _losses(route)
        if (each[1] in (Caller.remove, Caller.demote)) == is_of_membership
    ]
    assert losses or is_of_membership  # A key has no membership.
    callers = [Caller(stage.cast, substrate) for substrate, _, _ in losses]
    calls: list[Callable[[], Any]] = []
    for caller, (substrate, _, _) in zip(callers, losses, strict=True):
        seen = stage
        if substrate is HostKeyAuthentication:  # A host sees only its own workers.
            worker = Worker.objects.get(host_key_id=caller.key.id)
            seen = replace(stage, ids={**stage.ids, "worker_id": worker.id})
        calls.append(partial(route.send, caller.client, route.url(seen), stage.cast))
    with transaction.atomic():
        for caller, (_, lose, _) in zip(callers, losses, strict=True):
            lose(caller)
        acts = [Started(call) for call in calls]
        for act in acts:
            act.wait_until_blocked()
        before = _rows()
    answers: list[Any] = [act.answer() for act in acts]
    assert _rows() == before
    for call, answer, (_, lose, status) in zip(calls, answers, losses, strict=True):
        # Of several rows each is refused by itself.
        codes = [each["code"] for each in answer.json().get("items", ())]
        of_status = {401: "invalid_token", 403: "forbidden", 404: "not_found"}[status]
        assert answer.status_code == status or codes == [of_status], lose.__name__
        assert call().status_code == status, f"asked later: {lose.__name__}"


def test_who_loses_the_role_while_an_approval_waits_lets_no_host_in(committed_cast: Cast) -> None:
    cast, caller = committed_cast, Caller(committed_cast, CookieJWTAuthentication)
    pairing = begin_pairing(label=None, address=None, program=None)
    approve = partial(
        approve_pairing,
        enrollment_id=pairing.id,
        environment_id=cast.environment.id,
        auth_mode="api_key",
        user_id=caller.user.id,
        actor=Actor("user", caller.user.id),
    )
    with transaction.atomic():
        caller.remove()
        act = Started(approve)
        act.wait_until_blocked()
        before = _rows()
    refusal = act.answer()
    assert isinstance(refusal, ApiError)
    assert (refusal.status_code, _rows() == before) == (404, True)


@cases(("substrate", "lose"), [(substrate, lose) for substrate, lose, _ in LOSSES[:4]])
def test_who_has_the_role_keeps_it_until_the_act_is_done(
    committed_cast: Cast, substrate: type, lose: Callable[[Caller], None]
) -> None:
    caller = Caller(committed_cast, substrate)
    worker_id, label = committed_cast.worker.worker_id, f"Of {substrate.__name__} {lose.__name__}"
    with transaction.atomic():
        Worker.objects.select_for_update().get(id=worker_id)
        act = Started(lambda: caller.client.patch(f"/api/v1/workers/{worker_id}", {"label": label}))
        act.wait_until_blocked()
        losing = Started(lambda: lose(caller))
        losing.wait_until_blocked()
    assert act.answer().status_code == 200
    assert losing.answer() is None
    told = AuditEntry.objects.order_by("created_at", "id").values_list("action", flat=True)
    assert list(told)[-2] == "worker.updated"


def test_no_other_call_of_the_key_waits_for_its_act(committed_cast: Cast) -> None:
    caller = Caller(committed_cast, ApiKeyAuthentication)
    environment_id = committed_cast.environment.id
    with transaction.atomic():
        hold_role(Actor("api_key", caller.key.id), environment_id, Role.ADMIN)
        other = Started(lambda: caller.client.get(f"/api/v1/environments/{environment_id}"))
        assert other.answer().status_code == 200
    caller.key.refresh_from_db()
    assert caller.key.last_used_at is None, "it had its use to note"


def test_a_key_that_expires_while_its_act_waits_holds_no_role(cast: Cast) -> None:
    caller = Caller(cast, ApiKeyAuthentication)
    ApiKey.objects.filter(id=caller.key.id).update(expires_at=Now())
    with pytest.raises(Unauthenticated):
        hold_role(Actor("api_key", caller.key.id), cast.environment.id, Role.VIEWER)


@pytest.mark.parametrize("actor", [TEST_ACTOR, Actor("staff")])
def test_staff_and_the_system_need_no_role(cast: Cast, actor: Actor) -> None:
    remove_member(environment_id=cast.environment.id, user_id=cast.viewer.id, actor=actor)
    assert not Membership.objects.filter(user=cast.viewer).exists()


def test_an_owner_makes_no_other_while_their_removal_waits(committed_cast: Cast) -> None:
    """The owner tries it while the removal is first in the queue for the lock."""
    cast = committed_cast
    members = f"/api/v1/environments/{cast.environment.id}/members"
    for _ in range(3):
        other, friend = UserFactory.create(), UserFactory.create()
        Membership.objects.create(environment=cast.environment, user=other, role="owner")
        Membership.objects.create(environment=cast.environment, user=friend, role="viewer")
        remove = partial(cast.client(cast.owner).delete, f"{members}/{other.id}")
        promote = partial(cast.client(other).patch, f"{members}/{friend.id}", {"role": "owner"})
        with transaction.atomic():
            lock_environment(cast.environment.id)
            removal: Started[Any] = Started(remove)
            removal.wait_until_blocked()
            promotion: Started[Any] = Started(promote)
            promotion.wait_until_blocked()
        statuses = [each.answer().status_code for each in (removal, promotion)]
        assert statuses == [204, 404]
        assert Membership.objects.get(user=friend).role == "viewer"
    assert not AuditEntry.objects.filter(action="member.role-changed").exists()
