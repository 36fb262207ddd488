"""GET /environments/:envId/triggers"""

import pytest
from django.db.models.functions import Now

from pipedai.api import pagination
from pipedai.api.filters import TextFilter, TrueFalseFilter
from testing.probes.shapes import A_TIME, invalid, page
from testing.world.cases import cases
from testing.world.connections import CONNECTION_URL, add_connection
from testing.world.events import add_source
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow
from triggers.events.listening import OF_SOURCE
from triggers.models import Run, Tick, Trigger, TriggerHealth
from triggers.serializers import MAX_PROMPT_BYTES
from triggers.views import TriggerFilters


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/triggers"


def ids(response):
    assert response.status_code == 200
    return [item["id"] for item in response.json()["items"]]


def test_each_is_shown_as_a_read_of_it_shows_it(cast, url):
    cast.add_trigger(name="Second")
    client = cast.client(cast.viewer)
    items = client.get(url).json()["items"]
    assert [item["name"] for item in items] == ["Second", "Nightly report"]
    for item in items:
        assert client.get(f"/api/v1/triggers/{item['id']}").json() == item


def test_the_last_run_is_the_newest_one(cast, url):
    client = cast.client(cast.owner)
    assert client.get(url).json()["items"][0]["lastRun"] is None
    runs = [
        client.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"] for _ in range(2)
    ]
    client.post(f"/api/v1/runs/{runs[1]}/cancel")
    assert client.get(url).json()["items"][0]["lastRun"] == {
        "id": runs[1],
        "status": "canceled",
        "nothingNew": False,
        "queuedAt": A_TIME,
        "endedAt": A_TIME,
    }
    Run.objects.filter(id=runs[0]).update(queued_at="2099-01-01T00:00:00Z")
    last = client.get(url).json()["items"][0]["lastRun"]
    assert last == {
        "id": runs[0],
        "status": "queued",
        "nothingNew": False,
        "queuedAt": "2099-01-01T00:00:00.000Z",
        "endedAt": None,
    }


def test_deleted_ones_are_gone(cast, url):
    kept = cast.add_trigger()
    Trigger.objects.filter(id=cast.trigger_id).update(deleted_at="2026-01-01T00:00:00Z")
    assert ids(cast.client(cast.viewer).get(url)) == [str(kept)]


def test_those_of_other_environments_are_not_there(cast):
    url = f"/api/v1/environments/{cast.strange_environment.id}/triggers"
    assert cast.client(cast.stranger).get(url).json() == page()


class TestLongPrompts:
    LONGEST = "é" * (MAX_PROMPT_BYTES // 2)

    def test_a_page_ends_before_its_prompts_are_too_much_and_the_next_goes_on(self, cast, url):
        made = [str(cast.add_trigger(prompt=self.LONGEST)) for _ in range(18)]
        client = cast.client(cast.viewer)
        first = client.get(url, {"limit": 200}).json()
        assert [item["id"] for item in first["items"]] == made[:1:-1]
        second = client.get(url, {"limit": 200, "cursor": first["nextCursor"]}).json()
        assert [item["id"] for item in second["items"]] == [made[1], made[0], str(cast.trigger_id)]
        assert second["nextCursor"] is None

    def test_a_limit_that_is_reached_before_counts_as_ever(self, cast, url):
        made = [str(cast.add_trigger(prompt=self.LONGEST)) for _ in range(3)]
        page = cast.client(cast.viewer).get(url, {"limit": 2}).json()
        assert [item["id"] for item in page["items"]] == [made[2], made[1]]
        assert page["nextCursor"]

    def test_a_page_holds_one_however_long(self, cast, url, monkeypatch):
        monkeypatch.setattr(pagination, "MAX_PAGE_BYTES", 3)
        newer = cast.add_trigger()
        client = cast.client(cast.viewer)
        first = client.get(url).json()
        assert [item["id"] for item in first["items"]] == [str(newer)]
        second = client.get(url, {"cursor": first["nextCursor"]}).json()
        assert [item["id"] for item in second["items"]] == [str(cast.trigger_id)]
        assert second["nextCursor"] is None


def of_another_worker(cast):
    worker_id = cast.register("host-2").worker_id
    return {"worker_id": worker_id}, str(worker_id)


def of_another_health(cast):
    TriggerHealth.objects.create(
        trigger_id=cast.trigger_id, environment=cast.environment, has_outcome=True
    )
    return {}, "idle"


def of_a_pool(cast):
    pool_id = add_pool(cast)
    return {"pool_id": pool_id}, str(pool_id)


def of_a_connection(cast):
    connection_id = add_connection(cast)
    return {"connection_id": connection_id, "mcp_url": CONNECTION_URL}, str(connection_id)


def of_a_source(cast):
    source_id = str(add_source(cast))
    return {"on": [{"sourceId": source_id, **dict.fromkeys(OF_SOURCE)}]}, source_id


def of_declared(declared):
    """Returns what KEPT says of a filter that compares a whole text or a boolean, or None for another filter."""
    column = declared.field_name
    if isinstance(declared, TrueFalseFilter):
        value = not getattr(Trigger(), column)
        return lambda _: ({column: value}, str(value).lower())
    if isinstance(declared, TextFilter) and declared.lookup_expr == "exact":
        return lambda _: ({column: "Some text"}, "Some text")
    return None


# For each filter: the values of a trigger that it keeps, and what is asked for. It keeps none of the cast. What a
# filter of a text or of a boolean keeps follows from its declaration.
KEPT = {
    **{
        name: of_declared(each)
        for name, each in TriggerFilters.base_filters.items()
        if name not in ("sort", "include")
    },
    "health": of_another_health,
    "workerId": of_another_worker,
    "poolId": of_a_pool,
    "connectionId": of_a_connection,
    "listensTo": of_a_source,
    "recordEvents": lambda _: ({"record_events": "never"}, "never"),
    "name": lambda _: ({"name": "Umsätze 100 %_x\\"}, "sÄTze 100 %_X\\"),
    "search": lambda _: ({"name": "Umsätze", "key": "100-x_y"}, "0-X_"),
}


@pytest.mark.parametrize("name", sorted(KEPT))
def test_each_filter_keeps_what_it_asks_for(cast, url, name):
    assert name in TriggerFilters.base_filters, f"{name} is no filter in triggers/views.py"
    assert KEPT[name], f'{name} is not in KEPT of this file (CONTRIBUTING.md, "A filter")'
    values, asked = KEPT[name](cast)
    kept = cast.add_trigger(**values)
    assert ids(cast.client(cast.viewer).get(url, {name: asked})) == [str(kept)]


@cases(
    ("query", "count"),
    [
        ("enabled=true", 1),
        ("enabled=", 1),
        ("name=", 1),
        ("name=%20", 1),
        ("name=NIGHTLY", 1),
        ("name=%20y%20r%20", 1),
        ("name=%25", 0),
        ("name=_ightly", 0),
        ("name=nightly&enabled=false", 0),
        ("name=nightly&enabled=true&workerId=", 1),
    ],
    undone=True,
)
def test_filters_by_name_and_whether_it_is_enabled(cast, url, query, count):
    assert len(ids(cast.client(cast.viewer).get(f"{url}?{query}"))) == count


def test_bad_values_of_these_filters_are_refused(cast, url):
    get = cast.client(cast.viewer).get
    for value in ("1", "True", "yes", "\x00"):
        fields = get(url, {"enabled": value}).json()["details"]["fieldErrors"]
        assert fields == {"enabled": ["Must be true or false."]}
    assert get(url, {"name": "x" * 200}).status_code == 200
    for value in ("x" * 201, "\x00"):
        assert list(get(url, {"name": value}).json()["details"]["fieldErrors"]) == ["name"]


def test_the_last_due_time_and_the_last_success_are_shown(cast, url):
    client, runs = cast.client(cast.viewer), Runs(cast, cast.trigger_id)
    early, late = runs.running(), runs.queue()
    runs.wait(minutes=1)
    runs.cancel(late)
    (item,) = client.get(url).json()["items"]
    assert (item["lastDueAt"], item["lastSuccessAt"]) == (None, None)
    allow(cast.worker.worker_id, 2)
    runs.ended()
    runs.wait(minutes=5)
    runs.complete(early)
    runs.wait(minutes=1)
    runs.ended("failed")
    tick = {"environment": cast.environment, "trigger_id": cast.trigger_id}
    for hour, last, decision in ((9, 11, "skipped_missed"), (12, 14, "skipped_no_worker")):
        Tick.objects.create(
            **tick,
            tick_at=f"2026-05-04T{hour:02}:00Z",
            last_tick_at=f"2026-05-04T{last}:00Z",
            decision=decision,
            missed_count=3,
        )
    (item,) = client.get(url).json()["items"]
    assert item["lastDueAt"] == "2026-05-04T14:00:00.000Z"
    assert item["lastSuccessAt"] == "2026-05-04T12:06:00.000Z"


class TestFilteredByWorker:
    def test_only_its_triggers_are_listed(self, cast, url):
        other = cast.register("host-2").worker_id
        its = cast.add_trigger(worker_id=other)
        cast.add_trigger(worker_id=None)
        client = cast.client(cast.viewer)
        assert ids(client.get(url, {"workerId": str(other)})) == [str(its)]
        assert ids(client.get(url, {"workerId": str(cast.worker.worker_id)})) == [
            str(cast.trigger_id)
        ]

    @cases("spelling", [str.upper, "{{{}}}".format, " {} ".format], undone=True)
    def test_a_uuid_may_be_spelled_in_any_way(self, cast, url, spelling):
        value = spelling(str(cast.worker.worker_id))
        assert ids(cast.client(cast.viewer).get(url, {"workerId": value})) == [str(cast.trigger_id)]

    @cases("value", ["", " "], undone=True)
    def test_nothing_is_no_filter(self, cast, url, value):
        assert len(ids(cast.client(cast.viewer).get(url, {"workerId": value}))) == 1

    @cases("value", ["x", "1", "null", "None", "\x00", "01a20e5f"], undone=True)
    def test_anything_else_is_refused(self, cast, url, value):
        response = cast.client(cast.viewer).get(url, {"workerId": value})
        assert (response.status_code, response.json()) == (
            400,
            invalid({"workerId": ["Enter a valid UUID."]}),
        )

    def test_the_last_of_several_counts(self, cast, url):
        worker = cast.worker.worker_id
        assert len(ids(cast.client(cast.viewer).get(f"{url}?workerId=x&workerId={worker}"))) == 1


@cases("query", ["triggerId=garbage", "status=garbage", "from=x", "nonsense"], undone=True)
def test_parameters_of_other_lists_are_ignored(cast, url, query):
    assert ids(cast.client(cast.viewer).get(f"{url}?{query}")) == [str(cast.trigger_id)]


def test_counts_are_of_the_whole_environment_whatever_is_kept(cast, url):
    def judge(trigger_id, **health):
        health |= {"trigger_id": trigger_id, "environment": cast.environment}
        TriggerHealth.objects.create(**health)

    client = cast.client(cast.viewer)
    assert "counts" not in client.get(url).json()
    failing = {"is_failing": True, "has_outcome": True, "failures": 1}
    judge(cast.add_trigger(name="a"), **failing)
    judge(cast.add_trigger(name="b"), late_since=Now())
    judge(cast.add_trigger(name="c", enabled=False), **failing)
    cast.add_trigger(name="d", enabled=False, deleted_at=Now())
    asked = client.get(url, {"include": "counts", "name": "a", "limit": 1}).json()
    assert asked["counts"] == {"failing": 1, "late": 1, "disabled": 1}
