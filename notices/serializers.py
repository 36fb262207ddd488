"""Renders incidents for the API, and filters their list (SPEC §14)."""

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from notices.channels.models import Channel, Notice
from notices.models import Incident
from notices.states import Kind, SubjectType
from notices.telling import told_of
from pipedai.api.filters import ApiFilterSet, IdFilter, WordFilter, WordsFilter
from pipedai.api.serializers import RowSerializer
from pipedai.sql import Row


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

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Kind.choices)
    subject = IncidentSubjectSerializer()
    openedAt = serializers.DateTimeField()
    closedAt = serializers.DateTimeField(allow_null=True)
    cause = IncidentCauseSerializer()
    acknowledgedAt = serializers.DateTimeField(allow_null=True)
    acknowledgedBy = serializers.UUIDField(allow_null=True)
    noticeCount = serializers.IntegerField()


class ToldSerializer(RowSerializer):
    """Somebody who was told of an incident, by a channel, and what became of the last notice to them."""

    channelId = serializers.UUIDField()
    channelName = serializers.CharField()
    kind = serializers.ChoiceField(choices=Channel.Kind.choices)
    email = serializers.CharField(allow_null=True)
    event = serializers.CharField()
    status = serializers.ChoiceField(choices=Notice.Status.choices)
    createdAt = serializers.DateTimeField()
    deliveredAt = serializers.DateTimeField(allow_null=True)


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
    triggerId = IdFilter(field_name="subject_id")
