"""A `hos_` key may manage the workers that its host registered, and nothing else."""

from datetime import timedelta
from functools import partial

import pytest
from django.db.models.functions import Now

from pipedai.events import Actor
from testing.probes.shapes import invalid
from testing.processes.racing import at_once
from testing.world.cast import TEST_ACTOR, bearer, enroll
from testing.world.pools import add_pool
from workers.models import Worker
from workspaces.api_keys import mint_registration_token, revoke_api_key
from workspaces.models import ApiKey
from workspaces.services import create_environment


@pytest.fixture
def host(cast):
    return cast.host()


@pytest.fixture
def base(cast):
    return f"/api/v1/workspaces/{cast.workspace.id}/workers"


def register(token, hostname="build-3"):
    body = {"hostname": hostname, "os": "linux", "version": "1"}
    return bearer(token).post("/api/v1/workers/register", body)


def test_it_lists_the_workers_of_its_environment(cast, host, base):
    items = bearer(host.operator_token).get(base).json()["items"]
    assert [item["id"] for item in items] == [str(host.worker_id), str(cast.worker.worker_id)]
    assert {"status", "derivedStatus", "currentRunId", "version", "lastSeenAt", "disabled"} <= set(
        items[0]
    )


def test_the_published_client_gets_two_hundred_of_them_at_once(cast, host, base):
    for n in range(60):
        cast.register(f"more-{n}")
    answer = bearer(host.operator_token).get(base).json()
    assert (len(answer["items"]), answer["nextCursor"]) == (62, None)
    page = bearer(host.operator_token).get(f"{base}?limit=2").json()
    rest = bearer(host.operator_token).get(base, {"cursor": page["nextCursor"]}).json()
    assert len(rest["items"]) == 60


def test_it_disables_enables_and_deletes_the_worker_it_enrolled(cast, host, base):
    client, url = bearer(host.operator_token), f"{base}/{host.worker_id}"
    assert client.post(f"{url}/disable").json()["derivedStatus"] == "disabled"
    assert client.post(f"{url}/enable").json()["disabled"] is False
    assert client.delete(url).status_code == 204
    assert client.delete(url).status_code == 404
    assert cast.worker_client(host).get(f"/api/v1/workers/{host.worker_id}/poll").status_code == 401


def test_it_can_not_delete_a_worker_that_triggers_point_at(cast, host, base):
    cast.add_trigger(worker_id=host.worker_id)
    answer = bearer(host.operator_token).delete(f"{base}/{host.worker_id}")
    assert (answer.status_code, "1 trigger" in answer.json()["error"]) == (409, True)


def _calls(client, base, worker_id):
    return {
        client.post(f"{base}/{worker_id}/disable").status_code,
        client.post(f"{base}/{worker_id}/enable").status_code,
        client.delete(f"{base}/{worker_id}").status_code,
        client.get(f"/api/v1/workers/{worker_id}/events/stream").status_code,
    }


def test_workers_that_it_did_not_bring_in_are_not_there(cast, host, base):
    other_host = cast.host("host-other")
    client = bearer(host.operator_token)
    assert _calls(client, base, cast.worker.worker_id) == {404}
    assert _calls(client, base, other_host.worker_id) == {404}


def test_nothing_of_another_environment_is_there_in_the_same_workspace_too(cast, base):
    sister = create_environment(
        workspace_id=cast.workspace.id, name="staging", user_id=cast.owner.id, actor=TEST_ACTOR
    )
    host, theirs = cast.host(), enroll(sister, cast.owner, "host-enrolled")
    client = bearer(host.operator_token)
    assert str(theirs.worker_id) not in client.get(base).content.decode()
    assert _calls(client, base, theirs.worker_id) == {404}
    minted = client.post(f"{base}/registration-token", {}).json()["token"]
    assert register(minted).json()["environmentId"] == str(cast.environment.id)
    # An admin's `pwk_` key does not find that worker either.
    assert _calls(cast.key_client("admin"), base, theirs.worker_id) == {404}


def test_no_other_workspace_will_do(cast, host):
    strange = f"/api/v1/workspaces/{cast.strange_environment.workspace_id}/workers"
    client = bearer(host.operator_token)
    assert client.get(strange).status_code == 404
    assert client.post(f"{strange}/registration-token", {}).status_code == 404
    assert client.delete(f"{strange}/{host.worker_id}").status_code == 404


def test_a_token_that_it_mints_registers_one_worker_of_its_own(cast, host, base):
    client = bearer(host.operator_token)
    minted = client.post(f"{base}/registration-token", {"label": "second"}).json()
    key = ApiKey.objects.get(id=minted["id"])
    assert key.expires_at is not None
    assert key.expires_at - key.created_at <= timedelta(minutes=15)
    worker_id = register(minted["token"]).json()["workerId"]
    assert client.post(f"{base}/{worker_id}/disable").status_code == 200
    assert register(minted["token"], "build-4").status_code == 401


def test_what_a_minted_token_registers_takes_nobodys_place(cast, host, base):
    for client, host_key in (
        (bearer(host.operator_token), Worker.objects.get(id=host.worker_id).host_key_id),
        (cast.key_client("admin"), None),
    ):
        minted = client.post(f"{base}/registration-token", {}).json()["token"]
        worker = Worker.objects.get(id=register(minted, "host-1").json()["workerId"])
        assert worker.id != cast.worker.worker_id
        assert worker.hostname.startswith("host-1-")
        assert worker.host_key_id == host_key


def test_a_worker_that_an_admins_token_registers_again_is_the_hosts_no_more(cast, host, base):
    assert register(cast.mint("wrk"), "host-enrolled").json()["workerId"] == str(host.worker_id)
    assert _calls(bearer(host.operator_token), base, host.worker_id) == {404}


@pytest.mark.parametrize("kind", ["hos", "pwk"])
def test_a_minted_token_dies_with_the_key_that_minted_it(cast, host, base, kind):
    client = bearer(host.operator_token) if kind == "hos" else cast.key_client("admin")
    minted = client.post(f"{base}/registration-token", {}).json()
    parent = ApiKey.objects.filter(kind=kind).latest("id")
    url = f"/api/v1/environments/{cast.environment.id}/api-keys/{parent.id}"
    assert cast.client(cast.admin).delete(url).status_code == 204
    assert register(minted["token"]).status_code == 401
    assert client.get(base).status_code == 401
    assert ApiKey.objects.get(id=minted["id"]).revoked_at is not None


def test_no_token_is_left_that_was_minted_while_its_key_was_revoked(committed_cast):
    environment = committed_cast.environment
    for n in range(3):
        committed_cast.host(f"host-{n}")
        key = ApiKey.objects.filter(kind="hos").latest("id")
        mint = partial(
            mint_registration_token,
            environment_id=environment.id,
            label=None,
            actor=Actor("api_key", key.id),
        )
        revoke = partial(
            revoke_api_key, environment_id=environment.id, key_id=key.id, actor=TEST_ACTOR
        )
        at_once(mint, mint, revoke, mint)
        assert not ApiKey.objects.filter(parent=key, revoked_at__isnull=True).exists()


def test_a_minted_token_dies_with_a_key_that_expired(cast, base):
    client = cast.key_client("admin")
    minted = client.post(f"{base}/registration-token", {}).json()["token"]
    ApiKey.objects.filter(kind="pwk").update(expires_at=Now())
    assert register(minted).status_code == 401


def test_a_host_and_its_tokens_outlive_the_user_who_let_it_in(cast, host, base):
    minted = bearer(host.operator_token).post(f"{base}/registration-token", {}).json()["token"]
    url = f"/api/v1/environments/{cast.environment.id}/members/{cast.owner.id}"
    cast.environment.memberships.filter(user=cast.admin).update(role="owner")
    assert cast.client(cast.admin).delete(url).status_code == 204
    assert register(minted).status_code == 201
    assert bearer(host.operator_token).get(base).status_code == 200


def test_it_is_listed_with_the_keys_and_notes_its_use(cast, host, base):
    bearer(host.operator_token).get(base)
    url = f"/api/v1/environments/{cast.environment.id}/api-keys"
    items = cast.client(cast.viewer).get(url).json()["items"]
    (item,) = [item for item in items if item["prefix"] == "hos"]
    assert (item["role"], item["lastFour"]) == (None, host.operator_token[-4:])
    assert item["lastUsedAt"] is not None


def test_nobody_mints_a_hosts_key_by_hand(cast):
    url = f"/api/v1/environments/{cast.environment.id}/api-keys"
    assert cast.client(cast.admin).post(url, {"name": "x", "prefix": "hos"}).status_code == 400


@pytest.mark.parametrize("path", ["pool-workers", "admin/pool-workers/x/disable"])
def test_the_vendors_own_fleet_is_not_served(cast, host, path):
    assert bearer(host.operator_token).get(f"/api/v1/{path}").status_code == 404


class TestThePoolsOfItsWorkers:
    """A host may let its further workers join the pools in which its workers are, and no others."""

    def mint(self, client, base, pool_id):
        return client.post(f"{base}/registration-token", {"poolIds": [pool_id]})

    def pools_of_new_worker(self, cast, minted):
        worker_id = register(minted.json()["token"]).json()["workerId"]
        return cast.client(cast.viewer).get(f"/api/v1/workers/{worker_id}").json()["poolIds"]

    def test_it_names_one_of_its_own(self, cast, host, base):
        own, other = add_pool(cast, host.worker_id), add_pool(cast, cast.worker.worker_id)
        client = bearer(host.operator_token)
        refused = self.mint(client, base, other)
        assert refused.status_code == 400
        assert refused.json() == invalid(
            {"poolIds": ["One of the ids is no pool of a worker of this host."]}
        )
        assert self.pools_of_new_worker(cast, self.mint(client, base, own)) == [str(own)]

    def test_and_it_joins_none_that_the_host_has_left_since(self, cast, host, base):
        own = add_pool(cast, host.worker_id)
        minted = self.mint(bearer(host.operator_token), base, own)
        cast.client(cast.admin).delete(f"/api/v1/pools/{own}/workers/{host.worker_id}")
        assert self.pools_of_new_worker(cast, minted) == []

    def test_an_admins_key_names_any(self, cast, base):
        pool_id = add_pool(cast)
        minted = self.mint(cast.key_client("admin"), base, pool_id)
        assert self.pools_of_new_worker(cast, minted) == [str(pool_id)]
