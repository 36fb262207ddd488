"""`runOnceAt`: a single due time, which is decided like those of a schedule, and then removed."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notices.lateness import find_late_triggers
from notices.models import Incident
from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM
from testing.probes.shapes import invalid
from testing.processes.forks import kill_before_commit
from testing.processes.racing import at_once
from testing.processes.worker_process import until
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers import services
from triggers.explain.due_times import explain_trigger
from triggers.models import Run, Tick, Trigger, TriggerHealth
from triggers.schedules.cron import DueTimes, Schedule
from triggers.schedules.firing import fire_due_ticks
from workspaces.models import Environment

NOON = datetime(2100, 5, 4, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def once(cast: Cast, at: datetime = NOON, **values: Any) -> UUID:
    """Adds a trigger that is due at the time, and by its schedule, if it has one, not before."""
    trigger_id = cast.add_trigger(**values)
    Trigger.objects.filter(id=trigger_id).update(run_once_at=at, next_run_at=at)
    return trigger_id


def decided(trigger_id: UUID) -> list[tuple[datetime, str]]:
    ticks = Tick.objects.filter(trigger_id=trigger_id).order_by("tick_at")
    return list(ticks.values_list("tick_at", "decision"))


def left(trigger_id: UUID) -> tuple[datetime | None, datetime | None]:
    return Trigger.objects.values_list("run_once_at", "next_run_at").get(id=trigger_id)


# --- Setting it


@pytest.fixture
def patch(cast):
    url = f"/api/v1/triggers/{cast.trigger_id}"
    return lambda **body: cast.client(cast.admin).patch(url, body)


def test_it_is_a_whole_minute_and_the_next_due_time_if_it_comes_first(patch):
    soon = datetime.now(UTC).replace(second=0, microsecond=0) + 5 * MINUTE
    shown = patch(runOnceAt=iso_time(soon - timedelta(seconds=59))).json()
    assert shown["runOnceAt"] == shown["nextRunAt"] == iso_time(soon)
    assert patch(runOnceAt=iso_time(soon)).json()["updatedAt"] == shown["updatedAt"]
    yearly = f"{soon.minute} {soon.hour} {soon.day % 28 + 1} * *"
    assert patch(schedule=yearly).json()["nextRunAt"] == iso_time(soon)
    assert patch(enabled=False).json()["nextRunAt"] is None
    assert patch(enabled=True).json()["nextRunAt"] == iso_time(soon)
    assert patch(runOnceAt=None, schedule=None).json()["nextRunAt"] is None


def test_it_lies_in_the_next_366_days(patch):
    now = datetime.now(UTC)
    for at in (now - MINUTE, now + timedelta(days=366, minutes=1)):
        assert patch(runOnceAt=iso_time(at)).json() == invalid(
            {"runOnceAt": ["Must be in the future, and at most 366 days ahead."]}
        )
    assert patch(runOnceAt=iso_time(now + timedelta(days=365, hours=23))).status_code == 200


def change(trigger_id: UUID, **values: Any) -> None:
    services.TRIGGERS.update(trigger_id, values=values, actor=SYSTEM)


def test_a_change_between_the_due_time_and_its_decision_does_not_lose_it(cast, monkeypatch):
    monkeypatch.setattr(services, "database_now", lambda: NOON + timedelta(seconds=1))
    trigger_id = once(cast)
    change(trigger_id, schedule="30 * * * *")
    assert left(trigger_id) == (NOON, NOON)
    fire_due_ticks(now=NOON + timedelta(seconds=2))
    assert decided(trigger_id) == [(NOON, "fired")]
    assert left(trigger_id) == (None, NOON + HOUR / 2)


def test_one_that_passes_while_the_trigger_is_disabled_is_lost(cast, monkeypatch):
    trigger_id = once(cast)
    change(trigger_id, enabled=False)
    monkeypatch.setattr(services, "database_now", lambda: NOON)
    change(trigger_id, enabled=True)
    assert left(trigger_id) == (None, None)
    assert fire_due_ticks(now=NOON) == 0


# --- Deciding


def test_it_makes_one_run_and_is_gone(cast):
    trigger_id = once(cast)
    assert fire_due_ticks(now=NOON - timedelta(microseconds=1)) == 0
    assert fire_due_ticks(now=NOON) == 1
    assert decided(trigger_id) == [(NOON, "fired")]
    run = Run.objects.get(trigger_id=trigger_id)
    assert (run.source, run.scheduled_for, run.available_at) == ("schedule", NOON, NOON)
    assert left(trigger_id) == (None, None)
    assert fire_due_ticks(now=NOON + HOUR) == 0


def test_with_a_schedule_there_is_a_tick_for_each_due_time_and_one_for_a_common_one(cast):
    trigger_id = once(cast, NOON + HOUR / 2, schedule="0 * * * *")
    Trigger.objects.filter(id=trigger_id).update(next_run_at=NOON)
    for n in range(4):
        fire_due_ticks(now=NOON + n * HOUR / 2)
    times = [NOON, NOON + HOUR / 2, NOON + HOUR]
    assert decided(trigger_id) == [(at, "fired") for at in times]
    assert left(trigger_id) == (None, NOON + 2 * HOUR)
    common = once(cast, schedule="0 * * * *")
    fire_due_ticks(now=NOON)
    assert decided(common) == [(NOON, "fired")]


@cases("late", [59 * MINUTE, 60 * MINUTE], undone=True)
def test_after_an_outage_it_is_caught_up_with_like_a_schedule(cast, late):
    alone = once(cast)
    with_others = once(cast, schedule="15 * * * *")
    fire_due_ticks(now=NOON + late)
    assert decided(alone) == [(NOON, "fired" if late < HOUR else "skipped_missed")]
    # Of several missed due times only the latest makes a run.
    assert decided(with_others) == [
        (NOON, "skipped_missed"),
        (NOON + 15 * MINUTE, "fired"),
    ]
    assert left(alone) == (None, None)


@cases(
    ("decision", "values"),
    [
        ("skipped_no_worker", {"worker_id": None}),
        ("skipped_overlap", {"overlap_policy": "skip"}),
        ("skipped_paused", {}),
    ],
    undone=True,
)
def test_what_prevents_a_run_is_in_the_ledger(cast, decision, values):
    trigger_id = once(cast, **values)
    if decision == "skipped_overlap":
        Runs(cast, trigger_id, now=NOON - MINUTE).running()
    if decision == "skipped_paused":
        Environment.objects.update(paused_at=NOON - MINUTE)
    fire_due_ticks(now=NOON)
    assert decided(trigger_id) == [(NOON, decision)]
    assert left(trigger_id) == (None, None)


def test_a_schedule_that_cant_be_worked_out_does_not_hold_it_up(cast):
    trigger_id = once(cast, NOON + MINUTE, schedule="0 * * * *")
    broken = {"timezone": "Europe/Atlantis", "next_run_at": NOON}
    Trigger.objects.filter(id=trigger_id).update(**broken)
    fire_due_ticks(now=NOON)
    assert left(trigger_id) == (NOON + MINUTE, NOON + MINUTE)
    fire_due_ticks(now=NOON + MINUTE)
    assert decided(trigger_id) == [(NOON + MINUTE, "fired")]
    assert left(trigger_id) == (None, NOON + 6 * MINUTE)


def test_schedulers_at_once_make_one_run(committed_cast):
    triggers = {once(committed_cast) for _ in range(20)}

    def drain() -> int:
        return sum(iter(lambda: fire_due_ticks(limit=3, now=NOON), 0))

    at_once(drain, drain)
    drain()
    assert set(Tick.objects.values_list("trigger_id", "decision")) == {
        (trigger_id, "fired") for trigger_id in triggers
    }
    assert Run.objects.count() == len(triggers)
    assert not Trigger.objects.filter(run_once_at__isnull=False).exists()


def test_a_scheduler_that_is_killed_leaves_it_to_another(committed_cast):
    trigger_id = once(committed_cast)
    kill_before_commit(lambda: fire_due_ticks(now=NOON))
    assert (decided(trigger_id), left(trigger_id)) == ([], (NOON, NOON))
    until(lambda: fire_due_ticks(now=NOON) == 1)
    assert decided(trigger_id) == [(NOON, "fired")]
    assert Run.objects.filter(trigger_id=trigger_id).count() == 1


# --- Explaining and alarming


def told(trigger_id: UUID, at: datetime, now: datetime) -> Any:
    return explain_trigger(trigger_id, at=at, now=now)


def test_it_is_explained_like_a_due_time_of_a_schedule(cast):
    trigger_id = once(cast)
    long_ago = NOON - timedelta(days=1)
    Trigger.objects.filter(id=trigger_id).update(created_at=long_ago, updated_at=long_ago)
    before = told(trigger_id, NOON - HOUR, NOON - HOUR)
    assert (before.decision, before.next_due_at) == ("not_scheduled", NOON)
    assert "2100-05-04 12:00 UTC" in before.message
    coming = told(trigger_id, NOON, NOON - HOUR)
    assert (coming.decision, coming.due_at, coming.next_due_at) == ("pending", NOON, None)
    fire_due_ticks(now=NOON)
    fired = told(trigger_id, NOON + HOUR, NOON + HOUR)
    assert (fired.decision, fired.due_at) == ("fired", NOON)
    assert fired.run.run_id == Run.objects.get(trigger_id=trigger_id).id


def test_without_a_success_in_time_the_trigger_is_late(cast):
    trigger_id = once(cast, success_deadline_seconds=3600)
    TriggerHealth.objects.update(check_at=NOON - HOUR)
    find_late_triggers(now=NOON - HOUR)
    fire_due_ticks(now=NOON)
    find_late_triggers(now=NOON + HOUR)
    incident = Incident.objects.get(kind="trigger_late", subject_id=trigger_id)
    assert incident.run_id == Run.objects.get(trigger_id=trigger_id).id


# --- Due times


EXPRESSIONS = ["*/15 * * * *", "7 * * * *", "0 3 * * *", "30 12 4 5 *"]
MINUTES = st.integers(0, 3 * 24 * 60).map(lambda n: NOON + n * MINUTE)


@given(st.sampled_from(EXPRESSIONS), MINUTES, MINUTES, MINUTES)
def test_due_times_are_those_of_both(expression, single, one, other):
    after, until = sorted((one, other))
    schedule = Schedule(expression, "Europe/Berlin")
    due_times = DueTimes(schedule, single)
    times, at = {single} if single > after else set(), after
    while (at := schedule.next_after(at)) <= until:
        times.add(at)
    within = sorted(time for time in times if time <= until)
    assert due_times.next_after(after) == min([*times, at])
    assert due_times.last_between(after, until) == (within[-1] if within else None)
    if within and (single > until or single in within):
        ticks = due_times.ticks(within[0], until)
        assert (ticks.latest, ticks.earlier_count) == (within[-1], len(within) - 1)
        assert ticks.last_earlier == (within[-2] if len(within) > 1 else None)
        assert ticks.following == min([at, single] if single > until else [at])
