"""Renders incidents, attention items and who was told of them for the API, and filters incidents."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from rest_framework import serializers

from notices.models import Channel, Incident, Notice
from notices.states import NEEDS, Kind, SubjectType
from pipedai.api.filters import ApiFilterSet, IdFilter, WordFilter, WordsFilter
from pipedai.api.serializers import RowSerializer
from pipedai.sql import Row, fetch_all

# Who was told is read from this many of an incident's newest notices at most. A receiver gets at most eight notices of
# an incident's opening and its reminders.
_MOST: Final = 100

_TOLD: Final = f"""
SELECT DISTINCT ON (i.id, n.channel_id, n.address) i.id AS told_of, n.channel_id, c.name AS channel_name, c.kind,
    n.address, n.event, n.status, n.created_at, n.delivered_at
FROM unnest(%(ids)s::uuid[]) AS i (id)
CROSS JOIN LATERAL (
    (SELECT * FROM notice WHERE incident_id = i.id ORDER BY created_at DESC LIMIT {_MOST})
    UNION ALL
    (SELECT * FROM notice WHERE approval_id = i.id ORDER BY created_at DESC LIMIT {_MOST})) n
JOIN channel c ON c.id = n.channel_id
ORDER BY i.id, n.channel_id, n.address, n.created_at DESC, n.id DESC
"""  # noqa: S608


def told_of(ids: Collection[UUID]) -> dict[UUID, list[Row]]:
    """Returns for each incident or approval who was told of it, as rows for ToldSerializer. It takes one query."""
    told: dict[UUID, list[Row]] = defaultdict(list)
    for row in fetch_all(_TOLD, {"ids": list(ids)}):
        told[row["told_of"]].append({**row, "email": row["address"] or None})
    return told


class IncidentSubjectSerializer(RowSerializer):
    """What an incident is about. The name is the one that the subject had when the incident was opened."""

    type = serializers.ChoiceField(choices=SubjectType.choices)
    id = serializers.UUIDField()
    name = serializers.CharField()


class IncidentCauseSerializer(RowSerializer):
    """Why an incident was opened, and by which run, if one showed it."""

    runId = serializers.UUIDField(allow_null=True)
    message = serializers.CharField()


class NoticedIncidentSerializer(RowSerializer):
    """An incident: what is wrong, since when, and whether somebody has seen to it."""

    of = Incident
    shows = "id kind subject openedAt closedAt cause acknowledgedAt acknowledgedBy noticeCount"
    subject = IncidentSubjectSerializer()
    cause = IncidentCauseSerializer()


class ToldSerializer(RowSerializer):
    """Somebody who was told of an incident, by a channel, and what became of the last notice to them."""

    of = (Notice, Channel)
    shows = "channelId channelName kind email event status createdAt deliveredAt"
    channelName = serializers.CharField()
    email = serializers.CharField(allow_null=True)


class IncidentSerializer(NoticedIncidentSerializer):
    """An incident, and who was told of it."""

    toldTo = ToldSerializer(many=True, source="told")


def incident_shown(row: Row) -> dict[str, Any]:
    """Returns an incident as notices show it, from its row."""
    return dict(NoticedIncidentSerializer(_with_parts(row)).data)


def incidents_shown(incidents: Sequence[Incident]) -> Any:
    """Returns incidents as the API shows them, with who was told of them. It takes one query."""
    told = told_of([incident.id for incident in incidents])
    rows = [{**_with_parts(vars(each)), "told": told[each.id]} for each in incidents]
    return IncidentSerializer(rows, many=True).data


def _with_parts(row: Row) -> Row:
    subject = {"type": row["subject_type"], "id": row["subject_id"], "name": row["subject_name"]}
    return {
        **row,
        "subject": subject,
        "cause": {"run_id": row["run_id"], "message": row["message"]},
    }


class StatusFilter(WordFilter):
    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        return qs.filter(closed_at__isnull=value == "open") if value else qs


class IncidentFilters(ApiFilterSet):
    status = StatusFilter(choices=[("open", "open"), ("closed", "closed")])
    kind = WordsFilter(field_name="kind", choices=Kind.values)
    triggerId = IdFilter(field_name="subject_id", of=["triggers.Trigger"])


class AttentionSubjectSerializer(RowSerializer):
    """The trigger, worker, pool, budget, connection, channel or approval that an item is about."""

    type = serializers.ChoiceField(choices=(*SubjectType.values, "channel", "approval"))
    id = serializers.UUIDField()
    name = serializers.CharField()


class RemedySerializer(RowSerializer):
    """What to do about an item."""

    text = serializers.CharField()


class AttentionItemSerializer(RowSerializer):
    """Something that somebody has to see to."""

    kind = serializers.ChoiceField(choices=list(NEEDS))
    since = serializers.DateTimeField()
    subject = AttentionSubjectSerializer()
    summary = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    runId = serializers.UUIDField(allow_null=True)
    incidentId = serializers.UUIDField(allow_null=True)
    acknowledgedAt = serializers.DateTimeField(allow_null=True)
    toldTo = ToldSerializer(many=True, source="told")
    remedy = RemedySerializer()
