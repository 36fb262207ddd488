"""Opens, closes, acknowledges, repeats and announces incidents. No other module changes them.

Each change is one guarded statement, so that only one of two processes does it and announces it.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from django.db import transaction

from notices.channels.announcements import of_incidents
from notices.channels.queueing import channels_wanting, queue_notices
from notices.states import INCIDENTS, RECOVERED, Kind
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import NOW, Row, execute, fetch_all
from pipedai.turns import due_rows

# People are reminded of an open incident once a day, this many times at most.
MAX_REMINDERS: Final = 7
_LONGEST_MESSAGE = 300

_OPEN = f"""
INSERT INTO incident (id, environment_id, kind, subject_type, subject_id, subject_name, run_id, message, opened_at,
    remind_at)
SELECT id, environment_id, %(kind)s, %(subject_type)s, subject_id, subject_name, run_id, message, {NOW},
    {NOW} + interval '1 day'
FROM json_to_recordset(%(found)s::json) AS f (
    id uuid, environment_id uuid, subject_id uuid, subject_name text, run_id uuid, message text)
ORDER BY subject_id
ON CONFLICT (subject_id, kind, environment_id) WHERE closed_at IS NULL DO NOTHING
RETURNING id, environment_id, kind, subject_type, subject_id, run_id
"""  # noqa: S608

# Inserts incidents that were over before they were noticed.
_INSERT_PAST = """
INSERT INTO incident (id, environment_id, kind, subject_type, subject_id, subject_name, run_id, message, opened_at,
    closed_at)
SELECT id, environment_id, %(kind)s, %(subject_type)s, subject_id, subject_name, run_id, message, opened_at, closed_at
FROM json_to_recordset(%(found)s::json) AS f (
    id uuid, environment_id uuid, subject_id uuid, subject_name text, run_id uuid, message text, opened_at timestamptz,
    closed_at timestamptz)
ORDER BY subject_id
RETURNING id, environment_id, kind, subject_type, subject_id, run_id
"""

# Closes incidents. The rows are locked in the order of their ids first, so that two processes that close the same
# incidents can't deadlock. No incident is closed before it was opened, even if the database's clock was put back.
_CLOSE = f"""
WITH found AS (
    SELECT id FROM incident
    WHERE subject_id = ANY(%(subject_ids)s) AND kind = %(kind)s AND closed_at IS NULL
    ORDER BY id FOR NO KEY UPDATE)
UPDATE incident i SET closed_at = greatest({NOW}, i.opened_at), remind_at = NULL
FROM found WHERE i.id = found.id AND i.closed_at IS NULL
RETURNING i.id, i.environment_id, i.kind, i.subject_type, i.subject_id, i.run_id
"""  # noqa: S608

_ACKNOWLEDGE = """
UPDATE incident SET acknowledged_at = statement_timestamp(), acknowledged_by = %(user_id)s, remind_at = NULL
WHERE id = %(incident_id)s AND acknowledged_at IS NULL
RETURNING id, environment_id, kind, subject_type, subject_id, run_id
"""

_TO_REMIND_OF = due_rows("incident", waits="remind_at IS NOT NULL", order="remind_at")
_REMIND = f"""
UPDATE incident i SET reminder_count = i.reminder_count + 1,
    remind_at = CASE WHEN i.reminder_count + 1 < %(most)s THEN {NOW} + interval '1 day' END
WHERE i.id = ANY(%(ids)s)
RETURNING i.id, i.environment_id, i.kind
"""  # noqa: S608

# Adds to the `notice_count` of incidents. The order of the rows does not matter, because the caller has locked them.
_COUNT = """
UPDATE incident i SET notice_count = i.notice_count + n.count
FROM unnest(%(ids)s::uuid[], %(counts)s::int[]) n (id, count) WHERE i.id = n.id
"""


def has_no_incident(kind: Kind, subject: str) -> str:
    """Returns the SQL condition that the row with this alias has no open incident of a kind."""
    return f"""NOT EXISTS (
        SELECT FROM incident i WHERE i.subject_id = {subject}.id AND i.kind = '{kind.value}'
            AND i.environment_id = {subject}.environment_id AND i.closed_at IS NULL)"""


# When people are told of an incident. `opened` is announced once for each incident. `reminder` is announced once a day,
# seven times at most, while the incident is open and nobody has acknowledged it. `recovered` is announced at most once,
# if the cause has gone away. Nothing is announced when an incident is closed because its subject was disabled or
# deleted.
Moment = Literal["opened", "reminder", "recovered"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one subject: the cause in one sentence, and the run that showed it, if one did."""

    environment_id: UUID
    subject_id: UUID
    subject_name: str
    message: str
    run_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """Something that was wrong from `opened_at` until `closed_at`, and that was noticed only after that."""

    finding: Finding
    opened_at: datetime
    closed_at: datetime


def change_incidents(
    kind: Kind,
    *,
    begun: Sequence[Finding] = (),
    recovered: Collection[UUID] = (),
    withdrawn: Collection[UUID] = (),
    now: datetime | None = None,
) -> int:
    """Opens incidents for `begun`, closes those of the subjects `recovered` and `withdrawn`, and announces all of them
    but the withdrawn ones. Returns how many it opened and closed. Call it in a transaction. It locks incidents before
    it takes turns for the receivers, because another order could deadlock.
    """
    values = [_values(finding) for finding in begun]
    opened = _insert(_OPEN, kind, values, now) if values else []
    well = _close(kind, recovered, now)
    dropped = _close(kind, withdrawn, now)
    emit(
        *(_event("incident.opened", SYSTEM, row) for row in opened),
        *(_event("incident.closed", SYSTEM, row, recovered=True) for row in well),
        *(_event("incident.closed", SYSTEM, row, recovered=False) for row in dropped),
    )
    announce({"opened": opened, "recovered": well}, now=now)
    return len(opened) + len(well) + len(dropped)


def tell_past(kind: Kind, past: Sequence[Past], *, now: datetime | None = None) -> None:
    """Inserts and announces closed incidents for what was over before anybody noticed. The caller holds a lock."""
    if not past:
        return
    found = [
        {**_values(each.finding), "opened_at": each.opened_at, "closed_at": each.closed_at}
        for each in past
    ]
    rows = _insert(_INSERT_PAST, kind, found, now)
    emit(
        *(_event("incident.opened", SYSTEM, row) for row in rows),
        *(_event("incident.closed", SYSTEM, row, recovered=True) for row in rows),
    )
    announce({"opened": rows, "recovered": rows}, now=now)


def announce(moments: Mapping[Moment, Sequence[Row]], *, now: datetime | None = None) -> None:
    """Queues the notices about these incidents, and adds their number to `notice_count`. Rows have `id`,
    `environment_id` and `kind`. Call it once for a batch, in the transaction that has locked them. It takes a constant
    number of statements.
    """
    wanted = [
        (row, f"{row['kind']}{RECOVERED if moment == 'recovered' else ''}", moment == "reminder")
        for moment, rows in moments.items()
        for row in rows
    ]
    if not wanted:
        return
    environments = [row["environment_id"] for row, *_ in wanted]
    channels = channels_wanting(environments, [event for _, event, _ in wanted], now=now)
    if not channels:
        return
    incidents = [(row["id"], event, is_reminder) for row, event, is_reminder in wanted]
    queued = queue_notices(channels, of_incidents(incidents, channels[0]["now"]), now=now)
    if counts := Counter(notice.incident_id for notice in queued if notice.incident_id):
        execute(_COUNT, {"ids": list(counts), "counts": list(counts.values())})


def _insert(statement: str, kind: Kind, found: list[Row], now: datetime | None) -> list[Row]:
    params = {
        "kind": kind.value,
        "subject_type": INCIDENTS[kind].subject.value,
        "found": json.dumps(found, default=str),
        "now": now,
    }
    return fetch_all(statement, params)


def _values(finding: Finding) -> Row:
    return {
        "id": new_id(),
        "environment_id": finding.environment_id,
        "subject_id": finding.subject_id,
        "subject_name": finding.subject_name[:255],
        "run_id": finding.run_id,
        "message": finding.message[:_LONGEST_MESSAGE],
    }


def _close(kind: Kind, subject_ids: Collection[UUID], now: datetime | None) -> list[Row]:
    if not subject_ids:
        return []
    return fetch_all(_CLOSE, {"kind": kind.value, "subject_ids": list(subject_ids), "now": now})


def acknowledge_incident(*, incident_id: UUID, actor: Actor) -> None:
    """Records that somebody has seen the incident. A closed one may be acknowledged too."""
    user_id = actor.id if actor.type == "user" else None
    with transaction.atomic():
        params = {"incident_id": incident_id, "user_id": user_id}
        rows = fetch_all(_ACKNOWLEDGE, params)
        emit(*(_event("incident.acknowledged", actor, row) for row in rows))


def remind(*, limit: int = 100, now: datetime | None = None) -> int:
    """Reminds people of up to `limit` open incidents, only once of each even after days without a scheduler."""

    def remind_of(due: list[Row]) -> int:
        ids = [row["id"] for row in due]
        rows = fetch_all(_REMIND, {"ids": ids, "most": MAX_REMINDERS, "now": now})
        announce({"reminder": rows}, now=now)
        return len(rows)

    return _TO_REMIND_OF.take(remind_of, limit=limit, now=now)


def _event(action: str, actor: Actor, row: Row, **more: bool) -> Event:
    metadata = {
        "kind": row["kind"],
        "subjectType": row["subject_type"],
        "subjectId": str(row["subject_id"]),
        **more,
    }
    if row["run_id"] is not None:
        metadata["runId"] = str(row["run_id"])
    return Event(action, actor, row["environment_id"], "incident", row["id"], metadata)
