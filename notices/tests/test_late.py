"""When a trigger is late: a due time passed and no run succeeded in time. The clock is passed in."""

from datetime import UTC, datetime, timedelta

import pytest

from audit.models import AuditEntry
from notices.incidents import remind
from notices.lateness import find_late_triggers
from notices.models import Incident
from pipedai.sql import database_now
from testing.world.cast import TEST_ACTOR
from testing.world.runs import Runs
from triggers.models import Run, Tick, Trigger, TriggerHealth
from triggers.schedules.firing import fire_due_ticks
from triggers.services import TRIGGERS
from workers.models import Worker
from workspaces.models import Environment

NOON = datetime(2100, 3, 1, 12, tzinfo=UTC)


class World:
    """A trigger that is due at noon each day and must succeed within an hour, and a clock that stands at noon."""

    def __init__(self, cast, **trigger):
        values = {"schedule": "0 12 * * *", "success_deadline_seconds": 3600, **trigger}
        self.runs = Runs.of(cast, **values)
        self.runs.now = NOON
        self.id = self.runs.trigger_id
        Trigger.objects.filter(id=self.id).update(next_run_at=NOON)
        # The trigger has been looked at, and had nothing to tell.
        find_late_triggers(now=NOON - timedelta(days=1))

    def fire(self):
        """Has the scheduler decide about what is due, and returns the new run, if there is one."""
        fire_due_ticks(now=self.runs.now)
        return Run.objects.filter(trigger_id=self.id, source="schedule").order_by("-id").first()

    def execute(self, status="succeeded"):
        """Fires, and has the worker execute the run."""
        run = self.fire()
        self.runs.claim(run.id)
        self.runs.complete(run.id, status)
        return run

    def look(self, **later):
        """Looks as the scheduler does, after some time, and returns the trigger's health."""
        self.runs.wait(**later)
        find_late_triggers(now=self.runs.now)
        assert find_late_triggers(now=self.runs.now) == 0, "it was looked at already"
        url = f"/api/v1/triggers/{self.id}"
        shown = self.runs.cast.client(self.runs.cast.viewer).get(url).json()["health"]
        late = Incident.objects.filter(
            subject_id=self.id, kind="trigger_late", closed_at__isnull=True
        )
        assert late.exists() == (shown == "late")
        return shown

    def incidents(self):
        return list(Incident.objects.filter(kind="trigger_late").order_by("opened_at"))


@pytest.fixture
def world(cast):
    return World(cast)


def test_a_success_in_time_alarms_nobody(world):
    world.execute()
    assert world.look(hours=1) == "ok"
    assert world.look(hours=22, minutes=59) == "ok"
    assert world.incidents() == []


def test_without_a_success_the_trigger_is_late_when_the_deadline_passes(world):
    run = world.fire()
    assert world.look(minutes=59, seconds=59) == "idle"
    assert world.look(seconds=1) == "late"
    (incident,) = world.incidents()
    assert incident.run_id == run.id
    assert incident.opened_at == NOON + timedelta(hours=1)
    assert incident.message == (
        "No run succeeded within 3,600 s after the due time Mon 1 Mar 2100, 12:00 UTC."
    )


def test_a_failure_makes_it_failing_and_late(world):
    world.execute("failed")
    world.runs.wait(hours=1)
    find_late_triggers(now=world.runs.now)
    assert sorted(Incident.objects.values_list("kind", flat=True)) == [
        "trigger_failing",
        "trigger_late",
    ]


def test_a_late_success_closes_it_once(world):
    run = world.fire()
    assert world.look(hours=2) == "late"
    world.runs.claim(run.id)
    world.runs.complete(run.id)
    TriggerHealth.objects.update(check_at=world.runs.now)
    assert world.look(seconds=1) == "ok"
    (incident,) = world.incidents()
    assert incident.closed_at == world.runs.now
    assert world.look(hours=1) == "ok"


def test_a_success_asks_the_scheduler_to_look_at_once(world):
    run = world.fire()
    assert world.look(hours=2) == "late"
    world.runs.claim(run.id)
    world.runs.complete(run.id)
    assert TriggerHealth.objects.filter(check_at__lte=database_now()).exists()


def test_a_success_that_somebody_asked_for_counts(world):
    world.fire()
    world.runs.wait(minutes=30)
    world.runs.ended()
    assert world.look(minutes=30) == "ok"


def test_a_success_before_the_due_time_does_not(world):
    world.runs.now -= timedelta(minutes=1)
    world.runs.ended()
    world.runs.wait(minutes=1)
    world.fire()
    assert world.look(hours=1) == "late"


def test_it_is_told_once_however_many_due_times_pass(world):
    world.fire()
    for _ in range(3):
        assert world.look(days=1) == "late"
    (incident,) = world.incidents()
    assert incident.closed_at is None


def test_a_dead_worker_alarms(world):
    Worker.objects.update(last_seen_at=None)
    world.fire()
    assert world.look(hours=1) == "late"


def test_ticks_that_made_no_run_count(cast):
    without_worker = World(cast, worker_id=None)
    assert without_worker.fire() is None
    assert without_worker.look(hours=1) == "late"
    overlapping = World(cast, overlap_policy="skip")
    overlapping.runs.now -= timedelta(minutes=5)
    overlapping.runs.running()
    overlapping.runs.wait(minutes=5)
    assert overlapping.fire() is None
    assert overlapping.look(hours=1) == "late"


def test_a_due_time_about_which_no_scheduler_decides_counts(world):
    assert world.look(hours=1) == "late"
    assert not Tick.objects.filter(trigger_id=world.id).exists()


def test_due_times_missed_while_all_schedulers_were_dead_are_told_once(cast):
    world = World(
        cast, schedule="*/5 * * * *", success_deadline_seconds=600, timezone="Asia/Kolkata"
    )
    world.runs.wait(hours=3)
    world.fire()
    assert world.look() == "late"
    (incident,) = world.incidents()
    assert "after the due time Mon 1 Mar 2100, 17:30 IST." in incident.message


def test_a_success_within_a_stretch_counts_for_the_due_times_before_it(cast):
    world = World(cast, schedule="*/5 * * * *", success_deadline_seconds=3600)
    run_id = world.runs.running()
    Trigger.objects.filter(id=world.id).update(worker_id=None)
    for _ in range(4):
        world.fire()
        world.runs.wait(minutes=5)
    assert Tick.objects.filter(trigger_id=world.id).count() == 1
    world.runs.now = NOON + timedelta(minutes=7)
    world.runs.complete(run_id)
    world.runs.now = NOON + timedelta(minutes=20)
    # The next due time after the success was at 12:10.
    assert world.look(minutes=49, seconds=59) == "ok"
    assert world.look(seconds=1) == "late"


def test_disabling_ends_it_without_a_word_and_enabling_begins_anew(world):
    world.fire()
    assert world.look(hours=1) == "late"
    TRIGGERS.update(world.id, values={"enabled": False}, actor=TEST_ACTOR)
    assert world.look(seconds=1) == "idle"
    TRIGGERS.update(world.id, values={"enabled": True}, actor=TEST_ACTOR)
    # It was enabled now, by the test's clock.
    TriggerHealth.objects.update(counts_from=world.runs.now)
    Trigger.objects.filter(id=world.id).update(next_run_at=NOON + timedelta(days=1))
    assert world.look(hours=22) == "idle"
    assert world.look(hours=2) == "late"
    assert [incident.closed_at is None for incident in world.incidents()] == [False, True]


def test_the_deadline_can_be_set_moved_and_taken_away(cast):
    world = World(cast, success_deadline_seconds=None)
    world.fire()
    assert world.look(hours=2) == "idle"
    for deadline, expected in ((3600, "late"), (3 * 3600, "idle"), (60, "late"), (None, "idle")):
        values = {"success_deadline_seconds": deadline}
        TRIGGERS.update(world.id, values=values, actor=TEST_ACTOR)
        assert world.look(seconds=1) == expected
    assert [incident.closed_at is None for incident in world.incidents()] == [False, False]


def test_a_deleted_trigger_is_not_late(world):
    world.fire()
    assert world.look(hours=1) == "late"
    world.runs.cancel(Run.objects.get(trigger_id=world.id).id)
    TRIGGERS.delete(world.id, actor=TEST_ACTOR)
    find_late_triggers(now=world.runs.now)
    assert world.incidents()[0].closed_at is not None


def test_a_schedule_that_cannot_be_worked_out_stops_no_other(cast):
    broken, sound = World(cast), World(cast)
    broken.runs.wait(minutes=30)
    broken.runs.ended()
    Trigger.objects.filter(id=broken.id).update(timezone="No/Where")
    TriggerHealth.objects.update(check_at=NOON)
    assert sound.look(hours=1) == "late"


def test_at_the_end_of_summer_time_the_hour_that_comes_twice_is_due_once(cast):
    world = World(cast, schedule="30 2 * * *", timezone="Europe/Berlin")
    due = datetime(2100, 10, 31, 0, 30, tzinfo=UTC)
    Trigger.objects.filter(id=world.id).update(next_run_at=due)
    TriggerHealth.objects.update(check_at=due)
    world.runs.now = due
    world.execute()
    assert world.look(hours=1) == "ok"
    assert world.look(hours=1) == "ok"


def test_reminders_come_daily_and_seven_times(world):
    world.fire()
    assert world.look(hours=1) == "late"
    told = []
    for _ in range(240):
        world.runs.wait(hours=1)
        told += [world.runs.now] * remind(now=world.runs.now)
    opened = NOON + timedelta(hours=1)
    assert told == [opened + timedelta(days=n) for n in range(1, 8)]


def test_after_days_without_a_scheduler_one_reminder_is_told(world):
    world.fire()
    assert world.look(hours=1) == "late"
    world.runs.wait(days=4)
    assert [remind(now=world.runs.now) for _ in range(2)] == [1, 0]


def test_while_the_environment_is_paused_nothing_is_late_and_afterwards_it_counts(world):
    assert world.look(hours=1) == "late"
    Environment.objects.update(paused_at=NOON)
    assert world.look(minutes=5) == "paused"
    assert world.look(days=1) == "paused"
    Environment.objects.update(paused_at=None)
    assert world.look(minutes=5) == "late"
    assert [bool(each.closed_at) for each in world.incidents()] == [True, False]
    recoveries = AuditEntry.objects.filter(action="incident.closed", metadata__recovered=True)
    assert not recoveries.exists()
