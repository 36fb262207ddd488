"""The endpoints of pools and of their workers."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.sql import database_now, execute
from testing.probes.audited import audited
from testing.probes.plans import explained
from testing.probes.shapes import A_TIME, AN_ID, NOT_FOUND, invalid, page
from testing.world.copied_rows import copy_row
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Trigger
from workers.models import Pool, PoolMember, Worker


@pytest.fixture
def client(cast):
    return cast.client(cast.admin)


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/pools"


@pytest.fixture
def pool_id(cast):
    """A pool with the cast's worker."""
    return add_pool(cast, cast.worker.worker_id, name="Machines")


@pytest.fixture
def one(pool_id):
    return f"/api/v1/pools/{pool_id}"


def member(pool_id, worker_id):
    return f"/api/v1/pools/{pool_id}/workers/{worker_id}"


def shown(cast, **changes):
    return {
        "id": AN_ID,
        "key": None,
        "managedBy": None,
        "environmentId": str(cast.environment.id),
        "name": "Machines",
        "description": "",
        "workers": {"total": 0, "online": 0, "free": 0},
        "createdAt": A_TIME,
        **changes,
    }


class TestMaking:
    def test_a_pool_has_a_name_and_no_workers(self, cast, client, url):
        with audited() as rows:
            response = client.post(url, {"name": " Machines ", "description": "In Berlin."})
        assert response.status_code == 201
        made = response.json()
        assert made == shown(cast, description="In Berlin.")
        metadata = rows.the_only(
            "pool.created",
            by=("user", cast.admin.id),
            on=("pool", UUID(made["id"])),
            within=cast.environment.id,
        )
        assert metadata == {"name": "Machines"}
        assert client.get(f"/api/v1/pools/{made['id']}").json() == made
        assert client.get(url).json() == page(made)

    def test_its_name_is_its_own_but_for_case_until_it_is_deleted(self, client, url, one):
        taken = {
            "error": "The environment has a pool of this name already.",
            "code": "name_taken",
        }
        refused = client.post(url, {"name": "MACHINES"})
        assert (refused.status_code, refused.json()) == (409, taken)
        other = client.post(url, {"name": "Others"}).json()["id"]
        refused = client.patch(f"/api/v1/pools/{other}", {"name": "machines"})
        assert (refused.status_code, refused.json()) == (409, taken)
        assert client.patch(one, {"name": "MACHINES"}).json()["name"] == "MACHINES"
        assert client.delete(one).status_code == 204
        assert client.post(url, {"name": "machines"}).status_code == 201

    def test_an_environment_has_only_so_many(self, client, url, pool_id, ceilings):
        ceilings["pools"] = 2
        assert client.post(url, {"name": "second"}).status_code == 201
        refused = client.post(url, {"name": "third"})
        assert refused.status_code == 409
        assert refused.json() == {
            "error": "The environment has 2 pools, as many as it may.",
            "code": "ceiling_reached",
            "ceiling": "pools",
        }
        client.delete(f"/api/v1/pools/{pool_id}")
        assert client.post(url, {"name": "third"}).status_code == 201

    @pytest.mark.parametrize(
        "body",
        [{"name": ""}, {"name": 5}, {"name": None}, {"name": "x" * 201}, {"name": "a\nb"}],
        ids=str,
    )
    def test_a_bad_name_is_refused(self, client, url, one, body):
        for response in (client.post(url, body), client.patch(one, body)):
            assert response.status_code == 400
            assert list(response.json()["details"]["fieldErrors"]) == ["name"]


class TestChanging:
    def test_the_row_says_old_and_new_and_cuts_what_is_long(self, cast, client, one, pool_id):
        with audited() as rows:
            changed = client.patch(one, {"name": "Macs", "description": "x" * 2000})
        assert changed.status_code == 200
        assert (changed.json()["name"], len(changed.json()["description"])) == ("Macs", 2000)
        metadata = rows.the_only(
            "pool.updated",
            by=("user", cast.admin.id),
            on=("pool", pool_id),
            within=cast.environment.id,
        )
        assert metadata == {"name": ["Machines", "Macs"], "description": ["", "x" * 200 + "…"]}

    @pytest.mark.parametrize("body", [{}, {"name": "Machines"}, {"description": ""}], ids=str)
    def test_what_is_as_it_was_changes_nothing(self, client, one, body):
        before = client.get(one).json()
        with audited() as rows:
            assert client.patch(one, body).json() == before
        assert rows == []


class TestDeleting:
    def test_its_workers_stay_and_are_in_it_no_more(self, cast, client, one):
        with audited() as rows:
            assert client.delete(one).status_code == 204
        assert [action for action, _ in rows.told()] == ["pool.deleted"]
        assert not PoolMember.objects.exists()
        worker = client.get(f"/api/v1/workers/{cast.worker.worker_id}").json()
        assert worker["poolIds"] == []
        for gone in (client.get(one), client.delete(one), client.patch(one, {"name": "x"})):
            assert (gone.status_code, gone.json()) == (404, NOT_FOUND)
        assert client.put(f"{one}/workers/{cast.worker.worker_id}").status_code == 404

    def test_not_while_triggers_point_at_it(self, cast, client, one, pool_id):
        trigger_id = cast.add_trigger(worker_id=None, pool_id=pool_id)
        refused = client.delete(one)
        assert refused.status_code == 409
        assert refused.json() == {
            "error": "The pool still has 1 trigger.",
            "code": "has_children",
        }
        assert PoolMember.objects.count() == 1
        Trigger.objects.filter(id=trigger_id).update(deleted_at=Now())
        assert client.delete(one).status_code == 204


class TestItsWorkers:
    def test_one_is_put_in_once_and_taken_out_once(self, cast, client, pool_id):
        other = cast.register("host-2").worker_id
        url = member(pool_id, other)
        with audited() as rows:
            assert [client.put(url).status_code for _ in range(2)] == [204, 204]
            shown = client.get(f"/api/v1/workers/{other}").json()
            assert shown["poolIds"] == [str(pool_id)]
            assert [client.delete(url).status_code for _ in range(2)] == [204, 204]
        assert rows.told() == [
            ("pool.worker-added", {"workerId": str(other)}),
            ("pool.worker-removed", {"workerId": str(other)}),
        ]
        assert client.get(f"/api/v1/workers/{other}").json()["poolIds"] == []

    def test_only_workers_of_its_environment(self, cast, client, pool_id):
        foreign = Worker.objects.create(
            environment=cast.strange_environment,
            label="theirs",
            hostname="theirs",
            os="linux",
            version="1",
            auth_mode="claude_max",
            max_concurrency=1,
        )
        gone = cast.register("gone").worker_id
        Worker.objects.filter(id=gone).update(deleted_at=Now(), token_digest=None)
        for worker_id in (foreign.id, gone, new_id()):
            url = member(pool_id, worker_id)
            for answer in (client.put(url), client.delete(url)):
                assert (answer.status_code, answer.json()) == (404, NOT_FOUND)

    def test_one_is_in_only_so_many_pools(self, cast, client, pool_id, ceilings):
        ceilings["poolsOfWorker"] = 1
        second = add_pool(cast)
        refused = client.put(member(second, cast.worker.worker_id))
        assert refused.status_code == 409
        assert refused.json() == {
            "error": "The machine may be in 1 pools, and would be in more.",
            "code": "ceiling_reached",
            "ceiling": "poolsOfWorker",
        }
        assert client.put(member(pool_id, cast.worker.worker_id)).status_code == 204
        assert PoolMember.objects.count() == 1

    def test_the_list_of_workers_is_filtered_by_the_pool(self, cast, client, pool_id):
        cast.register("host-2")
        url = f"/api/v1/environments/{cast.environment.id}/workers"
        (item,) = client.get(url, {"poolId": pool_id}).json()["items"]
        assert (item["hostname"], item["poolIds"]) == ("host-1", [str(pool_id)])
        assert client.get(url, {"poolId": add_pool(cast)}).json() == page()
        foreign = Pool.objects.create(environment=cast.strange_environment, name="theirs").id
        for other in (foreign, new_id()):
            refused = client.get(url, {"poolId": other})
            assert refused.status_code == 400
            assert refused.json() == invalid({"poolId": ["No such id in this environment."]})

    def test_one_that_is_deregistered_leaves_its_pools(self, cast, client, one):
        Trigger.objects.update(worker_id=None)
        assert client.delete(f"/api/v1/workers/{cast.worker.worker_id}").status_code == 204
        assert client.get(one).json()["workers"]["total"] == 0


class TestTheNumbersOfWorkers:
    """How many there are, how many are online, and how many of these can take another run."""

    def counts(self, client, one):
        return tuple(client.get(one).json()["workers"].values())

    def test_one_is_online_while_it_calls(self, client, one):
        assert self.counts(client, one) == (1, 0, 0)
        Worker.objects.update(last_seen_at=Now())
        assert self.counts(client, one) == (1, 1, 1)
        Worker.objects.update(last_seen_at=Now() - timedelta(seconds=181))
        assert self.counts(client, one) == (1, 0, 0)

    def test_one_is_free_unless_it_is_disabled_limited_or_full(self, cast, client, one):
        Worker.objects.update(last_seen_at=Now(), unapproved_since=Now())
        assert self.counts(client, one) == (1, 1, 1)
        Worker.objects.update(disabled_at=Now())
        assert self.counts(client, one) == (1, 1, 0)
        Worker.objects.update(disabled_at=None, limited_until=Now() + timedelta(minutes=1))
        assert self.counts(client, one) == (1, 1, 0)
        Worker.objects.update(limited_until=Now() - timedelta(minutes=1))
        assert self.counts(client, one) == (1, 1, 1)
        runs = Runs(cast, cast.trigger_id, now=database_now())
        held = runs.running()
        assert self.counts(client, one) == (1, 1, 0)
        Worker.objects.update(max_concurrency=2)
        assert self.counts(client, one) == (1, 1, 1)
        runs.complete(held, "succeeded")
        Worker.objects.update(max_concurrency=1)
        assert self.counts(client, one) == (1, 1, 1)

    def test_one_in_two_pools_counts_in_both(self, cast, client, url, pool_id):
        Worker.objects.update(last_seen_at=Now())
        second = add_pool(cast, cast.worker.worker_id, cast.register("host-2").worker_id)
        counts = {
            item["id"]: tuple(item["workers"].values()) for item in client.get(url).json()["items"]
        }
        assert counts == {str(pool_id): (1, 1, 1), str(second): (2, 1, 1)}


def test_a_list_looks_at_each_member_once_also_after_all_have_left_and_joined_again(
    cast, client, url
):
    """PostgreSQL has seen the tables without members, so it expects one of them."""
    copy_row(Worker, cast.worker.worker_id, 199, hostname="'member-' || n", token_digest="NULL")
    for _ in range(10):
        add_pool(cast)
    _join_all()
    PoolMember.objects.all().delete()
    execute("ANALYZE worker, pool_member", {})
    _join_all()
    with explained("WITH") as plans:
        (first, *_) = client.get(url).json()["items"]
    assert first["workers"]["total"] == 200
    # There are 2,000 members.
    assert plans.rows_of_all_scans < 10_000


def _join_all():
    statement = """
    INSERT INTO pool_member (worker_id, pool_id, environment_id)
    SELECT w.id, p.id, w.environment_id FROM worker w JOIN pool p USING (environment_id)
    """
    execute(statement, {})
