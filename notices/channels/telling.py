"""Makes the JSON text of a notice, from which the texts of mails and of Slack are made (SPEC §14)."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from notices.channels.words import RECOVERED, headline
from notices.serializers import IncidentSerializer
from pipedai.api.renderers import compact_json
from pipedai.sql import Row, fetch_all
from triggers.runs.queries import runs_in_order
from triggers.runs.serializers import RunSerializer

# A digest names at most this many of the notices that it stands for, and only counts the others.
MOST_NAMED: Final = 50

_INCIDENTS: Final = "SELECT * FROM incident WHERE id = ANY(%(ids)s)"


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that channels tell: an event of an incident, an ended run, a test or a digest."""

    environment_id: UUID
    event: str
    # One sentence for people, without a full stop. Names that others wrote are in it unchanged.
    line: str
    at: datetime
    # The keys `subject`, `incident` and `run` of the body.
    about: Mapping[str, Any] = field(default_factory=dict)
    incident_id: UUID | None = None
    run_id: UUID | None = None


def body_of(told: Told, notice_id: UUID) -> str:
    """Returns the JSON text of a notice without the `output` of its run, which is added when a webhook sends the
    notice.
    """
    body = {
        "id": notice_id,
        "event": told.event,
        "at": told.at,
        "environmentId": told.environment_id,
        "subject": None,
        "incident": None,
        "run": None,
        **told.about,
    }
    return compact_json(body)


def incidents_told(wanted: Collection[tuple[UUID, str, bool]], now: datetime) -> list[Told]:
    """Returns what is to be told about incidents. Each item of `wanted` is an incident's id, the event, and whether
    it is a reminder. It takes two queries.
    """
    rows = {row["id"]: row for row in fetch_all(_INCIDENTS, {"ids": [id_ for id_, *_ in wanted]})}
    runs = _runs_shown([row["run_id"] for row in rows.values() if row["run_id"]])
    told = []
    for incident_id, event, is_reminder in wanted:
        if row := rows.get(incident_id):
            at = (
                now
                if is_reminder
                else row["closed_at" if event.endswith(RECOVERED) else "opened_at"]
            )
            shown = _incident_shown(row)
            run = runs.get(row["run_id"])
            told.append(
                Told(
                    row["environment_id"],
                    event,
                    headline(event, row["subject_name"], reminder=is_reminder),
                    at,
                    {"subject": shown["subject"], "incident": shown, "run": run},
                    incident_id,
                    row["run_id"],
                )
            )
    return told


def outcomes_told(run_ids: Collection[UUID], event: str) -> list[Told]:
    """Returns what is to be told about ended runs, in one query."""
    return [
        Told(
            run["environmentId"],
            event,
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


def _incident_shown(row: Row) -> dict[str, Any]:
    """Returns an incident as the API shows it."""
    subject = {
        "type": row["subject_type"],
        "id": row["subject_id"],
        "name": row["subject_name"],
    }
    cause = {"run_id": row["run_id"], "message": row["message"]}
    return dict(IncidentSerializer({**row, "subject": subject, "cause": cause}).data)


def _runs_shown(ids: Collection[UUID]) -> dict[UUID, dict[str, Any]]:
    if not ids:
        return {}
    rows = runs_in_order(list(dict.fromkeys(ids)))
    return {row["id"]: shown for row, shown in zip(rows, _rendered(rows), strict=True)}


def _rendered(rows: list[Row]) -> list[dict[str, Any]]:
    return [dict(each) for each in RunSerializer(rows, many=True).data]


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
