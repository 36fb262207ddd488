"""The endpoints of webhook deliveries: list them, send one again, send a test."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import NoBody, read_body
from pipedai.api.throttling import Rate
from pipedai.replica.reading import from_replica
from triggers import tenancy
from triggers.models import Delivery
from triggers.webhooks import outbox
from triggers.webhooks.serializers import DeliverySerializer
from workspaces.access import IsAdmin, IsViewer, TenantViewSet
from workspaces.roles import Role

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
        read_body(NoBody, request)
        return self._created(outbox.send_test, request, trigger_id=trigger_id)


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
        read_body(NoBody, request)
        return self._created(outbox.redeliver, request, delivery_id=delivery_id)
