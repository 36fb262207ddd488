"""In random histories of a trigger the incidents and an independent model of the rules in API.md never differ."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from audit.models import AuditEntry
from notices.lateness import find_late_triggers
from notices.models import Incident
from pipedai.sql import database_now
from testing.world.cast import TEST_ACTOR, make_cast
from testing.world.runs import Runs, allow
from triggers.models import Run, Trigger, TriggerHealth
from triggers.queries import triggers
from triggers.schedules.firing import fire_due_ticks
from triggers.services import TRIGGERS

HOUR = timedelta(hours=1)
ends = st.sampled_from(["succeeded", "failed", "timed_out", "canceled"])


@dataclass
class Model:
    """What the history says of the trigger, worked out from all of it anew for each question."""

    counts_from: datetime
    alert_after: int | None = 1
    deadline: timedelta | None = None
    enabled: bool = True
    # The final outcome of each run, with the time of its end.
    outcomes: dict[UUID, tuple[datetime, str]] = field(default_factory=dict)
    due_times: list[datetime] = field(default_factory=list)

    def health(self, now: datetime) -> str:
        ended = sorted(each for each in self.outcomes.values() if each[0] >= self.counts_from)
        if not self.enabled:
            return "idle"
        last = [status for _, status in ended[-self.alert_after :]] if self.alert_after else []
        if len(last) == self.alert_after and "succeeded" not in last:
            return "failing"
        if self.is_late(now):
            return "late"
        return "ok" if ended else "idle"

    def is_late(self, now: datetime) -> bool:
        if self.deadline is None or not self.enabled:
            return False
        successes = [at for at, status in self.outcomes.values() if status == "succeeded"]
        since = max([self.counts_from, *successes])
        return any(since < due and due + self.deadline <= now for due in self.due_times)


class History(RuleBasedStateMachine):
    """Does each thing to a real trigger and to the model, and compares what they say of its health."""

    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()

    @initialize()
    def make(self) -> None:
        cast = make_cast()
        allow(cast.worker.worker_id, 50)
        self.runs = Runs.of(cast, max_retries=1, schedule="0 * * * *", webhook_url=None)
        self.id = self.runs.trigger_id
        # An hour that lies after the real time, at which the trigger was made.
        self.runs.now = database_now().replace(minute=0, second=0, microsecond=0) + 24 * HOUR
        Trigger.objects.filter(id=self.id).update(next_run_at=self.runs.now + HOUR)
        self.model = Model(self.runs.now - HOUR)
        TriggerHealth.objects.create(
            trigger_id=self.id, environment=cast.environment, counts_from=self.model.counts_from
        )
        self.held: list[UUID] = []
        self.given_up: list[UUID] = []

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.example.__exit__(None, None, None)

    @rule(minutes=st.sampled_from([1, 29, 30, 31, 59, 60, 61, 300]))
    def time_passes(self, minutes: int) -> None:
        self.runs.wait(minutes=minutes)
        due = Trigger.objects.get(id=self.id).next_run_at
        while due is not None and due <= self.runs.now:
            self.model.due_times.append(due)
            due += HOUR

    @rule()
    def the_scheduler_fires(self) -> None:
        fire_due_ticks(now=self.runs.now)
        for run in Run.objects.filter(trigger_id=self.id, status="queued"):
            if run.available_at <= self.runs.now:
                self.runs.claim(run.id)
                self.held.append(run.id)

    @precondition(lambda self: self.model.enabled)
    @rule()
    def somebody_asks_for_a_run(self) -> None:
        self.held.append(self.runs.claimed())

    @precondition(lambda self: self.held)
    @rule(status=ends, fault=st.sampled_from(["client", "client", "infra"]))
    def a_run_ends(self, status: str, fault: str) -> None:
        run_id = self.held.pop()
        self.runs.wait(seconds=1)
        if status == "canceled":
            self.runs.cancel(run_id)
        self.runs.heartbeat(run_id)
        self.runs.complete(run_id, status, faultClass=fault)
        self._note(run_id)

    @precondition(lambda self: self.held)
    @rule()
    def a_worker_is_lost(self) -> None:
        self.runs.wait(minutes=4)
        self.runs.expire()
        lost, self.held = self.held, []
        self.given_up += lost
        for run_id in lost:
            self._note(run_id)

    @precondition(lambda self: self.given_up)
    @rule(
        status=st.sampled_from(["succeeded", "failed"]), fault=st.sampled_from(["client", "infra"])
    )
    def it_reports_late(self, status: str, fault: str) -> None:
        run_id = self.given_up.pop()
        retry = self.runs.retry_of(run_id)
        if retry is None or retry["claimed_at"] is None:
            self.runs.wait(seconds=1)
            self.runs.complete(run_id, status, faultClass=fault)
            self._note(run_id)

    @rule(count=st.sampled_from([1, 2, 3, None]))
    def the_number_of_failures_changes(self, count: int | None) -> None:
        self.model.alert_after = count
        self._change(alert_after_failures=count)

    @rule(seconds=st.sampled_from([600, 1800, 5400, None]))
    def the_deadline_changes(self, seconds: int | None) -> None:
        self.model.deadline = None if seconds is None else timedelta(seconds=seconds)
        self._change(success_deadline_seconds=seconds)

    @precondition(lambda self: not self.held)
    @rule()
    def it_is_disabled_and_perhaps_enabled(self) -> None:
        self.model.enabled = not self.model.enabled
        self._change(enabled=self.model.enabled)
        if self.model.enabled:
            # It was enabled now, by the history's clock.
            self.runs.wait(seconds=1)
            self.model.counts_from = self.runs.now
            due = self.runs.now.replace(minute=0, second=0) + HOUR
            TriggerHealth.objects.update(counts_from=self.runs.now)
            Trigger.objects.filter(id=self.id).update(next_run_at=due)

    @invariant()
    def health_and_incidents_are_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        now = self.runs.now
        find_late_triggers(now=now)
        shown = triggers().get(id=self.id)["health"]
        assert shown == self.model.health(now)
        open_kinds = set(
            Incident.objects.filter(closed_at__isnull=True).values_list("kind", flat=True)
        )
        expected = {"trigger_failing"} if shown == "failing" else set()
        assert open_kinds == expected | ({"trigger_late"} if self.model.is_late(now) else set())
        told = Counter(
            AuditEntry.objects.filter(target_type="incident").values_list("action", flat=True)
        )
        assert told["incident.opened"] == Incident.objects.count()
        assert told["incident.closed"] == Incident.objects.filter(closed_at__isnull=False).count()

    def _change(self, **values: object) -> None:
        TRIGGERS.update(self.id, values=values, actor=TEST_ACTOR)

    def _note(self, run_id: UUID) -> None:
        """Tells the model how a run ended, if no retry follows it and it was not canceled."""
        run = self.runs.stored(run_id)
        retry = self.runs.retry_of(run_id)
        is_retried = retry is not None and retry["ended_by"] != "late_result"
        self.model.outcomes.pop(run_id, None)
        if run["status"] != "canceled" and not is_retried:
            self.model.outcomes[run_id] = (run["ended_at"], run["status"])


@pytest.mark.django_db
def test_incidents_are_as_the_model_says() -> None:
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=5,
            stateful_step_count=20,
            phases=(Phase.generate,),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
