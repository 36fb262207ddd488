"""Consecutive ticks of a trigger without a worker, a stretch, have one row and one audit row."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from audit.models import AuditEntry
from pipedai.events import SYSTEM
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.world.cases import cases
from testing.world.cast import Cast
from triggers import services
from triggers.models import Run, Tick, Trigger
from triggers.schedules import firing
from triggers.schedules.firing import fire_due_ticks, lengthened

NOON = datetime(2100, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
Stretch = tuple[str, int, int, int]


def without_worker(cast: Cast) -> UUID:
    """Adds an hourly trigger without a worker, which comes due at noon."""
    trigger_id = cast.add_trigger(schedule="0 * * * *", worker_id=None)
    Trigger.objects.filter(id=trigger_id).update(next_run_at=NOON)
    return trigger_id


def fire(hour: int) -> int:
    """Decides the ticks that are due so many hours after noon."""
    return fire_due_ticks(now=NOON + hour * HOUR)


def rows(trigger_id: UUID) -> list[Stretch]:
    """Returns each row's decision, the hours from noon to its first and last tick, and its count of ticks."""
    found = Tick.objects.filter(trigger_id=trigger_id).order_by("tick_at")
    return [
        (
            tick.decision,
            (tick.tick_at - NOON) // HOUR,
            (tick.last_tick_at - NOON) // HOUR,
            tick.missed_count,
        )
        for tick in found
    ]


def audited() -> list[tuple[str, str, int]]:
    """Returns the audit rows of skipped ticks: the decision, the first tick, and the number of ticks."""
    found = AuditEntry.objects.filter(action="run.skipped").order_by("id")
    return [
        (entry.metadata["decision"], entry.metadata["tickAt"][11:13], entry.metadata["missedCount"])
        for entry in found
    ]


def assign(cast: Cast, trigger_id: UUID, worker_id: UUID | None) -> None:
    services.TRIGGERS.update(trigger_id, values={"worker_id": worker_id}, actor=SYSTEM)


def enable(trigger_id: UUID, *, enabled: bool) -> None:
    services.TRIGGERS.update(trigger_id, values={"enabled": enabled}, actor=SYSTEM)


def test_ticks_that_follow_each_other_have_one_row_and_one_audit_row(cast: Cast) -> None:
    trigger_id = without_worker(cast)
    assert [fire(hour) for hour in range(5)] == [1] * 5
    assert rows(trigger_id) == [("skipped_no_worker", 0, 4, 5)]
    assert audited() == [("skipped_no_worker", "12", 1)]
    tick = Tick.objects.get(trigger_id=trigger_id)
    assert tick.decided_at == NOON
    assert Trigger.objects.get(id=trigger_id).next_run_at == NOON + 5 * HOUR
    assert not Run.objects.exists()


def test_a_worker_ends_the_stretch_and_its_loss_begins_another(cast: Cast) -> None:
    trigger_id = without_worker(cast)
    fire(0), fire(1)
    assign(cast, trigger_id, cast.worker.worker_id)
    fire(2)
    assign(cast, trigger_id, None)
    fire(3), fire(4)
    assert rows(trigger_id) == [
        ("skipped_no_worker", 0, 1, 2), ("fired", 2, 2, 0), ("skipped_no_worker", 3, 4, 2),
    ]  # fmt: skip
    assert audited() == [("skipped_no_worker", "12", 1), ("skipped_no_worker", "15", 1)]


def test_a_worker_that_was_there_at_no_tick_ends_nothing(cast: Cast) -> None:
    trigger_id = without_worker(cast)
    fire(0)
    assign(cast, trigger_id, cast.worker.worker_id)
    assign(cast, trigger_id, None)
    fire(1)
    assert rows(trigger_id) == [("skipped_no_worker", 0, 1, 2)]


def test_ticks_that_are_left_out_end_the_stretch(cast: Cast, monkeypatch: Any) -> None:
    trigger_id = without_worker(cast)
    fire(0), fire(1)
    enable(trigger_id, enabled=False)
    assert fire(3) == 0
    monkeypatch.setattr(services, "database_now", lambda: NOON + 3.5 * HOUR)
    enable(trigger_id, enabled=True)
    fire(4), fire(5)
    assert rows(trigger_id) == [("skipped_no_worker", 0, 1, 2), ("skipped_no_worker", 4, 5, 2)]
    assert len(audited()) == 2


def test_one_that_was_disabled_between_two_ticks_goes_on(cast: Cast, monkeypatch: Any) -> None:
    trigger_id = without_worker(cast)
    fire(0)
    enable(trigger_id, enabled=False)
    monkeypatch.setattr(services, "database_now", lambda: NOON + 0.5 * HOUR)
    enable(trigger_id, enabled=True)
    fire(1)
    assert rows(trigger_id) == [("skipped_no_worker", 0, 1, 2)]


def test_an_outage_in_the_middle_is_a_gap_of_its_own(cast: Cast) -> None:
    trigger_id = without_worker(cast)
    fire(0), fire(1)
    fire(6), fire(7)
    assert rows(trigger_id) == [
        ("skipped_no_worker", 0, 1, 2), ("skipped_missed", 2, 5, 4), ("skipped_no_worker", 6, 7, 2),
    ]  # fmt: skip
    assert [decision for decision, *_ in audited()].count("skipped_no_worker") == 2


def test_another_schedule_goes_on_where_its_ticks_follow(cast: Cast, monkeypatch: Any) -> None:
    trigger_id = without_worker(cast)
    fire(0)
    monkeypatch.setattr(services, "database_now", lambda: NOON + 0.5 * HOUR)
    services.TRIGGERS.update(trigger_id, values={"schedule": "0 */2 * * *"}, actor=SYSTEM)
    fire(2)
    assert rows(trigger_id) == [("skipped_no_worker", 0, 2, 2)]


def test_a_stretch_that_was_pruned_begins_anew(cast: Cast) -> None:
    trigger_id = without_worker(cast)
    fire(0)
    Tick.objects.all().delete()
    fire(1), fire(2)
    assert rows(trigger_id) == [("skipped_no_worker", 1, 2, 2)]
    assert len(audited()) == 2


@cases("hour", [0, 1, 2], undone=True)
def test_a_tick_that_a_stretch_has_counted_is_not_counted_again(cast: Cast, hour: int) -> None:
    trigger_id = without_worker(cast)
    fire(0), fire(1), fire(2)
    # The trigger's next tick is one that is decided already, as if the database's clock had been put back.
    Trigger.objects.filter(id=trigger_id).update(next_run_at=NOON + hour * HOUR)
    assert fire(hour) == 1
    assert rows(trigger_id) == [("skipped_no_worker", 0, 2, 3)]
    assert len(audited()) == 1


def test_each_trigger_has_a_stretch_of_its_own_in_the_same_batch(cast: Cast) -> None:
    first, second = without_worker(cast), without_worker(cast)
    assigned = cast.add_trigger(schedule="0 * * * *")
    Trigger.objects.filter(id=assigned).update(next_run_at=NOON)
    fire(0)
    assign(cast, second, cast.worker.worker_id)
    fire(1)
    assert rows(first) == [("skipped_no_worker", 0, 1, 2)]
    assert rows(second) == [("skipped_no_worker", 0, 0, 1), ("fired", 1, 1, 0)]
    assert rows(assigned) == [("fired", 0, 0, 0), ("fired", 1, 1, 0)]


class _KilledError(Exception):
    """Raised to imitate that the process is killed in the middle of a batch."""


@pytest.mark.parametrize("where", ["before the stretch is longer", "before the trigger moves on"])
def test_a_batch_that_is_cut_off_counts_nothing_and_the_next_one_counts_once(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    trigger_id = without_worker(cast)
    fire(0)

    def die(*_: Any, **__: Any) -> Any:
        raise _KilledError

    with monkeypatch.context() as patched:
        if where == "before the stretch is longer":
            patched.setattr(firing, "_LENGTHEN", None)
            patched.setattr(firing, "join_stretches", die)
        else:
            patched.setattr(firing, "execute", die)
        with pytest.raises(_KilledError):
            fire(1)
    assert rows(trigger_id) == [("skipped_no_worker", 0, 0, 1)]
    assert Trigger.objects.get(id=trigger_id).next_run_at == NOON + HOUR
    fire(1)
    assert rows(trigger_id) == [("skipped_no_worker", 0, 1, 2)]


@pytest.mark.parametrize("round_", ROUNDS)
def test_schedulers_at_once_count_each_tick_once(committed_cast: Cast, round_: int) -> None:
    triggers = [without_worker(committed_cast) for _ in range(12)]
    for hour in range(3):

        def drain(now: datetime = NOON + hour * HOUR) -> int:
            return sum(iter(lambda: fire_due_ticks(limit=3, now=now), 0))

        assert sum(accepted(at_once(drain, drain, drain))) + drain() == len(triggers)
    assert {tuple(rows(trigger_id)) for trigger_id in triggers} == {
        (("skipped_no_worker", 0, 2, 3),)
    }
    assert len(audited()) == len(triggers)


def test_ticks_that_lengthen_a_stretch_are_told_once_they_are_committed(
    committed_cast: Cast,
) -> None:
    told: list[str] = []

    def hear(decisions: list[str], **_: Any) -> None:
        told.extend(decisions)

    lengthened.connect(hear)
    try:
        for _ in range(2):
            without_worker(committed_cast)
        fire(0)
        assert told == []
        fire(1)
        assert told == ["skipped_no_worker"] * 2
    finally:
        lengthened.disconnect(hear)
