"""Renders what needs attention for the API."""

from rest_framework import serializers

from notices.attention.sources import KINDS
from notices.serializers import ToldSerializer
from pipedai.api.serializers import RowSerializer


class AttentionSubjectSerializer(RowSerializer):
    """The trigger, worker, pool, budget, channel or approval that an item is about."""

    type = serializers.ChoiceField(
        choices=("trigger", "worker", "pool", "budget", "channel", "approval")
    )
    id = serializers.UUIDField()
    name = serializers.CharField()


class RemedySerializer(RowSerializer):
    """What to do about an item."""

    text = serializers.CharField()


class AttentionItemSerializer(RowSerializer):
    """Something that somebody has to see to."""

    kind = serializers.ChoiceField(choices=KINDS)
    since = serializers.DateTimeField()
    subject = AttentionSubjectSerializer()
    summary = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    runId = serializers.UUIDField(source="run_id", allow_null=True)
    incidentId = serializers.UUIDField(source="incident_id", allow_null=True)
    acknowledgedAt = serializers.DateTimeField(source="acknowledged_at", allow_null=True)
    toldTo = ToldSerializer(many=True, source="told")
    remedy = RemedySerializer()
