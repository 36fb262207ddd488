"""An enrollment code may say which pools the host's worker joins."""

import pytest
from django.db.models.functions import Now

from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.probes.shapes import invalid
from testing.world.cast import bearer
from testing.world.pools import add_pool
from workers.enrollment.tests.enrolling import begin, issue, redeem
from workers.models import Enrollment, Pool, PoolMember


@pytest.fixture
def pools(cast):
    return sorted(str(add_pool(cast)) for _ in range(2))


def _url(cast):
    return f"/api/v1/environments/{cast.environment.id}/enrollments"


def _pools_of(worker_id):
    rows = PoolMember.objects.filter(worker_id=worker_id).order_by("pool_id")
    return [str(pool_id) for pool_id in rows.values_list("pool_id", flat=True)]


def test_a_code_shows_its_pools_and_the_audit_log_names_them(cast, pools):
    with audited() as rows:
        issued = issue(cast, poolIds=[pools[1], *pools])
    assert issued["poolIds"] == pools
    ((_, metadata),) = rows.told()
    assert metadata["poolIds"] == pools
    (item,) = cast.client(cast.admin).get(_url(cast)).json()["items"]
    assert item["poolIds"] == pools


def test_the_worker_joins_those_of_them_that_still_exist(cast, pools):
    code = issue(cast, poolIds=pools)["code"]
    assert cast.client(cast.owner).delete(f"/api/v1/pools/{pools[0]}").status_code == 204
    with audited() as rows:
        host = redeem(code=code).json()
    assert _pools_of(host["workerId"]) == [pools[1]]
    ((_, metadata),) = rows.told()
    assert metadata["poolIds"] == [pools[1]]
    # The host may now mint tokens for further workers of this pool.
    url = f"/api/v1/workspaces/{cast.workspace.id}/workers/registration-token"
    operator = bearer(host["operatorToken"])
    assert operator.post(url, {"poolIds": [pools[1]]}).status_code == 201
    assert operator.post(url, {"poolIds": [pools[0]]}).status_code == 400


def test_a_host_that_finds_no_room_joins_nothing_and_may_come_again(cast, pools, ceilings):
    code = issue(cast, poolIds=pools)["code"]
    ceilings["poolsOfWorker"] = 1
    answer = redeem(code=code)
    assert (answer.status_code, answer.json()["code"]) == (409, "ceiling_reached")
    ceilings["poolsOfWorker"] = 20
    assert _pools_of(redeem(code=code).json()["workerId"]) == pools


def test_without_pools_the_worker_joins_none(cast, pools):
    bodies: list[dict] = [{}, {"poolIds": []}]
    for body in bodies:
        issued = issue(cast, **body)
        assert issued["poolIds"] == []
        assert _pools_of(redeem(code=issued["code"]).json()["workerId"]) == []


def test_only_pools_of_the_environment_are_taken(cast, pools):
    foreign = Pool.objects.create(environment=cast.strange_environment, name="foreign").id
    Pool.objects.filter(id=pools[1]).update(deleted_at=Now())
    client = cast.client(cast.admin)
    for other in (foreign, pools[1], new_id()):
        refused = client.post(_url(cast), {"poolIds": [pools[0], other]})
        assert (refused.status_code, refused.json()) == (
            400,
            invalid({"poolIds": ["One of the ids is no pool of this environment."]}),
        )
    too_many = client.post(_url(cast), {"poolIds": [new_id() for _ in range(21)]})
    assert too_many.json() == invalid({"poolIds": ["A machine is in at most 20 pools."]})
    for bad in ("x", ["x"], [None], None, 5):
        assert client.post(_url(cast), {"poolIds": bad}).status_code == 400
    assert not Enrollment.objects.exists()


def test_a_pairing_has_no_pools(cast, pools):
    assert begin(poolIds=pools).status_code == 201
    assert Enrollment.objects.get().pool_ids is None
