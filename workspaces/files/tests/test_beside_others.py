"""A plan waits for nobody and makes nobody wait, however much it would change; and both it and an apply are short."""

import threading
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connection, transaction

from pipedai.api.errors import Conflict
from pipedai.events import Actor
from pipedai.sql import execute, fetch_all
from testing.probes.statement_count import counted
from testing.processes.racing import Started
from testing.processes.stuck_rows import all_rows_of, held, shorten_timeouts
from testing.world.cast import TEST_ACTOR, bearer
from testing.world.connections import add_connection
from testing.world.events import add_source
from testing.world.throttles import check_one_at_a_time, count_more
from testing.world.trigger_values import trigger_values
from triggers.models import Trigger
from triggers.services import TRIGGERS
from workers.models import Pool
from workspaces.files import changes, planning, views
from workspaces.files.changes import Request
from workspaces.files.tests.test_files import BUDGET, POOL, actions, apply, environment, plan
from workspaces.files.views import _PLANS
from workspaces.roles import Role
from workspaces.services import create_environment

URL = "https://a.example/mcp"
HOOK = "https://hooks.example/planted-hook"
CHANNEL = {"kind": "channel", "key": "c", "name": "C", "type": "webhook", "url": HOOK}
# What of other tables a statement of the session may still change, or keep others from changing.
_LOCKED = """
SELECT coalesce(c.relname, l.locktype) AS what, l.mode
FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = %(pid)s AND l.mode <> 'AccessShareLock'
    AND (c.relnamespace = 'public'::regnamespace OR l.locktype IN ('advisory', 'tuple'))
"""


def trigger(key: str, **more: Any) -> dict[str, Any]:
    named = {"kind": "trigger", "key": key, "name": key, "prompt": "Look.", "mcpUrl": URL}
    return {**named, **more}


def costly_schema(fields: int) -> dict[str, Any]:
    one = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$"}}}
    return {"type": "object", "properties": {f"p{n}": one for n in range(fields)}}


def everything(cast: Any) -> list[dict[str, Any]]:
    """Makes rows of all kinds with keys, and returns resources that change, add and delete such rows."""
    first = [
        POOL,
        {**POOL, "key": "gone", "name": "Gone"},
        BUDGET,
        {**CHANNEL, "events": ["run.ended"]},
        trigger("up", webhookUrl="https://a.example/hook"),
        trigger("gone", on=[{"trigger": "up", "outcome": "any"}]),
        trigger("changed", worker="host-1", on=[{"trigger": "up", "outcome": "any"}]),
    ]
    apply(cast, first)
    add_connection(cast, key="issues", managed_by="acme", mcp_url=URL)
    add_connection(cast, key="unused", managed_by="acme", mcp_url="https://b.example/mcp")
    add_source(cast, key="github", managed_by="acme")
    new = {"source": "new"}
    return [
        {**POOL, "description": "x"},
        {**POOL, "key": "new", "name": "New"},
        {**BUDGET, "limitUsd": "60", "trigger": "changed"},
        {**BUDGET, "key": "new", "name": "New"},
        {**CHANNEL, "triggers": ["changed"], "events": ["run.ended"]},
        {**CHANNEL, "key": "new", "url": HOOK},
        {
            "kind": "source",
            "key": "new",
            "name": "N",
            "scheme": "github",
            "secrets": ["planted-x" * 3],
        },
        {
            "kind": "connection",
            "key": "issues",
            "name": "Renamed",
            "mcpUrl": URL,
            "grant": "headers",
            "headers": {"secret": "ISSUES"},
        },
        trigger("up", webhookUrl="https://b.example/hook"),
        trigger("changed", pool="new", maxConcurrentRuns=1, on=[{"trigger": "new"}, new]),
        trigger("new", worker="host-1", maxConcurrentRuns=2, mcpHeaders={"x": "planted-header"}),
    ]


@pytest.fixture
def paused_plan(committed_cast, monkeypatch):
    """Yields a plan that has done everything but its rollback, and the pid of its session."""
    cast = committed_cast
    resources = everything(cast)
    done, end, told = threading.Event(), threading.Event(), {}
    real = changes.check_origins

    def pause(*args: Any) -> None:
        real(*args)
        told["pid"] = connection.connection.info.backend_pid
        done.set()
        assert end.wait(60)

    with monkeypatch.context() as patched:
        patched.setattr(planning, "check_origins", pause)
        planning_thread = Started(lambda: plan(cast, resources))
        assert done.wait(60)
    try:
        yield cast, told["pid"]
    finally:
        end.set()
    answer = planning_thread.answer()
    assert set(actions(answer).values()) == {"create", "update", "delete"}
    assert Trigger.objects.filter(key="gone", deleted_at=None).exists()


def test_others_do_their_work_while_a_plan_of_all_their_rows_is_under_way(paused_plan):
    cast, pid = paused_plan
    # It holds no lock of a table that others use.
    assert fetch_all(_LOCKED, {"pid": pid}) == []
    client, worker = cast.client(cast.admin), cast.worker_client()
    base, here = environment(cast), f"/api/v1/workers/{cast.worker.worker_id}"
    trigger_id = Trigger.objects.get(key="changed").id
    token = cast.mint("wrk")
    execute("SELECT set_config('lock_timeout', '100ms', false)", {})
    run = cast.key_client().post(f"/api/v1/triggers/{trigger_id}/run", {})
    assert run.status_code == 201, run.content
    claimed = worker.post(f"{here}/claim-next", {"claimId": "c", "start": True})
    assert claimed.json()["run"]["id"] == run.json()["id"]
    beat = worker.post(f"{here}/runs/{run.json()['id']}/heartbeat", {})
    machine = {"hostname": "host-2", "os": "linux", "version": "1", "maxConcurrency": 1}
    registered = bearer(token).post("/api/v1/workers/register", machine)
    # The plan would make rows with the same keys and names.
    same = {"name": "new", "key": "new"}
    body = {name: value for name, value in trigger("new").items() if name != "kind"}
    made = [
        client.post(f"{base}/triggers", {**body, "workerId": str(cast.worker.worker_id)}),
        client.post(f"{base}/pools", same),
        client.post(f"{base}/budgets", {**same, "period": "day", "limitRuns": 5}),
        client.patch(f"/api/v1/triggers/{trigger_id}", {"maxConcurrentRuns": 1}),
        client.patch(base, {"paused": True}),
        client.delete(f"/api/v1/pools/{Pool.objects.get(key='gone').id}"),
    ]
    answers = [beat, registered, *made]
    assert [each.status_code for each in answers] == [200, 201, 201, 201, 201, 200, 200, 204]


def test_a_plan_waits_for_nobody(committed_cast):
    """Each row that an apply of these resources would lock is locked by others."""
    cast = committed_cast
    resources = everything(cast)
    shorten_timeouts(lock="100ms")
    creator = "SELECT pg_advisory_xact_lock(hashtextextended('triggers of ' || %s::text, 0))"
    tables = ("environment", "membership", "user_account", "worker", "pool", "connection")
    more = ("event_source", "trigger", "listener", "budget", "channel", "data_key", "run")
    with ExitStack() as others:
        for table in (*tables, *more):
            others.enter_context(held(all_rows_of(table)))
        others.enter_context(held(creator, str(cast.workspace.created_by_id)))
        planned = planning.plan(
            environment_id=cast.environment.id,
            request=Request("acme", resources),
            actor=Actor("user", cast.admin.id),
            role=Role.ADMIN,
        )
    assert {each["action"] for each in planned["changes"]} == {"create", "update", "delete"}


def test_an_apply_lets_workers_claim_while_no_limit_of_a_trigger_that_runs_changes(committed_cast):
    cast = committed_cast
    apply(cast, [trigger("a", maxConcurrentRuns=2)])
    shorten_timeouts(lock="100ms")
    changed = [
        trigger("a", maxConcurrentRuns=2, prompt="Look again."),
        trigger("b", maxConcurrentRuns=2),
    ]
    with held(all_rows_of("worker")):
        assert actions(apply(cast, changed)) == {"a": "update", "b": "create"}
        limited = apply(cast, [trigger("a", maxConcurrentRuns=1)])
        assert limited.status_code == 503


@pytest.mark.parametrize("call", [plan, apply])
def test_a_trigger_takes_few_statements_to_make_or_change(cast, call):
    """Twelve are needed to change one alone, and 500 triggers keep the locks of an apply for as long."""

    def taken(triggers: list[dict[str, Any]]) -> int:
        digest = plan(cast, triggers).json()["digest"]
        with counted() as statements:
            answer = call(cast, triggers, **({} if call is plan else {"digest": digest}))
        assert answer.status_code == 200, answer.content
        return len(statements)

    def many(number: int, **more: Any) -> list[dict[str, Any]]:
        limits = {"worker": "host-1", "maxConcurrentRuns": 2, "schedule": "0 7 * * *"}
        return [trigger(f"t{n}", **limits, **more) for n in range(number)]

    one = taken(many(1))
    assert taken(many(11)) - one <= 2 * 10
    apply(cast, many(11))
    few = taken([*many(1, prompt="x"), *many(11)[1:]])
    # An apply also notes who changes a trigger, since they may not decide about calls of its runs.
    assert taken(many(11, prompt="y")) - few <= (2 if call is plan else 3) * 10


def test_a_plan_that_changes_nothing_takes_the_same_statements_for_many_triggers(cast):
    triggers = [trigger(f"t{n}") for n in range(20)]
    apply(cast, triggers)
    plan(cast, triggers)
    with counted() as of_all:
        assert set(actions(plan(cast, triggers)).values()) == {"none"}
    Trigger.objects.filter(key__in=[f"t{n}" for n in range(1, 20)]).update(key=None)
    with counted() as of_one:
        assert set(actions(plan(cast, triggers[:1])).values()) == {"none"}
    assert len(of_all) == len(of_one)


def test_the_triggers_of_the_creator_are_counted_in_all_environments(cast, ceilings):
    """A plan sees copies of this environment's triggers alone."""
    elsewhere = create_environment(
        workspace_id=cast.workspace.id, name="elsewhere", user_id=cast.owner.id, actor=TEST_ACTOR
    )
    values = trigger_values(name="Elsewhere")
    TRIGGERS.create(environment_id=elsewhere.id, actor=TEST_ACTOR, values=values)
    ceilings["triggersOfCreator"] = 3
    assert actions(plan(cast, [trigger("a")])) == {"a": "create"}
    refused = plan(cast, [trigger("a"), trigger("b")])
    assert refused.json()["code"] == "ceiling_reached"
    assert refused.json()["error"].startswith("trigger b: ")


def test_what_keeps_the_database_busy_for_long_is_too_much(cast, monkeypatch):
    digest = plan(cast, [POOL]).json()["digest"]
    monkeypatch.setattr(planning, "MOST_SECONDS", 0.000_001)
    for answer in (plan(cast, [POOL]), apply(cast, [POOL], digest)):
        assert (answer.status_code, answer.json()["code"]) == (409, "too_much_for_files")
    assert not Pool.objects.filter(key="builders").exists()


def test_what_computes_for_long_is_too_much_and_the_costliest_resource_is_named(cast, monkeypatch):
    resources = [trigger("wide", outputSchema=costly_schema(100))]
    digest = plan(cast, resources).json()["digest"]
    monkeypatch.setattr(planning, "MOST_CPU_SECONDS", 0.01)
    for answer in (plan(cast, resources), apply(cast, resources, digest)):
        assert (answer.status_code, answer.json()["code"]) == (409, "too_much_for_files")
        assert "The costliest is trigger wide, with " in answer.json()["error"]
    assert not Trigger.objects.filter(key="wide").exists()


def test_a_process_computes_two_plans_at_a_time_whosever_they_are(cast):
    with ExitStack() as others:
        for _ in range(2):
            others.enter_context(views._COMPUTING)
        refused = plan(cast, [POOL])
        assert (refused.status_code, refused["Retry-After"]) == (429, "1")
    assert plan(cast, [POOL]).status_code == 200
    assert plan(cast, [POOL]).status_code == 200, "the permit is given back"


def test_one_statement_alone_is_ended_too(cast, monkeypatch):
    monkeypatch.setattr(planning, "MOST_SECONDS", 0.1)
    with pytest.raises(Conflict), transaction.atomic(), planning.limited_time():
        execute("SELECT pg_sleep(60)", {})


def test_a_caller_plans_twelve_times_a_minute(cast, settings):
    settings.THROTTLES_ENABLED = True
    assert plan(cast, [], cast.viewer).status_code == 200
    count_more(_PLANS.rate, str(cast.viewer.id), 10)
    assert plan(cast, [], cast.viewer).status_code == 200
    refused = plan(cast, [], cast.viewer)
    assert refused.status_code == 429
    assert refused["RateLimit-Policy"] == '"plan";q=12;w=60'
    assert plan(cast, [], cast.operator).status_code == 200


@pytest.mark.parametrize("what", ["plan", "apply", "export"])
def test_a_workspace_has_one_of_each_under_way_at_a_time(cast, what):
    """Each holds all rows of an environment, whose prompts alone may take 32 MiB."""
    resources = [POOL]
    digest = plan(cast, resources).json()["digest"]
    body = {"managedBy": "acme", "resources": resources}

    def ask(**extra):
        client, url = cast.client(cast.admin), f"{environment(cast)}/{what}"
        if what == "export":
            return client.get(url, **extra)
        return client.post(url, body | ({"digest": digest} if what == "apply" else {}), **extra)

    check_one_at_a_time(ask, then={200, 409})
