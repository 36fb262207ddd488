"""Renders the statistics of runs for the API."""

from rest_framework import serializers

from pipedai.api.fields import MoneyField
from pipedai.api.serializers import RowSerializer


class StatsSerializer(RowSerializer):
    """The sums of some runs."""

    runs = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    timedOut = serializers.IntegerField(source="timed_out")
    canceled = serializers.IntegerField()
    retries = serializers.IntegerField()
    successRatePct = serializers.FloatField(source="success_rate", allow_null=True)
    costUsd = MoneyField(source="cost_usd")
    notionalUsd = MoneyField(source="notional_usd")
    inputTokens = serializers.IntegerField(source="input_tokens")
    outputTokens = serializers.IntegerField(source="output_tokens")
    p50DurationMs = serializers.IntegerField(source="p50_ms", allow_null=True)
    p95DurationMs = serializers.IntegerField(source="p95_ms", allow_null=True)


class _KeySerializer(RowSerializer):
    key = serializers.CharField(allow_null=True)
    name = serializers.CharField(allow_null=True)
    day = serializers.DateField(allow_null=True)


class GroupStatsSerializer(_KeySerializer, StatsSerializer):
    """The sums of the runs that have one key."""
