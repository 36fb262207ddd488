"""Tenants take turns at firing, so that one tenant's due triggers do not delay another's."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import transaction

from pipedai.sql import Row, execute
from testing.probes.plans import explained
from testing.processes.racing import accepted, at_once
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.many_triggers import add_triggers
from testing.world.tenants import add_environments
from triggers.models import Run, Tick, Trigger
from triggers.schedules import firing
from triggers.schedules.firing import TURNS, fire_due_ticks

NOON = datetime(2100, 5, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def make_due(cast: Cast, count: int, *, due: datetime = NOON) -> None:
    """Adds so many triggers to the cast's environment, which come due at that time.

    They have no worker, because the environments of these tests have none. Their ticks take as long to decide.
    """
    add_triggers(cast, count, schedule="* * * * *", due=due, worker_id=None)


def due_triggers(*, limit: int, now: datetime) -> list[Row]:
    return TURNS.rows(limit=limit, now=now, most_pairs=firing._MOST_PAIRS)


def decided(cast: Cast) -> int:
    """Returns how many triggers of the cast's environment have a decided tick."""
    mine = Tick.objects.filter(environment=cast.environment)
    return mine.values("trigger_id").distinct().count()


def picked(limit: int, *, now: datetime = NOON) -> Counter[UUID]:
    """Returns how many triggers of each workspace the next batch would have, without firing it."""
    with transaction.atomic():
        rows = due_triggers(limit=limit, now=now)
    assert len({row["id"] for row in rows}) == len(rows) <= limit
    of_environment = Trigger.objects.values_list("environment_id", "environment__workspace_id")
    workspaces = dict(of_environment.distinct())
    return Counter(workspaces[row["environment_id"]] for row in rows)


@cases("environments", [1, 20], undone=True)
def test_thousands_of_due_triggers_of_one_workspace_delay_another_by_no_batch(
    cast: Cast, environments: int
) -> None:
    for mine in add_environments(cast, environments):
        # These have been due for longer than those of the other workspace, and their environments are older.
        make_due(mine, 2_000 // environments, due=NOON - MINUTE)
    (other,) = add_environments(cast, 1)
    make_due(other, 3)
    assert fire_due_ticks(now=NOON) > 250
    assert decided(other) == 3
    # The other workspace has no more due triggers, so the next batch is all for the one with thousands.
    assert fire_due_ticks(now=NOON) == 500


def test_the_runs_of_another_are_queued_in_the_first_batch(cast: Cast) -> None:
    for mine in add_environments(cast, 5):
        make_due(mine, 400, due=NOON - MINUTE)
    add_triggers(cast, 2, schedule="* * * * *", due=NOON)
    fire_due_ticks(now=NOON)
    assert Run.objects.filter(environment=cast.environment, source="schedule").count() == 2


def test_a_batch_is_split_between_workspaces_and_not_between_environments(cast: Cast) -> None:
    many, one = add_environments(cast, 12), add_environments(cast, 1)
    for mine in (*many, *one):
        make_due(mine, 40)
    batch = picked(20)
    assert batch == {many[0].workspace.id: 10, one[0].workspace.id: 10}


def test_a_workspace_that_is_alone_has_the_whole_batch(cast: Cast) -> None:
    for mine in add_environments(cast, 3):
        make_due(mine, 30)
    assert list(picked(20).values()) == [20]


def test_with_more_workspaces_than_places_each_of_them_has_its_turn(cast: Cast) -> None:
    tenants = add_environments(cast, 12, workspaces=12)
    for mine in tenants:
        make_due(mine, 3)
    for _ in range(4):
        assert list(picked(4).values()) == [1] * 4
        assert fire_due_ticks(limit=4, now=NOON) == 4
    # Each batch draws the order of the workspaces anew, so more than five of them have had a turn by now.
    assert sum(decided(mine) > 0 for mine in tenants) > 5
    while fire_due_ticks(limit=4, now=NOON):
        pass
    assert {decided(mine) for mine in tenants} == {3}


def test_of_a_workspace_those_that_have_waited_longest_come_first(cast: Cast) -> None:
    newer, older = add_environments(cast, 2)
    make_due(newer, 10)
    make_due(older, 10, due=NOON - MINUTE)
    with transaction.atomic():
        rows = due_triggers(limit=11, now=NOON)
    assert sum(row["environment_id"] == older.environment.id for row in rows) >= 5
    with transaction.atomic():
        (first,) = due_triggers(limit=1, now=NOON)
    assert first["environment_id"] == older.environment.id


def test_a_look_that_ends_early_sees_the_oldest(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firing, "_MOST_PAIRS", 2)
    for age, mine in enumerate(add_environments(cast, 4, workspaces=4)):
        make_due(mine, 1, due=NOON - age * MINUTE)
    batches = []
    while batch := fire_due_ticks(now=NOON):
        batches.append(batch)
    assert batches == [2, 2]


def test_a_batch_of_five_thousand_due_triggers_reads_no_more_than_it_takes(cast: Cast) -> None:
    for age, mine in enumerate(add_environments(cast, 20, workspaces=10)):
        make_due(mine, 250, due=NOON - age % 5 * MINUTE)
    execute("ANALYZE trigger", {})
    with explained() as plans, transaction.atomic():
        batch = due_triggers(limit=500, now=NOON)
    assert len(batch) == 500
    assert "trigger" not in plans.read_whole
    assert plans.rows_read("trigger") < 1_000


def test_schedulers_at_once_split_the_turns_and_decide_each_tick_once(
    committed_cast: Cast,
) -> None:
    tenants = [
        *add_environments(committed_cast, 3, workspaces=1),
        *add_environments(committed_cast, 3, workspaces=3),
    ]
    for mine in tenants:
        make_due(mine, 30)

    def drain() -> int:
        # A scheduler skips what another one holds. It does not wait, so it may find nothing before all is done.
        return sum(iter(lambda: fire_due_ticks(limit=20, now=NOON), 0))

    assert sum(accepted(at_once(drain, drain, drain))) + drain() == 180
    assert Tick.objects.count() == 180
    assert {decided(mine) for mine in tenants} == {30}
