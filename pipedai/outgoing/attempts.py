"""Sends claimed messages outside of any transaction, and records the results.

A claim moves `next_attempt_at` into the future, so that the message comes due again if its sender dies. A result is
recorded only while the row has that value. So a message may be sent twice, with the same id, but none is forgotten.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from pipedai import tracing
from pipedai.logs import get_logger
from pipedai.outgoing import mails, posts
from pipedai.outgoing.kinds import Attempt, CannotSend, Kind, SendAttempt, SendStatus
from pipedai.outgoing.mails import Mail, is_mail
from pipedai.outgoing.posts import Answer, OwnAnswer, Result
from pipedai.sql import Row, database_now, fetch_all

log = get_logger(__name__)

# This signal tells the metrics of each attempt to send a message, with its `kind`, `status` and `answer`, after the
# attempt has been recorded. Its sender is the model of the outbox.
attempted = Signal()

# How many seconds pass between one attempt and the next, as API.md tells receivers. If the attempt after the last wait
# fails too, the message is given up.
BACKOFF_SECONDS = (10, 60, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600)
JITTER = 0.2
MAX_RETRY_AFTER = timedelta(hours=24)
# While the service's own mail server is away, about AWAY_SECONDS pass at most between two attempts to send a mail. A
# mail that is older than MAX_AWAY is given up (RFC 5321 §4.5.4.1 asks for 4 to 5 days).
AWAY_SECONDS = 30 * 60
MAX_AWAY = timedelta(days=5)


def send(kind: Kind, row: Row) -> Answer:
    """Sends a claimed message and returns the answer. It opens no transaction, and no database connection."""
    try:
        message = kind.message(row)
    except CannotSend as reason:
        return OwnAnswer(None, 0, str(reason)[:100], means=reason.result)
    except Exception:
        # The message can't be made, because of a defect in our code or an unexpected row. Its attempts count like those
        # of any other message, so that it is not tried for ever.
        log.exception(kind.event("not_made"), **kind.naming(row))
        return OwnAnswer(None, 0, "the message could not be made")
    about = {"server.address": row["host"], f"pipedai.{kind.row_name}.id": str(row["id"])}
    with tracing.client_span(f"{kind.name} attempt", about) as span:
        answer: Answer
        if isinstance(message, Mail):
            answer = mails.deliver(message, message_id=row["id"].hex)
        else:
            answer = posts.post(
                message.url, method=message.method, headers=message.headers, body=message.body
            )
            if answer.status_code is not None:
                span.set_attributes({"http.response.status_code": answer.status_code})
        if answer.error is not None:
            span.set_attributes({"error.type": answer.error})
        return answer


def record(kind: Kind, sent: Sequence[tuple[Row, Answer]], *, now: datetime | None = None) -> None:
    """Records the results of claimed rows and the times of the next attempts, in one transaction. A message does not
    change if another sender has claimed it meanwhile, or if it is no longer to be sent.
    """
    with transaction.atomic():
        now = now or database_now()
        judged = []
        for row, answer in sent:
            attempts = _counted(kind, row, answer)
            status, due = verdict(answer, attempts=attempts, now=now, queued=row["created_at"])
            judged.append((row, answer, status, due))
        rows = fetch_all(_record(kind), _columns(judged, now))
        counts = {(row["id"], row["claim"]): row["attempt_count"] for row in rows}
        recorded, overtaken = [], []
        for row, answer, status, _ in judged:
            if (count := counts.get((row["id"], row["claim"]))) is None:
                overtaken.append(row)
            else:
                recorded.append(Attempt(row, status, count, answer))
        if recorded:
            kept = (_kept(kind, attempt) for attempt in recorded)
            kind.attempts._default_manager.bulk_create(kept)
            kind.after_attempts(recorded)
    for row in overtaken:
        log.warning(kind.event("overtaken"), **kind.naming(row))
    for attempt in recorded:
        answer = attempt.answer
        attempted.send(sender=kind.rows, kind=kind, status=attempt.status, answer=answer)
        log.info(
            kind.event("sent"),
            **kind.naming(attempt.row),
            host=attempt.row["host"],
            status=attempt.status.value,
            status_code=answer.status_code,
            error=answer.error,
            duration_ms=answer.duration_ms,
        )


def _counted(kind: Kind, row: Row, answer: Answer) -> int:
    """Returns how many attempts count, with this one. Attempts to send a mail while our own mail server was away don't
    count: otherwise the mail would be given up after the first bad answer that follows a long outage.
    """
    count: int = row["attempt_count"] + 1
    if not is_mail(row["host"]) or answer.result is not Result.AGAIN:
        return count
    earlier = kind.attempts._default_manager.filter(**{kind.attempt_key: row["id"]})
    return count - earlier.filter(error__in=mails.AWAY_ERRORS).count()


def verdict(
    answer: Answer, *, attempts: int, now: datetime, queued: datetime | None = None
) -> tuple[SendStatus, datetime | None]:
    """Returns the message's new status and the time of its next attempt, if any. `attempts` includes this one."""
    result = answer.result
    if result is Result.TAKEN:
        return SendStatus.DELIVERED, None
    pause = BACKOFF_SECONDS[min(attempts, len(BACKOFF_SECONDS)) - 1]
    is_over = attempts > len(BACKOFF_SECONDS)
    if result is Result.AWAY:
        pause = min(pause, AWAY_SECONDS)
        is_over = now - (queued or now) > MAX_AWAY
    if result is Result.REFUSED or is_over:
        return SendStatus.DEAD, None
    jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, hides nothing
    due = now + timedelta(seconds=pause * jitter)
    asked = _asked_for(answer.retry_after, now)
    return SendStatus.PENDING, max(due, asked) if asked else due


def _asked_for(retry_after: str | None, now: datetime) -> datetime | None:
    """Returns the time in a Retry-After header, seconds or a date (RFC 9110 §10.2.3), within 24 hours; or None."""
    text = (retry_after or "").strip()
    latest = now + MAX_RETRY_AFTER
    if text.isascii() and text.isdigit():
        # The digits after the ninth don't matter, because a number of nine digits exceeds 24 hours already.
        seconds = int(text[:9])
        return min(now + timedelta(seconds=seconds), latest)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(date.replace(tzinfo=date.tzinfo or UTC), latest)


@lru_cache(maxsize=16)
def _record(kind: Kind) -> str:
    """Returns the statement that records results. It locks rows in the order of ids, so that senders never deadlock."""
    # The conditions on the environment let PostgreSQL read one partition if the table is partitioned by it.
    of_environments = of_environment = ""
    if kind.tenants is not None:
        of_environments = """
        AND m.environment_id = given.environment_id AND m.environment_id = ANY(%(environment_ids)s::uuid[])"""
        of_environment = """
    AND m.environment_id = locked.environment_id AND m.environment_id = ANY(%(environment_ids)s::uuid[])"""
    forgotten = "".join(
        f", {column} = CASE WHEN locked.status = 'pending' THEN m.{column} END"
        for column in kind.forgets
    )
    return f"""
WITH locked AS MATERIALIZED (
    SELECT given.* FROM unnest(
        %(ids)s::uuid[], %(environment_ids)s::uuid[], %(claims)s::timestamptz[], %(statuses)s::text[],
        %(next_attempts)s::timestamptz[], %(deliveries)s::timestamptz[]
    ) given (id, environment_id, claim, status, next_attempt_at, delivered_at)
    JOIN {kind.table} m ON m.id = given.id{of_environments}
    WHERE m.status = 'pending' AND m.next_attempt_at = given.claim
    ORDER BY m.id FOR UPDATE OF m)
UPDATE {kind.table} m SET status = locked.status, next_attempt_at = locked.next_attempt_at,
    delivered_at = locked.delivered_at, attempt_count = m.attempt_count + 1{forgotten}
FROM locked WHERE m.id = locked.id{of_environment}
RETURNING m.id, locked.claim, m.attempt_count
"""


def _columns(
    judged: Sequence[tuple[Row, Answer, SendStatus, datetime | None]], now: datetime
) -> dict[str, list[Any]]:
    """Returns the parameters of `_record`: a list for each column, with a value for each message."""
    return {
        "ids": [row["id"] for row, *_ in judged],
        "environment_ids": [row["environment_id"] for row, *_ in judged],
        "claims": [row["claim"] for row, *_ in judged],
        "statuses": [status.value for *_, status, _ in judged],
        "next_attempts": [due for *_, due in judged],
        "deliveries": [now if status == SendStatus.DELIVERED else None for *_, status, _ in judged],
    }


def _kept(kind: Kind, attempt: Attempt) -> SendAttempt:
    row, answer = attempt.row, attempt.answer
    body = answer.body if kind.keeps_answers else None
    if body is not None:
        # PostgreSQL stores neither invalid UTF-8 nor NUL characters, so these become U+FFFD.
        text = body[: posts.KEPT_BODY_BYTES].decode(errors="replace").replace("\0", "\ufffd")
    owner = {} if kind.tenants is None else {"environment_id": row["environment_id"]}
    return kind.attempts(
        **owner,
        **{kind.attempt_key: row["id"]},
        n=attempt.count,
        at=row["claimed_at"],
        status_code=answer.status_code,
        duration_ms=answer.duration_ms,
        error=answer.error,
        response_body=None if body is None else text,
    )
