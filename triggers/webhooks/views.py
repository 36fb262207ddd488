"""The endpoints of webhook deliveries: list them, send one again, send a test."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import NamedSerializer, NoBody
from pipedai.api.throttling import Rate
from pipedai.replica.reading import from_replica
from triggers import tenancy
from triggers.models import Delivery, DeliveryAttempt
from triggers.webhooks import sending
from workspaces.access import IsAdmin, IsViewer, TenantViewSet
from workspaces.roles import Role


class AttemptSerializer(NamedSerializer):
    """One attempt to send a delivery. The receiver's answer is shown only if `context["shows_bodies"]` is true."""

    of = DeliveryAttempt
    shows = "at statusCode durationMs error responseBody"
    responseBody = serializers.SerializerMethodField()

    def get_responseBody(self, attempt: DeliveryAttempt) -> str | None:  # noqa: N802
        """The first KiB of the receiver's answer, for callers who are admins."""
        return attempt.response_body if self.context["shows_bodies"] else None


class DeliverySerializer(NamedSerializer):
    """A delivery with its attempts, the first one first."""

    of = Delivery
    shows = "id runId triggerId status nextAttemptAt createdAt deliveredAt attempts"
    attempts = serializers.SerializerMethodField()

    @extend_schema_field(AttemptSerializer(many=True))
    def get_attempts(self, sent: Any) -> Any:
        """Returns the attempts of a delivery or a notice, the first one first. The view must have prefetched them."""
        attempts = sorted(sent.attempts.all(), key=lambda attempt: attempt.n)
        return AttemptSerializer(attempts, many=True, context=self.context).data


_A_MINUTE = 60


class _DeliveriesShown(TenantViewSet):
    def _shown(self, rows: list[Delivery]) -> Any:
        context = {"shows_bodies": self.access.role.includes(Role.ADMIN)}
        return DeliverySerializer(rows, many=True, context=context).data

    def _created(self, queue: Callable[..., UUID], request: Request, **of: UUID) -> Response:
        # The answer is read in the transaction that queues the delivery. If reading fails and the caller gets a 503, no
        # delivery stays behind.
        with transaction.atomic():
            delivery_id = queue(**of, actor=actor_of(request))
            (shown,) = self._shown([Delivery.objects.get(id=delivery_id)])
        return Response(shown, status=201)


class TriggerDeliveryViewSet(_DeliveriesShown):
    row = tenancy.LIVE_TRIGGERS
    tag = "Webhooks"
    permissions = {"list": IsViewer, "test": IsAdmin}
    environment_rates = {"test": Rate("test-webhook", 10, _A_MINUTE)}

    @Operation(
        "GET /triggers/{triggerId}/deliveries",
        id="listDeliveries",
        summary="List deliveries",
        items=DeliverySerializer,
    )
    @from_replica
    def list(self, request: Request, trigger_id: UUID) -> Response:
        rows = Delivery.objects.filter(trigger_id=trigger_id).prefetch_related("attempts")
        return self.page_shown(request, rows.defer("body"), self._shown)

    @Operation(
        "POST /triggers/{triggerId}/test-webhook",
        id="testWebhook",
        summary="Send a test webhook",
        body=NoBody,
        answers={201: DeliverySerializer},
    )
    def test(self, request: Request, trigger_id: UUID) -> Response:
        return self._created(sending.send_test, request, trigger_id=trigger_id)


class DeliveryViewSet(_DeliveriesShown):
    row = tenancy.LIVE_DELIVERIES
    tag = "Webhooks"
    permissions = {"redeliver": IsAdmin}
    environment_rates = {"redeliver": Rate("redeliver", 10, _A_MINUTE)}

    @Operation(
        "POST /deliveries/{deliveryId}/redeliver",
        id="redeliver",
        summary="Send a webhook again",
        body=NoBody,
        answers={201: DeliverySerializer},
    )
    def redeliver(self, request: Request, delivery_id: UUID) -> Response:
        return self._created(sending.redeliver, request, delivery_id=delivery_id)
