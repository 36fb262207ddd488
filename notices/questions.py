"""Tells of the calls about which somebody has to decide, and once more before the time for it is over (SPEC §27)."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from notices.channels.announcements import of_questions
from notices.channels.queueing import queue_notices
from notices.channels.wanting import channels_wanting
from notices.states import APPROVAL_REQUESTED
from pipedai.sql import Row
from triggers.approvals.services import take_due_reminders


def announce_questions(
    questions: Sequence[Row], *, is_reminder: bool = False, now: datetime | None = None
) -> None:
    """Queues the notices about approvals, rows with `id` and `environment_id`, in the caller's transaction."""
    environments: set[UUID] = {each["environment_id"] for each in questions}
    if channels := channels_wanting(environments, [APPROVAL_REQUESTED], now=now):
        at = channels[0]["now"] if is_reminder else None
        queue_notices(channels, of_questions([each["id"] for each in questions], at), now=now)


def remind_of_questions(*, limit: int = 100, now: datetime | None = None) -> int:
    """Reminds people of up to `limit` calls, of each once. Returns of how many."""
    with transaction.atomic():
        questions = take_due_reminders(limit=limit, now=now)
        if questions:
            announce_questions(questions, is_reminder=True, now=now)
    return len(questions)
