"""Files are planned without a change, applied whole or not at all, and exported so that they plan to none."""

from datetime import UTC, datetime

import pytest

from testing.processes.racing import at_once
from testing.world.cast import TEST_ACTOR
from testing.world.events import add_source
from triggers.models import Budget, Trigger
from workers.models import Pool
from workspaces.files import kinds, planning
from workspaces.files.changes import Request

POOL = {"kind": "pool", "key": "builders", "name": "Builders"}
BUDGET = {"kind": "budget", "key": "all", "name": "Everything", "period": "month", "limitUsd": "50"}


def environment(cast):
    return f"/api/v1/environments/{cast.environment.id}"


def plan(cast, resources, user=None, **more):
    body = {"managedBy": "acme", "resources": resources, **more}
    return cast.client(user or cast.admin).post(f"{environment(cast)}/plan", body)


def apply(cast, resources, digest=None, **more):
    secrets = {name: more[name] for name in ("secrets", "managedBy") if name in more}
    digest = digest or plan(cast, resources, **secrets).json()["digest"]
    body = {"managedBy": "acme", "resources": resources, "digest": digest, **more}
    return cast.client(cast.admin).post(f"{environment(cast)}/apply", body)


def actions(answer):
    assert answer.status_code == 200, answer.content
    return {each["key"]: each["action"] for each in answer.json()["changes"]}


def test_a_plan_changes_nothing_and_apply_does_what_it_said(cast):
    planned = plan(cast, [POOL, BUDGET], cast.viewer)
    assert actions(planned) == {"builders": "create", "all": "create"}
    assert not Pool.objects.filter(key="builders").exists()
    applied = apply(cast, [POOL, BUDGET], planned.json()["digest"])
    assert applied.json()["changes"] == planned.json()["changes"]
    assert set(actions(plan(cast, [POOL, BUDGET])).values()) == {"none"}
    budget = {**BUDGET, "limitUsd": "60"}
    changed = plan(cast, [POOL, budget])
    assert actions(changed) == {"builders": "none", "all": "update"}
    assert changed.json()["changes"][1]["diff"] == {"limitUsd": ["50", "60"]}
    assert actions(apply(cast, [POOL, budget])) == actions(changed)


def test_prune_deletes_only_its_own(cast):
    apply(cast, [POOL, BUDGET])
    apply(cast, [{**POOL, "key": "others", "name": "Others"}], managedBy="elsewhere")
    Pool.objects.create(environment=cast.environment, name="By hand")
    assert actions(plan(cast, [])) == {"builders": "delete", "all": "delete"}
    assert actions(apply(cast, [])) == {}
    assert actions(apply(cast, [], prune=True)) == {"builders": "delete", "all": "delete"}
    live = Pool.objects.filter(environment=cast.environment, deleted_at__isnull=True)
    assert set(live.values_list("name", flat=True)) >= {"Others", "By hand"}
    assert not live.filter(key="builders").exists()


def test_a_single_due_time_is_no_part_of_files_and_stays(cast):
    url = "https://tools.example/mcp"
    trigger = {"kind": "trigger", "key": "once", "name": "Once", "prompt": "Look.", "mcpUrl": url}
    answer = plan(cast, [{**trigger, "runOnceAt": "2100-01-01T00:00:00Z"}])
    assert answer.json()["details"]["fieldErrors"] == {
        "trigger once.runOnceAt": ["It is no part of files."]
    }
    apply(cast, [trigger])
    row = Trigger.objects.get(key="once")
    row.run_once_at = row.next_run_at = datetime(2100, 1, 1, tzinfo=UTC)
    row.save()
    assert actions(plan(cast, [trigger])) == {"once": "none"}
    assert actions(apply(cast, [{**trigger, "prompt": "Look again."}])) == {"once": "update"}
    row.refresh_from_db()
    assert row.run_once_at is not None


def test_a_failure_in_the_middle_changes_nothing(cast):
    Pool.objects.create(environment=cast.environment, name="Taken")
    wrong = {"kind": "pool", "key": "z", "name": "Taken"}
    answer = plan(cast, [BUDGET, POOL, wrong])
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    assert answer.json()["error"].startswith("pool z: ")
    answer = plan(cast, [POOL, {**BUDGET, "period": "year", "no": 1}])
    assert set(answer.json()["details"]["fieldErrors"]) == {"budget all.period", "budget all.no"}
    assert not Budget.objects.filter(key="all").exists()


def test_what_changed_since_the_plan_makes_it_stale(cast):
    apply(cast, [POOL])
    digest = plan(cast, [{**POOL, "name": "B"}]).json()["digest"]
    Pool.objects.filter(key="builders").update(description="somebody was here")
    answer = apply(cast, [{**POOL, "name": "B"}], digest)
    assert (answer.status_code, answer.json()["code"]) == (409, "plan_stale")
    assert apply(cast, [POOL], digest).json()["code"] == "plan_stale"


def test_another_row_by_a_name_that_is_used_makes_a_plan_stale(cast):
    first = Pool.objects.create(environment=cast.environment, name="A", key="a")
    pooled = {"kind": "trigger", "key": "t", "name": "T", "prompt": "x", "pool": "a"}
    pooled["mcpUrl"] = "https://a.example/mcp"
    digest = plan(cast, [pooled]).json()["digest"]
    Pool.objects.filter(id=first.id).update(key=None)
    Pool.objects.create(environment=cast.environment, name="B", key="a")
    assert apply(cast, [pooled], digest).json()["code"] == "plan_stale"


def test_a_row_is_named_by_its_key_or_its_id_and_not_by_both(cast):
    channel = {"kind": "channel", "key": "c", "name": "C", "type": "webhook", "triggerIds": []}
    on = [{"source": "github", "sourceId": str(cast.trigger_id)}]
    trigger = {"kind": "trigger", "key": "t", "name": "T", "prompt": "x", "on": on}
    add_source(cast, key="github")
    for resource, said in [
        (
            {**channel, "triggers": []},
            {"channel c.triggers": ["Must not be there beside triggerIds."]},
        ),
        (trigger, {"trigger t.source": ["Must not be there beside sourceId."]}),
    ]:
        assert plan(cast, [resource]).json()["details"]["fieldErrors"] == said


@pytest.mark.parametrize(
    "wrong",
    [
        {f"f{n}": 1 for n in range(1000)},
        {"noticeAtPct": ["x"] * 1000},
        {"headers": {f"h{n}": 1 for n in range(10_000)}},
    ],
)
def test_what_is_wrong_a_thousand_times_is_said_briefly(cast, wrong):
    """Else a body of 8 MiB would make an answer that takes all of the process's memory."""
    resource = {**POOL, "kind": "connection"} if "headers" in wrong else BUDGET
    answer = plan(cast, [{**resource, **wrong}], cast.viewer)
    assert answer.status_code == 400
    assert len(answer.content) < 20_000


def test_a_long_key_that_is_given_twice_is_said_briefly(cast):
    answer = plan(cast, [{**POOL, "key": "k" * 100_000}] * 2, cast.viewer)
    assert (answer.status_code, len(answer.content) < 20_000) == (400, True)


def test_an_export_plans_to_no_change(cast):
    apply(cast, [POOL, BUDGET])
    unkeyed = Pool.objects.create(environment=cast.environment, name="By hand")
    answer = (
        cast.client(cast.viewer).get(f"{environment(cast)}/export", {"managedBy": "acme"}).json()
    )
    assert {each["key"] for each in answer["resources"]} == {"builders", "all"}
    assert {"kind": "pool", "id": str(unkeyed.id), "name": "By hand"} in answer["withoutKey"]
    assert set(actions(plan(cast, answer["resources"])).values()) == {"none"}


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        ({"kind": "planet", "key": "x"}, "resources.0.kind"),
        ({"kind": "pool"}, "resources.0.key"),
        ({"kind": "pool", "key": "No Slug", "name": "x"}, "pool No Slug.key"),
        ({"kind": "pool", "key": "slug\n", "name": "x"}, "pool slug\n.key"),
        ({"kind": "pool", "key": "k" * 1000, "name": "x"}, f"pool {'k' * 64}.key"),
        ({"kind": "channel", "key": "alarms", "name": "x"}, "channel alarms.type"),
        ({**BUDGET, "trigger": "nobody"}, "budget all.trigger"),
        ({**BUDGET, "trigger": 5}, "budget all.trigger"),
        ({"kind": [], "key": {}}, "resources.0.kind"),
    ],
)
def test_a_resource_that_is_wrong_is_named(cast, resource, field):
    answer = plan(cast, [resource])
    assert answer.status_code == 400
    assert field in answer.json()["details"]["fieldErrors"]


def test_an_environment_with_too_much_is_neither_planned_nor_exported(cast, monkeypatch):
    """Its rows would take the memory in which the process answers everybody."""
    monkeypatch.setattr(kinds, "MOST_BYTES", 1)
    exported = cast.client(cast.viewer).get(f"{environment(cast)}/export")
    for answer in (plan(cast, []), exported):
        assert (answer.status_code, answer.json()["code"]) == (409, "too_much_for_files")


@pytest.mark.parametrize(
    "long",
    [
        {"prompt": "x" * 2000},
        {"outputSchema": {"type": "object", "description": "x" * 2000}},
        {"before": {"tool": "look", "arguments": {"of": "x" * 2000}}},
        {"approvals": [{"tools": [f"send_{n:0100}" for n in range(20)]}]},
        {"on": [{"source": "github", "types": [f"push.{n:0100}" for n in range(20)]}]},
    ],
)
def test_all_that_makes_triggers_long_counts(cast, monkeypatch, long):
    """Nested JSON takes more memory than text of the same length."""
    add_source(cast, key="github")
    url = "https://a.example/mcp"
    trigger = {"kind": "trigger", "key": "t", "name": "T", "prompt": "x", "mcpUrl": url}
    apply(cast, [trigger])
    monkeypatch.setattr(kinds, "MOST_BYTES", 1500)
    assert actions(plan(cast, [trigger])) == {"t": "none"}
    digest = plan(cast, [{**trigger, **long}]).json()["digest"]
    assert apply(cast, [{**trigger, **long}], digest).status_code == 200
    answer = plan(cast, [trigger])
    assert (answer.status_code, answer.json()["code"]) == (409, "too_much_for_files")


def test_another_row_with_the_key_is_a_conflict(cast):
    pools = f"{environment(cast)}/pools"
    client = cast.client(cast.admin)
    assert client.post(pools, {"name": "A", "key": "a"}).status_code == 201
    assert client.post(pools, {"name": "B", "key": "a"}).json()["code"] == "key_taken"
    other = client.post(pools, {"name": "B"}).json()["id"]
    assert client.patch(f"/api/v1/pools/{other}", {"key": "a"}).json()["code"] == "key_taken"


def test_of_two_applies_at_once_one_is_stale(committed_cast):
    cast = committed_cast
    digest = plan(cast, [POOL]).json()["digest"]
    request = Request("acme", [POOL], digest=digest)

    def call():
        return planning.apply(environment_id=cast.environment.id, request=request, actor=TEST_ACTOR)

    results = at_once(call, call)
    assert sorted(getattr(each, "code", "done") for each in results) == ["done", "plan_stale"]
    assert Pool.objects.filter(key="builders").count() == 1
