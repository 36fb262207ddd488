"""A scheduler is killed while it finds incidents and sends notices: each is opened once, and none stays untold."""

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.db.models import F

from notices.models import Incident, Notice
from pipedai.sql import database_now
from testing.processes.scheduler_process import scheduling
from testing.processes.webhook_receiver import Receiver, receiving
from testing.processes.worker_process import until
from testing.world.cast import Cast
from testing.world.channels import add_channel
from testing.world.many_triggers import add_triggers
from triggers.models import Trigger, TriggerHealth

TRIGGERS = 40


def add_late_triggers(cast: Cast) -> None:
    """Makes triggers that are late. The scheduler looks at half of them at once, and at the others a bit later."""
    now = database_now()
    due = now.replace(second=0, microsecond=0) - timedelta(hours=1)
    add_triggers(
        cast,
        TRIGGERS,
        schedule=f"{due.minute} {due.hour} * * *",
        due=due,
        success_deadline_seconds=60,
    )
    Trigger.objects.update(created_at=now - timedelta(hours=2))
    TriggerHealth.objects.all().delete()
    watched = Trigger.objects.filter(next_run_at__isnull=False).values_list("id", flat=True)
    TriggerHealth.objects.bulk_create(
        TriggerHealth(
            trigger_id=trigger_id,
            environment=cast.environment,
            check_at=now + timedelta(seconds=20 * (n % 2)),
        )
        for n, trigger_id in enumerate(watched)
    )


def told(receiver: Receiver) -> Counter[UUID]:
    bodies = [json.loads(received.body) for received in receiver.received]
    return Counter(UUID(body["incident"]["id"]) for body in bodies)


@pytest.mark.long
def test_each_incident_is_opened_once_and_told_at_least_once(
    own_database: str, committed_cast: Cast, tmp_path: Path
) -> None:
    add_late_triggers(committed_cast)
    with receiving() as receiver:
        add_channel(committed_cast, "webhook", url=receiver.url(), events=["trigger_late"])
        networks = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
        receiver.gate.clear()
        with scheduling(own_database, log=tmp_path / "first.log", **networks):
            # The scheduler is killed at the end of the block, while the receiver keeps its requests waiting.
            until(lambda: receiver.received)
        assert Incident.objects.count() < TRIGGERS
        assert not Notice.objects.filter(status="delivered").exists()
        # The claims of the killed scheduler run out, and the time of the other triggers comes.
        Notice.objects.filter(next_attempt_at__gt=F("send_at")).update(next_attempt_at=F("send_at"))
        TriggerHealth.objects.update(check_at=database_now())
        receiver.gate.set()
        with scheduling(own_database, log=tmp_path / "second.log", **networks):
            until(lambda: Notice.objects.filter(status="delivered").count() == TRIGGERS)
        incidents = Incident.objects.filter(kind="trigger_late")
        assert incidents.count() == incidents.values("subject_id").distinct().count() == TRIGGERS
        assert told(receiver).keys() == set(incidents.values_list("id", flat=True))
        assert set(incidents.values_list("notice_count", flat=True)) == {1}
        # Only what was under way when the scheduler died was sent twice.
        assert sum(told(receiver).values()) <= TRIGGERS + 8
