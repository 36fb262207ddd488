"""GET /environments/:envId/triggers with `sort` and `include`"""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from pipedai.sql import database_now
from testing.probes.plans import explained
from testing.world.cases import cases
from testing.world.copied_rows import copy_ended_run
from testing.world.instants import INSTANTS
from testing.world.many_triggers import add_triggers
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers import listing
from triggers.models import Run, Trigger, TriggerHealth
from triggers.states import TERMINAL
from workers.models import Worker


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/triggers"


@pytest.fixture
def get(cast, url):
    return lambda **query: cast.client(cast.viewer).get(url, query).json()


def names(page):
    return [item["name"] for item in page["items"]]


def walk(get, after_each=lambda: None, **query):
    """Returns the names on all pages, each of two."""
    found: list[str] = []
    while True:
        page = get(limit=2, **query)
        found += names(page)
        if page["nextCursor"] is None:
            return found
        query["cursor"] = page["nextCursor"]
        after_each()


def due(cast, name, moment, **values):
    trigger_id = cast.add_trigger(name=name, schedule="0 6 * * *", **values)
    Trigger.objects.filter(id=trigger_id).update(next_run_at=moment)
    return trigger_id


def judged(cast, trigger_id, **values):
    TriggerHealth.objects.create(
        trigger_id=trigger_id, environment=cast.environment, has_outcome=True, **values
    )


def limited(cast, name):
    """Returns a worker whose account has reached its usage limit."""
    worker_id = cast.register(name).worker_id
    Worker.objects.filter(id=worker_id).update(limited_until="2100-01-01T00:00Z")
    return worker_id


def test_attention_has_what_is_wrong_first_and_then_what_is_due(cast, get):
    later, sooner = (datetime(2100, 1, day, tzinfo=UTC) for day in (2, 1))
    due(cast, "well, due later", later)
    due(cast, "well, due sooner", sooner)
    one, other = limited(cast, "one"), limited(cast, "other")
    due(cast, "limited", later, worker_id=one)
    due(cast, "of a limited pool", sooner, worker_id=None, pool_id=add_pool(cast, one, other))
    half = add_pool(cast, other, cast.register("free").worker_id, name="half")
    due(cast, "of a pool with a free worker", later, worker_id=None, pool_id=half)
    due(cast, "limited, free pool", later, worker_id=one, pool_id=half)
    cast.add_trigger(name="off", enabled=False, worker_id=one)
    judged(cast, due(cast, "late", later), late_since=sooner)
    judged(cast, due(cast, "failing", later), is_failing=True, failures=1)
    assert walk(get, sort="attention") == [
        "failing", "late", "of a limited pool", "limited",
        "well, due sooner", "well, due later", "of a pool with a free worker", "limited, free pool",
        "Nightly report", "off",
    ]  # fmt: skip


def test_names_are_sorted_by_code_points_of_their_lower_case(cast, get):
    for name in ("b", "A", "ä", "a", "Z", "_", "B"):
        cast.add_trigger(name=name)
    assert walk(get, sort="name") == ["_", "A", "a", "b", "B", "Nightly report", "Z", "ä"]


def test_those_without_a_due_time_come_last(cast, get):
    moments = [datetime(2100, 1, day, tzinfo=UTC) for day in (3, 1, 2, 2)]
    for n, moment in enumerate(moments):
        due(cast, str(n), moment)
    assert walk(get, sort="nextDueAt") == ["1", "2", "3", "0", "Nightly report"]


@cases("instant", INSTANTS, undone=True)
def test_what_costs_most_this_month_comes_first(cast, instant):
    now = INSTANTS[instant]
    month = now.replace(day=1, hour=0, minute=0, second=0)
    for name, cost, ended in (
        ("a little", "0.002", month),
        ("much", "12", now),
        ("last month", "20", month - timedelta(seconds=1)),
        ("never told", None, now),
    ):
        runs = Runs(cast, cast.add_trigger(name=name), ended)
        Run.objects.filter(id=runs.ended()).update(cost_usd=cost)
    keys = listing.sort_keys("-costThisMonth", cast.environment.id, now=now)
    found = [*Trigger.objects.annotate(cost=keys[0]).order_by("cost", "id")]
    assert [each.name for each in found[:2]] == ["much", "a little"]
    assert [each.cost for each in found[2:]] == [0, 0, 0]


def test_a_page_goes_on_after_a_cost(cast, get):
    for name, cost in (("a", "0.1"), ("b", "0.10"), ("c", "3"), ("d", "0.3")):
        run_id = Runs.of(cast, name=name).ended()
        Run.objects.filter(id=run_id).update(cost_usd=cost, ended_at=database_now())
    assert walk(get, sort="-costThisMonth") == ["c", "d", "a", "b", "Nightly report"]


@cases("sort", listing.SORTS, undone=True)
def test_a_row_that_stays_is_seen_once_while_others_come_and_go(cast, get, sort):
    for n in range(6):
        cast.add_trigger(name=f"stays {n}")
    numbers = count()

    def others_come_and_go():
        due(cast, f"a new one {next(numbers)}", database_now())
        Trigger.objects.filter(name="stays 5").update(deleted_at=database_now())

    found = walk(get, others_come_and_go, sort=sort)
    stays = [name for name in found if name.startswith("stays") and name != "stays 5"]
    assert sorted(stays) == [f"stays {n}" for n in range(5)]


def test_a_cursor_is_good_for_its_order_alone_and_for_any_include(cast, get, url):
    cast.add_trigger()
    cursor = get(sort="name", limit=1, include="total")["nextCursor"]
    assert len(get(sort="name", limit=1, cursor=cursor)["items"]) == 1
    for other in ({"sort": "attention"}, {}):
        response = cast.client(cast.viewer).get(url, {**other, "cursor": cursor})
        assert response.status_code == 400
    assert list(get(sort="created")["details"]["fieldErrors"]) == ["sort"]


def test_the_total_is_of_what_the_filters_keep_and_has_an_end(cast, get, monkeypatch):
    for _ in range(3):
        cast.add_trigger(name="Other")
    assert "total" not in get()
    assert get(include="total", limit=1)["total"] == 4
    assert get(include="total,recent", search="oTHER")["total"] == 3
    monkeypatch.setattr("triggers.views.MOST_COUNTED", 2)
    assert get(include="total")["total"] == 2


def test_recent_are_the_last_ended_runs_with_the_newest_last(cast, get):
    runs = Runs.of(cast)
    runs.queue()
    runs.cancel(runs.queue())
    run_id = runs.ended()
    copy_ended_run(run_id, 40, status="(ARRAY['succeeded', 'failed', 'timed_out', 'canceled'])[mod(n, 4) + 1]",
        fault_class="(ARRAY['none', 'client', 'client', 'none'])[mod(n, 4) + 1]")  # fmt: skip
    other, mine = get(include="recent")["items"][::-1]
    assert other["recent"] == []
    assert len(mine["recent"]) == listing.RECENT_RUNS
    newest = Run.objects.filter(trigger_id=runs.trigger_id, ended_at__isnull=False)
    newest = newest.order_by("-ended_at")[: listing.RECENT_RUNS]
    assert [each["id"] for each in mine["recent"]] == [str(run.id) for run in newest][::-1]
    assert list(mine["recent"][0]) == ["id", "status", "nothingNew", "durationMs", "endedAt"]
    assert {each["status"] for each in mine["recent"]} == set(TERMINAL)


def test_recent_reads_no_more_runs_than_it_shows(cast):
    add_triggers(cast, 20)
    run_id = Runs(cast, cast.trigger_id).ended()
    of_each = "(SELECT id FROM trigger ORDER BY id OFFSET mod(n, 20) LIMIT 1)"
    copy_ended_run(run_id, 4_000, trigger_id=of_each,
        revision_id=f"(SELECT revision_id FROM trigger WHERE id = {of_each})")  # fmt: skip
    rows: list[Any] = [*Trigger.objects.values("id")[:10]]
    with explained("SELECT t.id") as plans:
        listing.with_recent_runs(rows)
    assert plans.read_whole == set()
    assert plans.rows_read("run") < 10 * (listing.RECENT_RUNS + len(TERMINAL) + 1)
