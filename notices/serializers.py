"""Renders incidents for the API."""

from rest_framework import serializers

from notices.states import Kind, SubjectType
from pipedai.api.serializers import RowSerializer


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
