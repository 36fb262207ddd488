"""What is told when all schedulers were away: everything that happened meanwhile, once. The clock is passed
in.

A trigger is due each hour from 12:00 on. All schedulers are away from 11:30 on. What happens meanwhile has its time.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from notices.lateness import find_late_triggers
from notices.models import Incident, Notice
from testing.world.cast import TEST_ACTOR, make_cast
from testing.world.channels import add_channel
from testing.world.runs import Runs
from triggers.models import Trigger, TriggerHealth
from triggers.schedules.firing import fire_due_ticks
from triggers.services import TRIGGERS

DAY = datetime(2100, 3, 1, tzinfo=UTC)
EVENTS = ["trigger_late", "trigger_late.recovered", "trigger_failing", "trigger_failing.recovered"]


def at(clock: str) -> datetime:
    hours, minutes = clock.split(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


class World:
    """The trigger, whose last run succeeded at 11:30, and a webhook channel that tells of its incidents."""

    def __init__(self, cast, minutes=30, **trigger):
        values = {"schedule": "0 * * * *", "success_deadline_seconds": 60 * minutes, **trigger}
        self.runs = Runs.of(cast, **values)
        self.id = self.runs.trigger_id
        Trigger.objects.filter(id=self.id).update(next_run_at=at("12:00"))
        add_channel(cast, "webhook", events=EVENTS)
        self.do("11:30", "succeeded")
        self.look("11:30")

    def do(self, clock, what):
        """Does something at a time: a run ends in some way, a user disables and enables the trigger, or a scheduler
        fires or looks.
        """
        self.runs.now = at(clock)
        if what == "fire":
            fire_due_ticks(now=self.runs.now)
        elif what == "look":
            self.look(clock)
        elif what == "disable":
            for enabled in (False, True):
                TRIGGERS.update(self.id, values={"enabled": enabled}, actor=TEST_ACTOR)
            # It happened now, by the test's clock.
            TriggerHealth.objects.update(counts_from=self.runs.now, check_at=self.runs.now)
        else:
            self.runs.ended(what)

    def look(self, clock):
        self.runs.now = at(clock)
        find_late_triggers(now=self.runs.now)
        assert find_late_triggers(now=self.runs.now) == 0, "it was looked at already"

    def incidents(self, kind="trigger_late"):
        rows = Incident.objects.filter(kind=kind).order_by("opened_at", "id")
        return [(row.opened_at, row.closed_at) for row in rows]

    def told(self, kind="trigger_late"):
        """Returns how many notices told of beginnings, and how many of recoveries."""
        return tuple(
            Notice.objects.filter(event=event).count() for event in (kind, f"{kind}.recovered")
        )


def pairs(*incidents):
    return [(at(opened), closed and at(closed)) for opened, closed in incidents]


# What happens while no scheduler is there, when one is back, and the incidents that must be there then.
TABLE: dict[str, Any] = {
    "nothing happens": ([], "14:10", [("14:10", None)]),
    "a success in time": ([("12:10", "succeeded")], "12:59", []),
    "a success on the last minute": ([("12:30", "succeeded")], "12:59", []),
    "a success too late": ([("12:50", "succeeded")], "12:59", [("12:30", "12:50")]),
    "a failure, then a success too late": (
        [("12:10", "failed"), ("12:50", "succeeded")],
        "12:59",
        [("12:30", "12:50")],
    ),
    "a success too late, then late again": (
        [("12:50", "succeeded")],
        "13:40",
        [("12:30", "12:50"), ("13:40", None)],
    ),
    "late and in time by turns": (
        [("12:50", "succeeded"), ("13:20", "succeeded"), ("14:45", "succeeded")],
        "14:50",
        [("12:30", "14:45")],
    ),
    "successes that are close together": (
        [("12:20", "succeeded"), ("12:40", "succeeded"), ("13:05", "succeeded")],
        "13:10",
        [],
    ),
    "disabled and enabled while late": ([("12:45", "disable")], "12:59", []),
    "disabled and enabled after it was late": (
        [("12:40", "succeeded"), ("12:45", "disable")],
        "12:59",
        [],
    ),
    "late before, recovered": (
        [("12:35", "look"), ("12:50", "succeeded")],
        "12:59",
        [("12:35", "12:59")],
    ),
    "late before, recovered, late again": (
        [("12:35", "look"), ("12:50", "succeeded")],
        "13:40",
        [("12:35", "13:40"), ("13:40", None)],
    ),
    "late before, recovered, late and recovered": (
        [("12:35", "look"), ("12:50", "succeeded"), ("13:45", "succeeded")],
        "13:50",
        [("12:35", "13:50"), ("13:30", "13:45")],
    ),
    "late before, still late": ([("12:35", "look")], "15:00", [("12:35", None)]),
}


@pytest.mark.parametrize("what", TABLE)
def test_everything_that_happened_meanwhile_is_told_once(cast, what):
    happens, back, expected = TABLE[what]
    world = World(cast)
    for clock, each in happens:
        world.do(clock, each)
    # The jobs of a scheduler that has just begun may come in any order.
    for job in ("fire", "look") if len(what) % 2 else ("look", "fire"):
        world.do(back, job)
    world.look(back)
    assert world.incidents() == pairs(*expected)
    closed = [each for each in expected if each[1]]
    assert world.told() == (len(expected), len(closed))


def test_it_says_from_when_until_when_and_how_often(cast):
    world = World(cast)
    for clock in ("12:50", "13:50"):
        world.do(clock, "succeeded")
    world.look("13:55")
    (incident,) = Incident.objects.all()
    assert incident.message == (
        "No run succeeded within 1,800 s after the due time Mon 1 Mar 2100, 12:00 UTC. It happened 2 times until a run"
        " succeeded at Mon 1 Mar 2100, 13:50 UTC, before a scheduler noticed."
    )
    assert incident.remind_at is None
    assert incident.notice_count == 2
    told = {row.event: row.body for row in Notice.objects.all()}
    assert '"at":"2100-03-01T12:30:00.000Z"' in told["trigger_late"]
    assert '"at":"2100-03-01T13:50:00.000Z"' in told["trigger_late.recovered"]


def test_failing_needs_no_scheduler(cast):
    world = World(cast)
    world.do("12:10", "failed")
    world.do("12:20", "succeeded")
    assert world.told("trigger_failing") == (1, 1)


def test_the_hour_that_a_clock_change_leaves_out_is_due_once(cast):
    world = World(cast, schedule="30 2 * * *", timezone="Europe/Berlin")
    due = datetime(2100, 3, 28, 1, tzinfo=UTC)
    Trigger.objects.filter(id=world.id).update(next_run_at=due)
    TriggerHealth.objects.update(check_at=due + timedelta(minutes=30))
    world.runs.now = due - timedelta(hours=1)
    world.runs.ended()
    world.runs.now = due + timedelta(minutes=45)
    world.runs.ended()
    find_late_triggers(now=due + timedelta(hours=5))
    assert world.incidents() == [(due + timedelta(minutes=30), due + timedelta(minutes=45))]


def test_a_schedule_that_cannot_be_worked_out_stops_no_other(cast):
    broken, sound = World(cast), World(cast)
    Trigger.objects.filter(id=broken.id).update(timezone="No/Where")
    for world in (broken, sound):
        world.do("12:35", "succeeded")
        world.do("13:50", "succeeded")
    sound.look("13:55")
    assert Incident.objects.get(subject_id=sound.id).closed_at == at("13:50")


steps = st.lists(
    st.tuples(
        st.sampled_from([10, 25, 40, 70, 150]),
        st.sampled_from(["succeeded", "succeeded", "fire", "look"]),
    ),
    min_size=4,
    max_size=12,
)


class Model:
    """The incidents that must be there, worked out from successes and from looks of a scheduler."""

    def __init__(self):
        self.closed, self.missed = [], []
        self.success, self.opened, self.is_over = at("11:30"), None, False

    def succeeded(self, now):
        if self.opened and not self.is_over:
            self.is_over = True
        elif self._late_from < now:
            self.missed.append((self._late_from, now))
        self.success = now

    def look(self, now):
        if self.is_over:
            self.closed.append((self.opened, now))
            self.opened, self.is_over = None, False
        if self.missed:
            self.closed.append((self.missed[0][0], self.missed[-1][1]))
            self.missed = []
        if self.opened is None and self._late_from <= now:
            self.opened = now

    @property
    def _late_from(self):
        """Half an hour after the first full hour after the last success."""
        return self.success.replace(minute=0) + timedelta(hours=1, minutes=30)


@pytest.mark.django_db
def test_schedulers_that_look_at_random_times_miss_nothing():
    @settings(
        max_examples=4,
        phases=(Phase.generate,),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(steps=steps)
    def check(steps):
        with transaction.atomic():
            world, model = World(make_cast()), Model()
            for minutes, what in [*steps, (10, "look")]:
                now = world.runs.now + timedelta(minutes=minutes)
                world.do(f"{(now - DAY) // timedelta(hours=1)}:{now.minute}", what)
                if what != "fire":
                    getattr(model, what)(now)
            expected = sorted([*model.closed, *([(model.opened, None)] if model.opened else [])])
            assert sorted(world.incidents()) == expected
            assert world.told() == (len(expected), len(model.closed))
            transaction.set_rollback(True)

    check()
