"""fire_due_ticks decides each due tick once, whatever was missed and whatever prevents a run."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from audit.models import AuditEntry
from pipedai.api.errors import Invalid
from pipedai.events import SYSTEM
from pipedai.sql import Row
from testing.processes.racing import at_once
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers import services
from triggers.models import Run, Tick, Trigger
from triggers.schedules.firing import fire_due_ticks
from triggers.states import Decision

NOON = datetime(2100, 5, 4, 12, tzinfo=UTC)
HOURLY = "0 * * * *"


def scheduled(cast: Cast, due: datetime = NOON, **values: Any) -> UUID:
    """Adds a trigger to the cast's environment, whose next tick is at that time."""
    trigger_id = cast.add_trigger(**{"schedule": HOURLY, **values})
    Trigger.objects.filter(id=trigger_id).update(next_run_at=due)
    return trigger_id


def ticks(trigger_id: UUID) -> list[Row]:
    """Returns the decisions, in the order of the ticks."""
    columns = ("tick_at", "last_tick_at", "decision", "missed_count", "run_id", "decided_at")
    return [
        dict(row)
        for row in Tick.objects.filter(trigger_id=trigger_id).order_by("tick_at").values(*columns)
    ]


def decisions(trigger_id: UUID) -> list[tuple[datetime, str]]:
    return [(row["tick_at"], row["decision"]) for row in ticks(trigger_id)]


def next_run_at(trigger_id: UUID) -> datetime | None:
    return Trigger.objects.get(id=trigger_id).next_run_at


# --- Firing


def test_a_tick_fires_at_its_very_instant_and_not_before(cast: Cast) -> None:
    trigger_id = scheduled(cast)
    assert fire_due_ticks(now=NOON - timedelta(microseconds=1)) == 0
    assert fire_due_ticks(now=NOON) == 1
    (tick,) = ticks(trigger_id)
    run = Run.objects.values().get(trigger_id=trigger_id)
    assert tick == {
        "tick_at": NOON, "last_tick_at": NOON, "decision": "fired", "missed_count": 0,
        "run_id": run["id"], "decided_at": NOON,
    }  # fmt: skip
    assert (run["status"], run["source"], run["attempt"]) == ("queued", "schedule", 1)
    assert (run["scheduled_for"], run["queued_at"], run["available_at"]) == (NOON, NOON, NOON)


def test_a_run_takes_what_its_trigger_says(cast: Cast) -> None:
    values: dict[str, Any] = {"model": "opus", "max_retries": 7, "timeout_seconds": 60}
    trigger_id = scheduled(cast, **values)
    fire_due_ticks(now=NOON)
    run = Run.objects.get(trigger_id=trigger_id)
    assert {name: getattr(run, name) for name in values} == values
    assert run.worker_id == cast.worker.worker_id
    assert run.revision_id == Trigger.objects.get(id=trigger_id).revision_id


def test_a_fired_tick_is_audited_with_its_run(cast: Cast) -> None:
    trigger_id = scheduled(cast)
    fire_due_ticks(now=NOON)
    entry = AuditEntry.objects.get(action="run.scheduled")
    assert (entry.actor_type, entry.actor_id) == ("system", None)
    assert (entry.target_type, entry.target_id) == ("run", ticks(trigger_id)[0]["run_id"])
    assert entry.metadata == {"tickAt": "2100-05-04T12:00:00.000Z", "triggerId": str(trigger_id)}


def test_the_next_tick_is_the_first_one_after_now(cast: Cast) -> None:
    trigger_id = scheduled(cast)
    fire_due_ticks(now=NOON + timedelta(seconds=0.3))
    assert next_run_at(trigger_id) == NOON + timedelta(hours=1)
    assert fire_due_ticks(now=NOON + timedelta(minutes=59)) == 0


def test_a_decided_tick_is_not_decided_again(cast: Cast) -> None:
    trigger_id = scheduled(cast)
    fire_due_ticks(now=NOON)
    # The trigger's next tick is one that is decided already, as if the database's clock had been put back.
    Trigger.objects.filter(id=trigger_id).update(next_run_at=NOON)
    assert fire_due_ticks(now=NOON) == 1
    assert decisions(trigger_id) == [(NOON, "fired")]
    assert Run.objects.filter(trigger_id=trigger_id).count() == 1
    assert AuditEntry.objects.filter(action="run.scheduled").count() == 1
    assert next_run_at(trigger_id) == NOON + timedelta(hours=1)


def test_a_batch_takes_those_that_have_waited_longest(cast: Cast) -> None:
    late = [scheduled(cast, NOON - timedelta(minutes=n), schedule="* * * * *") for n in range(5)]
    assert [fire_due_ticks(limit=2, now=NOON) for _ in range(4)] == [2, 2, 1, 0]
    made = Run.objects.filter(source="schedule").order_by("id").values_list("trigger_id", flat=True)
    assert set(made[:2]) == set(late[3:])


# --- Not firing


@cases("overlap_policy", ["queue", "skip"], undone=True)
def test_an_unfinished_run_matters_to_those_that_must_not_overlap(
    cast: Cast, overlap_policy: str
) -> None:
    trigger_id = scheduled(cast, overlap_policy=overlap_policy)
    runs = Runs(cast, trigger_id, now=NOON - timedelta(minutes=1))
    runs.running()
    fire_due_ticks(now=NOON)
    expected = "fired" if overlap_policy == "queue" else "skipped_overlap"
    assert decisions(trigger_id) == [(NOON, expected)]
    assert Run.objects.filter(trigger_id=trigger_id).count() == (2 if expected == "fired" else 1)


def test_an_ended_run_is_in_nobodys_way(cast: Cast) -> None:
    trigger_id = scheduled(cast, overlap_policy="skip")
    Runs(cast, trigger_id, now=NOON - timedelta(minutes=1)).ended()
    fire_due_ticks(now=NOON)
    assert decisions(trigger_id) == [(NOON, "fired")]


def test_a_tick_of_a_trigger_without_a_worker_makes_no_run(cast: Cast) -> None:
    trigger_id = scheduled(cast, worker_id=None)
    fire_due_ticks(now=NOON)
    assert decisions(trigger_id) == [(NOON, "skipped_no_worker")]
    assert next_run_at(trigger_id) == NOON + timedelta(hours=1)
    assert not Run.objects.filter(trigger_id=trigger_id).exists()


def test_a_skipped_tick_is_audited_with_its_trigger(cast: Cast) -> None:
    trigger_id = scheduled(cast, worker_id=None)
    fire_due_ticks(now=NOON)
    entry = AuditEntry.objects.get(action="run.skipped")
    assert (entry.actor_type, entry.target_type, entry.target_id) == (
        "system",
        "trigger",
        trigger_id,
    )
    assert entry.metadata == {
        "tickAt": "2100-05-04T12:00:00.000Z", "triggerId": str(trigger_id),
        "decision": "skipped_no_worker", "missedCount": 1,
    }  # fmt: skip


@cases("how", ["disabled", "deleted", "without a schedule"], undone=True)
def test_a_trigger_that_has_no_next_tick_does_not_fire(cast: Cast, how: str) -> None:
    trigger_id = scheduled(cast)
    if how == "deleted":
        services.TRIGGERS.delete(trigger_id, actor=SYSTEM)
    else:
        change(trigger_id, **({"enabled": False} if how == "disabled" else {"schedule": None}))
    assert fire_due_ticks(now=NOON + timedelta(days=1)) == 0
    assert ticks(trigger_id) == []


# --- Missed ticks


def test_of_missed_ticks_the_latest_fires_and_the_older_leave_one_row(cast: Cast) -> None:
    trigger_id = scheduled(cast, NOON - timedelta(hours=5))
    now = NOON + timedelta(minutes=59)
    assert fire_due_ticks(now=now) == 1
    gap, fired = ticks(trigger_id)
    assert (gap["tick_at"], gap["last_tick_at"]) == (
        NOON - timedelta(hours=5),
        NOON - timedelta(hours=1),
    )
    assert (gap["decision"], gap["missed_count"], gap["run_id"]) == ("skipped_missed", 5, None)
    assert (fired["tick_at"], fired["decision"]) == (NOON, "fired")
    assert next_run_at(trigger_id) == NOON + timedelta(hours=1)
    assert Run.objects.get(trigger_id=trigger_id).scheduled_for == NOON
    (entry,) = AuditEntry.objects.filter(action="run.skipped")
    assert (entry.metadata["decision"], entry.metadata["missedCount"]) == ("skipped_missed", 5)


@pytest.mark.parametrize(
    ("late", "decision"),
    [
        (timedelta(minutes=30) - timedelta(microseconds=1), "fired"),
        (timedelta(minutes=30), "skipped_missed"),
    ],
    ids=["just in time", "too old"],
)
def test_the_latest_fires_only_while_it_is_younger_than_the_setting(
    cast: Cast, settings: Any, late: timedelta, decision: str
) -> None:
    settings.SCHEDULE_CATCHUP_SECONDS = 1800
    trigger_id = scheduled(cast)
    fire_due_ticks(now=NOON + late)
    assert decisions(trigger_id) == [(NOON, decision)]


def test_a_gap_that_is_too_old_as_a_whole_is_one_row(cast: Cast) -> None:
    trigger_id = scheduled(cast, NOON - timedelta(days=3), schedule="0 12 * * *")
    fire_due_ticks(now=NOON + timedelta(hours=2))
    (gap,) = ticks(trigger_id)
    assert (gap["tick_at"], gap["last_tick_at"], gap["missed_count"]) == (
        NOON - timedelta(days=3),
        NOON,
        4,
    )
    assert next_run_at(trigger_id) == NOON + timedelta(days=1)


def test_the_latest_of_a_gap_is_skipped_like_any_other(cast: Cast) -> None:
    trigger_id = scheduled(cast, NOON - timedelta(hours=2), worker_id=None)
    fire_due_ticks(now=NOON)
    assert [decision for _, decision in decisions(trigger_id)] == [
        "skipped_missed",
        "skipped_no_worker",
    ]


def test_a_batch_with_long_gaps_leaves_some_for_the_next(cast: Cast, monkeypatch: Any) -> None:
    monkeypatch.setattr("pipedai.turns.TURN_SECONDS", -1.0)
    triggers = [scheduled(cast) for _ in range(3)]
    assert [fire_due_ticks(now=NOON) for _ in range(4)] == [1, 1, 1, 0]
    assert all(decisions(trigger_id) == [(NOON, "fired")] for trigger_id in triggers)


# --- Schedules that can't be worked out


@cases(
    "broken",
    [
        {"timezone": "Europe/Atlantis"},
        {"timezone": "Europe"},
        {"schedule": "0 0 30 2 *"},
        {"schedule": "at noon"},
    ],
    undone=True,
)
def test_a_poison_trigger_stops_none_of_the_others(cast: Cast, broken: dict[str, str]) -> None:
    poison = scheduled(cast, NOON - timedelta(minutes=1))
    Trigger.objects.filter(id=poison).update(**broken)
    sound = scheduled(cast)
    with capture_logs() as logged:
        assert fire_due_ticks(now=NOON) == 2
    assert decisions(sound) == [(NOON, "fired")]
    assert decisions(poison) == []
    (line,) = logged
    assert (line["event"], line["log_level"]) == ("trigger.schedule_failed", "error")
    assert line["trigger_id"] == str(poison)
    assert next_run_at(poison) == NOON + timedelta(minutes=5)
    assert fire_due_ticks(now=NOON + timedelta(minutes=4)) == 0


def test_a_trigger_whose_zone_is_back_goes_on_with_its_next_tick(cast: Cast) -> None:
    trigger_id = scheduled(cast, timezone="UTC")
    Trigger.objects.filter(id=trigger_id).update(timezone="Europe/Atlantis")
    fire_due_ticks(now=NOON + timedelta(seconds=0.2))
    Trigger.objects.filter(id=trigger_id).update(timezone="UTC")
    assert fire_due_ticks(now=NOON + timedelta(minutes=6)) == 1
    assert decisions(trigger_id) == []
    assert next_run_at(trigger_id) == NOON + timedelta(hours=1)
    fire_due_ticks(now=NOON + timedelta(hours=1))
    assert decisions(trigger_id) == [(NOON + timedelta(hours=1), "fired")]


# --- nextRunAt


def change(trigger_id: UUID, **values: Any) -> None:
    services.TRIGGERS.update(trigger_id, values=values, actor=SYSTEM)


def test_a_change_of_the_schedule_moves_the_next_tick(cast: Cast, monkeypatch: Any) -> None:
    monkeypatch.setattr(services, "database_now", lambda: NOON + timedelta(minutes=20))
    trigger_id = scheduled(cast, schedule="0 3 * * *")
    change(trigger_id, schedule="30 * * * *")
    assert next_run_at(trigger_id) == NOON + timedelta(minutes=30)


def test_a_change_of_the_zone_moves_the_next_tick(cast: Cast, monkeypatch: Any) -> None:
    monkeypatch.setattr(services, "database_now", lambda: NOON)
    trigger_id = scheduled(cast, schedule="0 18 * * *")
    change(trigger_id, timezone="America/New_York")
    assert next_run_at(trigger_id) == datetime(2100, 5, 4, 22, tzinfo=UTC)


def test_a_trigger_that_is_enabled_again_has_missed_nothing(cast: Cast, monkeypatch: Any) -> None:
    trigger_id = scheduled(cast)
    change(trigger_id, enabled=False)
    assert next_run_at(trigger_id) is None
    monkeypatch.setattr(services, "database_now", lambda: NOON + timedelta(hours=5))
    change(trigger_id, enabled=True)
    assert next_run_at(trigger_id) == NOON + timedelta(hours=6)
    assert fire_due_ticks(now=NOON + timedelta(hours=5, minutes=59)) == 0


def test_a_change_of_something_else_leaves_a_due_tick_due(cast: Cast) -> None:
    trigger_id = scheduled(cast)
    change(trigger_id, name="Another")
    assert next_run_at(trigger_id) == NOON


def test_a_tick_that_the_old_schedule_missed_does_not_fire_by_the_new(
    cast: Cast, monkeypatch: Any
) -> None:
    trigger_id = scheduled(cast)
    monkeypatch.setattr(services, "database_now", lambda: NOON + timedelta(seconds=1))
    change(trigger_id, schedule="15 * * * *")
    assert fire_due_ticks(now=NOON + timedelta(seconds=2)) == 0


def test_a_trigger_whose_zone_is_gone_is_enabled_only_with_another(cast: Cast) -> None:
    trigger_id = scheduled(cast)
    change(trigger_id, enabled=False)
    Trigger.objects.filter(id=trigger_id).update(timezone="Europe/Atlantis")
    with pytest.raises(Invalid):
        change(trigger_id, enabled=True)
    change(trigger_id, enabled=True, timezone="UTC")
    assert next_run_at(trigger_id) is not None


# --- Several schedulers


def test_schedulers_at_once_share_the_ticks_and_double_none(committed_cast: Cast) -> None:
    triggers = {scheduled(committed_cast) for _ in range(30)}

    def drain() -> int:
        # A scheduler skips what another one holds. It does not wait, so it may find nothing before all is done.
        return sum(list(iter(lambda: fire_due_ticks(limit=4, now=NOON), 0)))

    fired_by = at_once(drain, drain, drain)
    assert sum(n for n in fired_by if isinstance(n, int)) + drain() == len(triggers)
    assert set(Tick.objects.values_list("trigger_id", "tick_at", "decision")) == {
        (trigger_id, NOON, Decision.FIRED) for trigger_id in triggers
    }
    fired = list(Tick.objects.values_list("run_id", flat=True))
    assert sorted(fired) == sorted(Run.objects.values_list("id", flat=True))
    assert len(set(fired)) == len(triggers)
