"""Renders the statistics of runs for the API."""

from rest_framework import serializers

from pipedai.api.fields import MoneyField
from pipedai.api.serializers import RowSerializer
from pipedai.sql import Row


class StatsSerializer(RowSerializer):
    """The sums of a group of runs."""

    runs = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    timedOut = serializers.IntegerField(source="timed_out")
    canceled = serializers.IntegerField()
    retries = serializers.IntegerField()
    successRatePct = serializers.SerializerMethodField()
    costUsd = MoneyField(source="cost_usd")
    inputTokens = serializers.SerializerMethodField()
    outputTokens = serializers.SerializerMethodField()
    p50DurationMs = serializers.SerializerMethodField()
    p95DurationMs = serializers.SerializerMethodField()

    def get_successRatePct(self, row: Row) -> float | None:  # noqa: N802 - a name of the API
        """Returns the percentage of successes as a number, or None if no run counts."""
        rate = row["success_rate"]
        return None if rate is None else float(rate)

    def get_inputTokens(self, row: Row) -> int:  # noqa: N802
        """Returns the sum as a whole number, which PostgreSQL gives as a decimal."""
        return int(row["input_tokens"])

    def get_outputTokens(self, row: Row) -> int:  # noqa: N802
        """Returns the sum as a whole number, which PostgreSQL gives as a decimal."""
        return int(row["output_tokens"])

    def get_p50DurationMs(self, row: Row) -> int | None:  # noqa: N802
        """Returns the median of the durations, or None."""
        return _milliseconds(row, 0)

    def get_p95DurationMs(self, row: Row) -> int | None:  # noqa: N802
        """Returns the 95th percentile of the durations, or None."""
        return _milliseconds(row, 1)


class GroupStatsSerializer(StatsSerializer):
    """The sums of the runs that have one key."""

    key = serializers.SerializerMethodField()
    name = serializers.CharField(allow_null=True)

    def get_key(self, row: Row) -> str | None:
        """Returns the id, the model or the date, or None for runs without one."""
        key = row["key"]
        return None if key is None else str(key)


def _milliseconds(row: Row, place: int) -> int | None:
    # The row has microseconds, of which the API shows whole milliseconds, as in `durationMs` of a run.
    durations = row["durations"]
    return None if durations is None else durations[place] // 1000
