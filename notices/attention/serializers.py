"""Renders what needs attention for the API."""

from rest_framework import serializers

from notices.attention.sources import KINDS
from notices.serializers import ToldSerializer
from notices.states import SubjectType
from pipedai.api.serializers import RowSerializer


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

    kind = serializers.ChoiceField(choices=KINDS)
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
