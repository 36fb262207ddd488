"""What the app adds to the service: receivers, jobs, channels' messages and secrets, and retention."""

from collections.abc import Collection, Iterator
from uuid import UUID

from django.conf import settings

from notices import receivers  # noqa: F401 - the import connects the receivers
from notices.budgets import find_reached_budgets
from notices.channels import files  # noqa: F401 - importing it registers the kind
from notices.channels.outcomes import remind_of_questions, tell_outcomes
from notices.channels.sending import NOTICES
from notices.channels.summaries import send_summaries
from notices.incidents import remind
from notices.lateness import find_late_triggers
from notices.models import Incident
from notices.silence import find_offline_pools, find_offline_workers
from pipedai.loop import Job, register_job
from pipedai.outgoing.pool import register_kind
from pipedai.retention import Batch, Order, Retention, register_retention, rows_where
from triggers.changes import Kind, State, register_changing

_prune_ended = rows_where(
    "notice",
    "t.created_at < %(before)s AND t.status <> 'pending'",
    by="t.created_at",
    children={"notice_attempt": "notice_id"},
)
_prune_channels = rows_where(
    "channel",
    "t.deleted_at < %(before)s AND NOT EXISTS (SELECT FROM notice n WHERE n.channel_id = t.id)",
    by="t.deleted_at",
)
# The audit log keeps the events of incidents.
prune_incidents = rows_where("incident", "t.closed_at < %(before)s", by="t.closed_at")


def prune_notices(order: Order) -> Iterator[Batch]:
    """Removes the notices that were queued before `order.before` and are no longer pending, and then the channels that
    were deleted before that time and have no notices any more.
    """
    yield from _prune_ended(order)
    if not order.dry_run:
        yield from _prune_channels(order)


def _states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    rows = Incident.objects.filter(environment_id=environment_id, id__in=ids)
    return [
        State(id_, "open" if closed_at is None else "closed")
        for id_, closed_at in rows.values_list("id", "closed_at")
    ]


register_kind(NOTICES)
register_changing(Kind("incident", _states))
for job in (
    Job(
        "tell-outcomes",
        1.0,
        tell_outcomes,
        does="Queues the notices about runs that have ended.",
        turns="ended runs that nobody was told of",
    ),
    Job(
        "send-summaries",
        2.0,
        send_summaries,
        does="Queues the daily summaries of channels.",
        turns="channels whose summary is due",
    ),
    Job(
        "find-late-triggers",
        1.0,
        find_late_triggers,
        does="Opens and closes incidents about triggers without a success in time.",
        turns="triggers whose check is due",
    ),
    Job(
        "find-offline-workers",
        10.0,
        find_offline_workers,
        does="Opens and closes incidents about machines that are silent although a trigger needs them.",
        turns="machines that are silent or back again",
    ),
    Job(
        "find-offline-pools",
        10.0,
        find_offline_pools,
        does="Opens and closes incidents about pools none of whose machines has called.",
        turns="pools that are silent or back again",
    ),
    Job(
        "find-reached-budgets",
        2.0,
        find_reached_budgets,
        does="Opens and closes incidents about budgets that have reached a percentage.",
        turns="windows of budgets that have changed or ended",
    ),
    Job(
        "remind-of-incidents",
        10.0,
        remind,
        does="Queues the daily reminders of open incidents.",
        turns="incidents of which a reminder is due",
    ),
    Job(
        "remind-of-questions",
        10.0,
        remind_of_questions,
        does="Queues the reminders of approvals that wait for a decision.",
        turns="approvals of which a reminder is due",
    ),
):
    register_job(job)
register_retention(
    Retention(
        "notices",
        "notices that were sent, told in a digest or given up, and deleted channels",
        lambda: settings.DELIVERY_RETENTION_DAYS or settings.RUN_RETENTION_DAYS or None,
        prune_notices,
    ),
    Retention(
        "incidents",
        "incidents that are closed",
        lambda: settings.RUN_RETENTION_DAYS or None,
        prune_incidents,
    ),
)
