"""GET /environments/:envId/workers"""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from pipedai.sql import database_now
from testing.probes.shapes import A_TIME, invalid, page
from testing.world.runs import Runs, allow
from testing.world.shown_rows import shown_worker
from workers.models import Worker


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/workers"


@pytest.fixture
def get(cast, url):
    client = cast.client(cast.viewer)
    return lambda query="": client.get(f"{url}?{query}")


def seen(seconds_ago):
    Worker.objects.update(last_seen_at=Now() - timedelta(seconds=seconds_ago))


def hold_a_run(cast):
    run_id = cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"]
    cast.worker_client().post(f"/api/v1/workers/{cast.worker.worker_id}/runs/{run_id}/claim", {})
    return run_id


def test_one_that_was_never_seen_is_offline(cast, get):
    assert get().json() == page(shown_worker(cast))


def test_a_poll_makes_it_online(cast, get):
    cast.worker_client().get(f"/api/v1/workers/{cast.worker.worker_id}/poll")
    assert get().json() == page(
        shown_worker(cast, status="online", derivedStatus="online", lastSeenAt=A_TIME)
    )


def test_a_heartbeat_makes_it_online_and_a_claim_does_not(cast, get):
    run_id = hold_a_run(cast)
    assert get().json()["items"][0]["status"] == "offline"
    cast.worker_client().post(
        f"/api/v1/workers/{cast.worker.worker_id}/runs/{run_id}/heartbeat", {}
    )
    assert get().json()["items"][0]["status"] == "online"


@pytest.mark.parametrize(
    ("seconds_ago", "status"), [(0, "online"), (175, "online"), (181, "offline")]
)
def test_it_is_online_for_three_minutes(get, seconds_ago, status):
    seen(seconds_ago)
    assert get().json()["items"][0]["status"] == status


@pytest.mark.parametrize(
    ("disabled", "busy", "online", "derived"),
    [
        (True, True, True, "disabled"),
        (True, False, False, "disabled"),
        (False, True, True, "busy"),
        (False, True, False, "busy"),
        (False, False, True, "online"),
        (False, False, False, "offline"),
    ],
)
def test_its_derived_status_is_the_first_that_holds(cast, get, disabled, busy, online, derived):
    run_id = hold_a_run(cast) if busy else None
    seen(0 if online else 1000)
    if disabled:
        Worker.objects.update(disabled_at=Now())
    (item,) = get().json()["items"]
    assert item == shown_worker(
        cast,
        status="online" if online else "offline",
        derivedStatus=derived,
        currentRunId=run_id,
        heldRuns=int(busy),
        disabled=disabled,
        lastSeenAt=A_TIME,
    )


def test_of_several_runs_the_one_it_took_first_is_current(cast, get):
    allow(cast.worker.worker_id, 3)
    runs = [hold_a_run(cast) for _ in range(2)]
    (item,) = get().json()["items"]
    assert (item["currentRunId"], item["heldRuns"]) == (runs[0], 2)


class TestFilteredByStatus:
    @pytest.fixture(autouse=True)
    def _other(self, cast):
        """Makes host-1 online, host-2 never seen, and host-3 last seen an hour ago."""
        cast.register("host-2")
        cast.register("host-3")
        Worker.objects.filter(hostname="host-1").update(last_seen_at=Now())
        Worker.objects.filter(hostname="host-3").update(last_seen_at=Now() - timedelta(hours=1))

    @pytest.mark.parametrize(
        ("query", "hosts"),
        [
            ("status=online", ["host-1"]),
            ("status=offline", ["host-3", "host-2"]),
            ("status=", ["host-3", "host-2", "host-1"]),
            ("", ["host-3", "host-2", "host-1"]),
            ("state=online", ["host-3", "host-2", "host-1"]),
        ],
    )
    def test_it_is_online_or_offline(self, get, query, hosts):
        assert [item["hostname"] for item in get(query).json()["items"]] == hosts

    @pytest.mark.parametrize("value", ["busy", "Online", "online,offline", "x"])
    def test_anything_else_is_refused(self, get, value):
        response = get(f"status={value}")
        assert (response.status_code, response.json()) == (
            400,
            invalid(
                {"status": [f"Select a valid choice. {value} is not one of the available choices."]}
            ),
        )

    def test_a_disabled_one_may_be_online(self, get):
        Worker.objects.update(disabled_at=Now())
        assert [item["hostname"] for item in get("status=online").json()["items"]] == ["host-1"]


def test_deregistered_ones_are_gone(cast, get):
    Worker.objects.update(deleted_at=Now(), token_digest=None)
    assert get().json() == page()


def test_those_of_other_environments_are_not_there(cast):
    url = f"/api/v1/environments/{cast.strange_environment.id}/workers"
    assert cast.client(cast.stranger).get(url).json() == page()


def test_recent_counts_the_runs_that_ended_in_each_of_the_last_24_hours(cast):
    other = cast.register("host-2").worker_id
    url = f"/api/v1/environments/{cast.environment.id}/workers"
    now = database_now()
    for minutes in (1, 59, 61, 24 * 60 - 1, 24 * 60 + 1):
        Runs(cast, cast.trigger_id, now=now - timedelta(minutes=minutes)).ended()
    client = cast.client(cast.viewer)
    assert "recent" not in client.get(url).json()["items"][0]
    items = client.get(url, {"include": "recent"}).json()["items"]
    recent = {item["id"]: item["recent"] for item in items}
    assert recent == {
        str(cast.worker.worker_id): [1, *[0] * 21, 1, 2],
        str(other): [0] * 24,
    }


def test_counts_are_of_the_whole_environment_and_those_with_problems_are_found(cast, get):
    seen(0)
    other = cast.register("host-2").worker_id
    Worker.objects.filter(id=other).update(problems=[{"code": "no_claude", "message": "None."}])
    asked = get("include=counts,recent&hasProblems=true").json()
    assert [item["id"] for item in asked["items"]] == [str(other)]
    assert asked["counts"] == {"online": 1, "offline": 1, "withProblems": 1}
    without = get("hasProblems=false").json()
    assert [item["id"] for item in without["items"]] == [str(cast.worker.worker_id)]
    assert "counts" not in without
    assert get("hasProblems=x").status_code == 400
