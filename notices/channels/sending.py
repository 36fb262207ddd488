"""The kind of messages that notices are, and what follows from an attempt to send one (SPEC §14)."""

from collections.abc import Sequence

from notices.channels.messages import JOINS, READS, message_of
from notices.models import Notice, NoticeAttempt
from notices.states import CONFIRM
from pipedai.events import SYSTEM, Event, emit
from pipedai.outgoing import Attempt, Kind, SendStatus
from pipedai.sql import execute

_WORKS = """
UPDATE channel SET failing_since = NULL, last_error = NULL WHERE id = %(id)s AND failing_since IS NOT NULL
"""
_FAILS = """
UPDATE channel SET failing_since = coalesce(failing_since, statement_timestamp()), last_error = %(error)s
WHERE id = %(id)s
"""


def _follow(attempts: Sequence[Attempt]) -> None:
    """Records at the channels whether their notices get through, and emits an event if a notice was given up."""
    for attempt in attempts:
        row, answer = attempt.row, attempt.answer
        if row["event"] != CONFIRM and attempt.status == SendStatus.DELIVERED:
            execute(_WORKS, {"id": row["channel_id"]})
        if attempt.status != SendStatus.DEAD:
            continue
        error = answer.error or f"answered {answer.status_code}"
        if row["event"] != CONFIRM:
            execute(_FAILS, {"id": row["channel_id"], "error": error[:100]})
        metadata = {
            "channelId": str(row["channel_id"]),
            "event": row["event"],
            "attempts": attempt.count,
            "statusCode": answer.status_code,
            "error": answer.error,
        }
        emit(Event("notice.failed", SYSTEM, row["environment_id"], "notice", row["id"], metadata))


NOTICES = Kind(
    "notice",
    Notice,
    NoticeAttempt,
    message_of,
    _follow,
    tenants="environment",
    reads=READS,
    joins=JOINS,
    shares=16,
    per_host=4,
    recorders=2,
)
