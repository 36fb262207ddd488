"""Renders incidents for the API, and filters their list (SPEC §14)."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from notices.states import Kind, SubjectType
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

    runId = serializers.UUIDField(source="run_id", allow_null=True)
    message = serializers.CharField()


class IncidentSerializer(RowSerializer):
    """An incident: what is wrong, since when, and whether somebody has seen to it."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Kind.choices)
    subject = IncidentSubjectSerializer()
    openedAt = serializers.DateTimeField(source="opened_at")
    closedAt = serializers.DateTimeField(source="closed_at", allow_null=True)
    cause = IncidentCauseSerializer()
    acknowledgedAt = serializers.DateTimeField(source="acknowledged_at", allow_null=True)
    acknowledgedBy = serializers.UUIDField(source="acknowledged_by", allow_null=True)
    noticeCount = serializers.IntegerField(source="notice_count")


def incident_shown(row: Row) -> dict[str, Any]:
    subject = {"type": row["subject_type"], "id": row["subject_id"], "name": row["subject_name"]}
    cause = {"run_id": row["run_id"], "message": row["message"]}
    return dict(IncidentSerializer({**row, "subject": subject, "cause": cause}).data)


class StatusFilter(WordFilter):
    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        return qs.filter(closed_at__isnull=value == "open") if value else qs


class IncidentFilters(ApiFilterSet):
    status = StatusFilter(choices=[("open", "open"), ("closed", "closed")])
    kind = WordsFilter(field_name="kind", choices=Kind.values)
    triggerId = IdFilter(field_name="subject_id")
