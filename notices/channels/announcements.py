"""Makes announcements: the JSON that channels send, and from which the texts of mails and of Slack are made."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from notices.serializers import incident_shown
from notices.states import APPROVAL_REQUESTED, RECOVERED, RUN_ENDED, RUN_RESULT, Kind, headline
from pipedai.api.renderers import compact_json, iso_time
from pipedai.outgoing.mails import MAX_FOREIGN
from pipedai.sql import fetch_all
from triggers.events.clauses import Searched
from triggers.explain.runs import retries_of
from triggers.explain.views import RetrySerializer
from triggers.runs.queries import runs_in_order
from triggers.runs.serializers import RunSerializer
from triggers.states import FAILURES, Status

# A digest names at most this many of the notices that it stands for, and only counts the others.
MOST_NAMED: Final = 50

# An announcement of a failure says how many failures came in a row. They are counted up to this number.
MAX_IN_A_ROW: Final = 100

_INCIDENTS: Final = "SELECT * FROM incident WHERE id = ANY(%(ids)s)"
_QUESTIONS: Final = """
SELECT a.*, t.name AS trigger_name FROM approval a JOIN trigger t ON t.id = a.trigger_id
WHERE a.id = ANY(%(ids)s) ORDER BY a.id
"""

_DOCUMENTS: Final = """
SELECT r.id, r.status, result.output::text AS output, x.payload::text AS payload
FROM run r
LEFT JOIN run_result result ON result.run_id = r.id AND result.environment_id = r.environment_id
LEFT JOIN run_text x ON x.run_id = r.id AND x.environment_id = r.environment_id
WHERE r.id = ANY(%(ids)s)
"""

_FAULTS: Final = f"""
(SELECT ended_at FROM run r
WHERE r.trigger_id = given.trigger_id AND r.status = '{{}}' AND (NOT r.retried OR r.id = given.id)
    AND r.ended_at <= given.ended_at AND r.ended_at > coalesce(won.ended_at, '-infinity')
ORDER BY r.ended_at DESC LIMIT {MAX_IN_A_ROW})"""  # noqa: S608

# Counts for each run the final outcomes from the trigger's last success up to the run itself.
_IN_A_ROW: Final = f"""
SELECT given.id, least(lost.n, {MAX_IN_A_ROW}) AS n FROM run given
LEFT JOIN LATERAL (
    SELECT ended_at FROM run r
    WHERE r.trigger_id = given.trigger_id AND r.status = 'succeeded' AND r.ended_at <= given.ended_at
    ORDER BY r.ended_at DESC LIMIT 1) won ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS n FROM ({_FAULTS.format("failed")} UNION ALL {_FAULTS.format("timed_out")}) f) lost
WHERE given.id = ANY(%(ids)s)
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Announcement:
    environment_id: UUID
    event: str
    # One sentence for people, without a full stop. It contains names that users wrote, unescaped.
    line: str
    at: datetime
    # The keys `subject`, `incident`, `run` and `approval` of the body.
    about: Mapping[str, Any] = field(default_factory=dict)
    incident_id: UUID | None = None
    run_id: UUID | None = None
    approval_id: UUID | None = None
    # The JSON that the clauses of a channel's `run.result` are compared with.
    document: Mapping[str, Any] | None = None
    # What the clauses of channels have searched in `document`, so that all channels share the work.
    searched: Searched = field(default_factory=Searched, repr=False, compare=False)


# The keys that say what a notice is about. Each body has all of them, so receivers need not check for them.
_ABOUT_NOTHING: Final = dict.fromkeys(("subject", "incident", "run", "approval"))


def read_body(body: str) -> dict[str, Any]:
    """Returns a notice's body. Keys that an older release did not write into it are filled in."""
    found: dict[str, Any] = json.loads(body)
    return {**found, **{key: None for key in _ABOUT_NOTHING if key not in found}}


def body_of(announcement: Announcement, notice_id: UUID) -> str:
    """Returns the JSON of a notice without its run's `output`, which is added when a webhook sends it."""
    body = {
        "id": notice_id,
        "event": announcement.event,
        "at": announcement.at,
        "environmentId": announcement.environment_id,
        **_ABOUT_NOTHING,
        **announcement.about,
    }
    return compact_json(body)


def of_incidents(wanted: Collection[tuple[UUID, str, bool]], now: datetime) -> list[Announcement]:
    """Makes announcements of incidents: items are an id, the event, and whether it is a reminder. Runs four queries."""
    rows = {row["id"]: row for row in fetch_all(_INCIDENTS, {"ids": [id_ for id_, *_ in wanted]})}
    runs = _runs_shown([row["run_id"] for row in rows.values() if row["run_id"]])
    announcements = []
    for incident_id, event, is_reminder in wanted:
        if row := rows.get(incident_id):
            at = row["closed_at" if event.endswith(RECOVERED) else "opened_at"]
            shown, run = incident_shown(row), runs.get(row["run_id"])
            line = headline(event, row["subject_name"], reminder=is_reminder)
            if event == Kind.TRIGGER_FAILING and run and (error := error_line(run)):
                line = f"{line}: {error[:MAX_FOREIGN]}"
            announcements.append(
                Announcement(
                    row["environment_id"],
                    event,
                    line,
                    now if is_reminder else at,
                    {"subject": shown["subject"], "incident": shown, "run": run},
                    incident_id,
                    row["run_id"],
                )
            )
    return announcements


def of_outcomes(run_ids: Collection[UUID], *, with_documents: bool) -> list[Announcement]:
    """Returns the announcements about ended runs: `run.ended` and `run.result` for each run. `with_documents` reads the
    documents, which only clauses need. The function runs at most four queries.
    """
    documents = _documents(run_ids) if with_documents else {}
    return [
        Announcement(
            run["environmentId"],
            event,
            _result_line(run),
            run["endedAt"],
            {"subject": _trigger(run["triggerId"], run["triggerName"]), "run": run},
            run_id=run_id,
            document=documents.get(run_id),
        )
        for run_id, run in _runs_shown(run_ids).items()
        for event in (RUN_ENDED, RUN_RESULT)
    ]


def of_questions(
    approval_ids: Collection[UUID], reminded_at: datetime | None = None
) -> list[Announcement]:
    """Returns the announcements about approvals that wait for a decision, without the arguments of the calls. If a time
    is given, they are reminders. The function runs two queries.
    """
    rows = fetch_all(_QUESTIONS, {"ids": list(approval_ids)})
    runs = _runs_shown([row["run_id"] for row in rows])
    return [
        Announcement(
            row["environment_id"],
            APPROVAL_REQUESTED,
            headline(APPROVAL_REQUESTED, row["trigger_name"], reminder=bool(reminded_at)),
            reminded_at or row["created_at"],
            {
                "subject": _trigger(row["trigger_id"], row["trigger_name"]),
                "run": runs.get(row["run_id"]),
                "approval": {
                    "id": row["id"],
                    "tool": row["tool"],
                    "approverRole": row["role"],
                    "createdAt": row["created_at"],
                    "expiresAt": row["expires_at"],
                },
            },
            run_id=row["run_id"],
            approval_id=row["id"],
        )
        for row in rows
    ]


def _trigger(id_: UUID | str, name: str) -> dict[str, Any]:
    return {"type": "trigger", "id": id_, "name": name}


def _documents(run_ids: Collection[UUID]) -> dict[UUID, dict[str, Any]]:
    """Returns each run's status, output and payload. A run without an output or a payload lacks the key."""
    rows = fetch_all(_DOCUMENTS, {"ids": list(run_ids)})
    return {
        row["id"]: {
            "status": row["status"],
            **{key: json.loads(row[key]) for key in ("output", "payload") if row[key] is not None},
        }
        for row in rows
    }


def _result_line(run: Mapping[str, Any]) -> str:
    said = run["shortMessage"] if run["status"] == Status.SUCCEEDED else error_line(run)
    return f"{run['triggerName']}: {(said or run['status'].replace('_', ' '))[:MAX_FOREIGN]}"


def _runs_shown(ids: Collection[UUID]) -> dict[UUID, dict[str, Any]]:
    """Returns runs as lists show them. A failed run also has `failuresInRow`, and `retry` as explanations do. The
    function runs three queries.
    """
    if not ids:
        return {}
    rows = runs_in_order(list(dict.fromkeys(ids)))
    failed = [row["id"] for row in rows if row["status"] in FAILURES]
    retries = retries_of(failed)
    in_a_row = (
        {row["id"]: row["n"] for row in fetch_all(_IN_A_ROW, {"ids": failed})} if failed else {}
    )
    return {
        row["id"]: {
            **RunSerializer(row).data,
            "failuresInRow": in_a_row.get(row["id"]),
            "retry": RetrySerializer(retries[row["id"]]).data if row["id"] in retries else None,
        }
        for row in rows
    }


def error_line(run: Mapping[str, Any]) -> str:
    """Returns the first line of a run's error, or else of its message; empty if it has neither."""
    text = (run["errorMessage"] or run["shortMessage"] or "").strip()
    return text.splitlines()[0] if text else ""


@dataclass(frozen=True, slots=True)
class Digest:
    """What a digest says: how many notices it replaces, since when, and the sentences of the first ones."""

    count: int = 0
    lines: tuple[str, ...] = ()
    since: str | None = None

    @classmethod
    def of(cls, body: str) -> "Digest":
        """Reads a digest from the body of its notice."""
        found = json.loads(body)["digest"]
        return cls(found["count"], tuple(found["lines"]), found.get("since"))

    def with_more(self, lines: list[str], at: datetime) -> "Digest":
        room = MOST_NAMED - len(self.lines)
        named = (*self.lines, *lines[: max(0, room)])
        return Digest(self.count + len(lines), named, self.since or iso_time(at))

    @property
    def about(self) -> dict[str, Any]:
        return {"digest": {"count": self.count, "lines": list(self.lines), "since": self.since}}
