"""Renders webhook deliveries and their attempts for the API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.serializers import NamedSerializer
from triggers.models import Delivery, DeliveryAttempt


class AttemptSerializer(NamedSerializer):
    """One attempt to send a delivery. The receiver's answer is shown only if `context["shows_bodies"]` is true."""

    at = serializers.DateTimeField()
    statusCode = serializers.IntegerField(allow_null=True)
    durationMs = serializers.IntegerField()
    error = serializers.CharField(allow_null=True)
    responseBody = serializers.SerializerMethodField()

    def get_responseBody(self, attempt: DeliveryAttempt) -> str | None:  # noqa: N802
        """The first KiB of the receiver's answer, for callers who are admins."""
        return attempt.response_body if self.context["shows_bodies"] else None


class DeliverySerializer(NamedSerializer):
    """A delivery with its attempts, the first one first."""

    id = serializers.UUIDField()
    runId = serializers.UUIDField(allow_null=True)
    triggerId = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Delivery.Status.choices)
    nextAttemptAt = serializers.DateTimeField(allow_null=True)
    createdAt = serializers.DateTimeField()
    deliveredAt = serializers.DateTimeField(allow_null=True)
    attempts = serializers.SerializerMethodField()

    @extend_schema_field(AttemptSerializer(many=True))
    def get_attempts(self, delivery: Delivery) -> Any:
        """Returns the attempts of the delivery, the first one first. The view must have prefetched them."""
        attempts = sorted(delivery.attempts.all(), key=lambda attempt: attempt.n)
        return AttemptSerializer(attempts, many=True, context=self.context).data
