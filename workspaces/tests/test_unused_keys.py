"""The unused `wrk_` keys of a deactivated user are revoked, and stay so when the user is activated."""

from functools import partial

import pytest

from accounts.services import deactivate_user, reactivate_user
from pipedai.events import Actor
from testing.probes.audited import audited
from testing.processes.racing import at_once
from testing.world.cast import TEST_ACTOR, bearer, register
from workspaces.api_keys import mint_api_key
from workspaces.models import ApiKey, Membership

STAFF = Actor("staff", None, "192.0.2.9", "support-1")


def minted(cast, kind, environment=None):
    """Mints a key as the admin, and returns its row and its token."""
    return mint_api_key(
        environment_id=(environment or cast.environment).id,
        name="k",
        kind=kind,
        user_id=cast.admin.id,
        actor=TEST_ACTOR,
    )


def registering(token):
    body = {"hostname": "new", "os": "linux", "version": "1"}
    return bearer(token).post("/api/v1/workers/register", body).status_code


def test_they_register_nobody_any_more_not_even_after_the_user_came_back(cast):
    _, token = minted(cast, "wrk")
    deactivate_user(user_id=cast.admin.id, actor=STAFF)
    assert registering(token) == 401
    reactivate_user(user_id=cast.admin.id, actor=STAFF)
    assert registering(token) == 401


def test_each_environment_is_told_of_its_own(cast):
    Membership.objects.create(environment=cast.strange_environment, user=cast.admin, role="admin")
    here, _ = minted(cast, "wrk")
    there, _ = minted(cast, "wrk", cast.strange_environment)
    with audited() as rows:
        deactivate_user(user_id=cast.admin.id, actor=STAFF)
    assert [row.action for row in rows] == ["user.deactivated", *["api-key.revoked"] * 2]
    revoked = {row.target_id: row for row in rows[1:]}
    assert {key_id: row.environment_id for key_id, row in revoked.items()} == {
        here.id: cast.environment.id,
        there.id: cast.strange_environment.id,
    }
    assert {str(row.metadata) for row in rows[1:]} == {"{'because': 'user.deactivated'}"}
    assert {row.actor_type for row in rows} == {"staff"}


def test_used_ones_their_workers_pwk_keys_and_those_of_others_live_on(cast):
    used, token = minted(cast, "wrk")
    worker = register(token, "host-2")
    external, pwk = minted(cast, "pwk")
    others = cast.mint("wrk")
    deactivate_user(user_id=cast.admin.id, actor=STAFF)
    assert not ApiKey.objects.filter(id__in=[used.id, external.id], revoked_at__isnull=False)
    assert (
        cast.worker_client(worker).get(f"/api/v1/workers/{worker.worker_id}/poll").status_code
        == 200
    )
    assert bearer(pwk).get(f"/api/v1/environments/{cast.environment.id}").status_code == 200
    assert registering(others) == 201


@pytest.mark.parametrize("round_", range(4))
def test_none_minted_at_the_moment_of_the_deactivation_outlives_it(committed_cast, round_):
    cast = committed_cast
    mint = partial(minted, cast, "wrk")
    at_once(mint, partial(deactivate_user, user_id=cast.admin.id, actor=STAFF), mint)
    assert not ApiKey.objects.filter(created_by=cast.admin, revoked_at__isnull=True).exists()


@pytest.mark.parametrize("round_", range(4))
def test_one_used_at_the_moment_of_the_deactivation_is_used_or_revoked(committed_cast, round_):
    key, token = minted(committed_cast, "wrk")
    at_once(
        partial(register, token, "host-2"),
        partial(deactivate_user, user_id=committed_cast.admin.id, actor=STAFF),
    )
    key.refresh_from_db()
    assert (key.consumed_at is None) is (key.revoked_at is not None)
