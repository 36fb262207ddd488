"""What channels tell, as the JSON from which the texts of mails and of Slack are made (SPEC §14)."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from notices.serializers import incident_shown
from notices.states import APPROVAL_REQUESTED, RECOVERED, RUN_ENDED, headline
from pipedai.api.renderers import compact_json
from pipedai.sql import fetch_all
from triggers.runs.queries import runs_in_order
from triggers.runs.serializers import RunSerializer

# A digest names at most this many of the notices that it stands for, and only counts the others.
MOST_NAMED: Final = 50

_INCIDENTS: Final = "SELECT * FROM incident WHERE id = ANY(%(ids)s)"
_QUESTIONS: Final = """
SELECT a.*, t.name AS trigger_name FROM approval a JOIN trigger t ON t.id = a.trigger_id
WHERE a.id = ANY(%(ids)s) ORDER BY a.id
"""


@dataclass(frozen=True, slots=True)
class Announcement:
    environment_id: UUID
    event: str
    # One sentence for people, without a full stop. Names that others wrote are in it unchanged.
    line: str
    at: datetime
    # The keys `subject`, `incident`, `run` and `approval` of the body.
    about: Mapping[str, Any] = field(default_factory=dict)
    incident_id: UUID | None = None
    run_id: UUID | None = None


def body_of(announcement: Announcement, notice_id: UUID) -> str:
    """Returns the JSON of a notice without its run's `output`, which is added when a webhook sends it."""
    body = {
        "id": notice_id,
        "event": announcement.event,
        "at": announcement.at,
        "environmentId": announcement.environment_id,
        "subject": None,
        "incident": None,
        "run": None,
        "approval": None,
        **announcement.about,
    }
    return compact_json(body)


def of_incidents(wanted: Collection[tuple[UUID, str, bool]], now: datetime) -> list[Announcement]:
    """Items of `wanted` are an incident's id, the event, and whether it is a reminder. It takes two queries."""
    rows = {row["id"]: row for row in fetch_all(_INCIDENTS, {"ids": [id_ for id_, *_ in wanted]})}
    runs = _runs_shown([row["run_id"] for row in rows.values() if row["run_id"]])
    announcements = []
    for incident_id, event, is_reminder in wanted:
        if row := rows.get(incident_id):
            at = row["closed_at" if event.endswith(RECOVERED) else "opened_at"]
            shown = incident_shown(row)
            announcements.append(
                Announcement(
                    row["environment_id"],
                    event,
                    headline(event, row["subject_name"], reminder=is_reminder),
                    now if is_reminder else at,
                    {
                        "subject": shown["subject"],
                        "incident": shown,
                        "run": runs.get(row["run_id"]),
                    },
                    incident_id,
                    row["run_id"],
                )
            )
    return announcements


def of_outcomes(run_ids: Collection[UUID]) -> list[Announcement]:
    """Returns what is to be told about ended runs, in one query."""
    return [
        Announcement(
            run["environmentId"],
            RUN_ENDED,
            f"A run of trigger {run['triggerName']} has ended",
            run["endedAt"],
            {
                "subject": {
                    "type": "trigger",
                    "id": run["triggerId"],
                    "name": run["triggerName"],
                },
                "run": run,
            },
            run_id=run_id,
        )
        for run_id, run in _runs_shown(run_ids).items()
    ]


def of_questions(approval_ids: Collection[UUID]) -> list[Announcement]:
    """Returns what is to be told about calls for which runs wait, without their arguments. It takes two queries."""
    rows = fetch_all(_QUESTIONS, {"ids": list(approval_ids)})
    runs = _runs_shown([row["run_id"] for row in rows])
    return [
        Announcement(
            row["environment_id"],
            APPROVAL_REQUESTED,
            headline(APPROVAL_REQUESTED, row["trigger_name"]),
            row["created_at"],
            {
                "subject": {
                    "type": "trigger",
                    "id": row["trigger_id"],
                    "name": row["trigger_name"],
                },
                "run": runs.get(row["run_id"]),
                "approval": {
                    "id": row["id"],
                    "tool": row["tool"],
                    "approverRole": row["role"],
                    "expiresAt": row["expires_at"],
                },
            },
            run_id=row["run_id"],
        )
        for row in rows
    ]


def _runs_shown(ids: Collection[UUID]) -> dict[UUID, dict[str, Any]]:
    if not ids:
        return {}
    rows = runs_in_order(list(dict.fromkeys(ids)))
    shown = RunSerializer(rows, many=True).data
    return {row["id"]: dict(each) for row, each in zip(rows, shown, strict=True)}


@dataclass(frozen=True, slots=True)
class Digest:
    """What a digest says: how many notices it stands for, and the sentences of the first ones."""

    count: int = 0
    lines: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: str) -> "Digest":
        """Reads a digest from the body of its notice."""
        found = json.loads(body)["digest"]
        return cls(found["count"], tuple(found["lines"]))

    def with_more(self, lines: list[str]) -> "Digest":
        room = MOST_NAMED - len(self.lines)
        return Digest(self.count + len(lines), (*self.lines, *lines[: max(0, room)]))

    @property
    def about(self) -> dict[str, Any]:
        return {"digest": {"count": self.count, "lines": list(self.lines)}}
