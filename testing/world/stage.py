"""Makes a row of every kind that a URL of the API can name."""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from django.db.models.functions import Now

from accounts.models import Session
from accounts.sessions import LIFETIME
from pipedai.sql import database_now
from testing.world.budgets import add_budget
from testing.world.cast import TEST_ACTOR, Cast, issue_enrollment
from testing.world.channels import CHANNEL_SECRET, add_channel
from testing.world.connections import add_connection
from testing.world.events import add_event, add_source
from testing.world.incidents import open_incident
from testing.world.mails import invite_for_test
from testing.world.pools import add_pool
from testing.world.runs import NOON, WEBHOOK_URL, Runs, allow
from triggers.models import Trigger, TriggerRevision
from triggers.webhooks.sending import send_test
from workers.models import Worker


@dataclass
class Stage:
    """The cast, and one row of every kind that a URL can name."""

    cast: Cast
    ids: dict[str, UUID]
    runs: dict[str, UUID]


def set_stage(cast: Cast) -> Stage:
    """Makes a queued, a claimed, a running and an ended run, and a row for every other id in URLs."""
    allow(cast.worker.worker_id, 3)
    runs = Runs(cast, cast.trigger_id, now=database_now())
    cast.mint("pwk")
    ended = runs.queue()
    runs.cancel(ended)
    Trigger.objects.filter(id=cast.trigger_id).update(
        webhook_url=WEBHOOK_URL, record_events="always"
    )
    # No other run of the stage is of a trigger with rules, and no call says that the worker takes approvals.
    asking = replace(runs, trigger_id=cast.add_trigger())
    asked = asking.waiting()
    Worker.objects.filter(id=cast.worker.worker_id).update(features=[])
    return Stage(
        cast,
        {
            "workspace_id": cast.workspace.id,
            "environment_id": cast.environment.id,
            "key_id": cast.environment.api_keys.filter(kind="pwk").latest("id").id,
            "user_id": cast.viewer.id,
            "session_id": Session.objects.create(user=cast.owner, expires_at=Now() + LIFETIME).id,
            "invitation_id": _open_invitation(cast),
            "trigger_id": cast.trigger_id,
            "revision_id": _former_revision(cast),
            "worker_id": cast.worker.worker_id,
            "pool_id": add_pool(cast, cast.worker.worker_id, name="Machines"),
            "enrollment_id": issue_enrollment(cast.environment, cast.owner)[0].id,
            "delivery_id": send_test(trigger_id=cast.trigger_id, actor=TEST_ACTOR),
            "incident_id": open_incident(cast),
            # No run of the stage is of this trigger, so that the budget does not change how runs are claimed.
            "budget_id": add_budget(cast, trigger_id=cast.add_trigger(worker_id=None)).id,
            "connection_id": add_connection(cast),
            "source_id": (source_id := add_source(cast)),
            "event_id": add_event(cast, source_id=source_id).id,
            "channel_id": add_channel(cast, "webhook", secret=CHANNEL_SECRET).id,
            "approval_id": asking.approval_of(asked)["id"],
        },
        {
            "ended": ended,
            "asking": asked,
            "queued": runs.queue(),
            "claimed": runs.claimed(),
            "running": runs.running(),
        },
    )


def _former_revision(cast: Cast) -> UUID:
    row = TriggerRevision(
        environment=cast.environment,
        trigger_id=cast.trigger_id,
        prompt="A former prompt.",
        created_at=NOON - timedelta(days=1),
    )
    row.save(force_insert=True)
    return row.id


def _open_invitation(cast: Cast) -> UUID:
    invite_for_test(cast.environment, cast.owner, "invited@example.com")
    return cast.environment.invitations.latest("id").id
