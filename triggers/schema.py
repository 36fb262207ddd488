"""Describes the trigger, run and webhook endpoints in the OpenAPI schema."""

from typing import Any

from rest_framework import serializers

from pipedai.api.schema.operation import Operation, describe
from pipedai.api.schema.parameters import header
from triggers.filters import EnvironmentRunFilters, RunFilters, TriggerFilters
from triggers.serializers import (
    ComingTimeSerializer,
    RotateBody,
    RunBody,
    RunDetailSerializer,
    RunSerializer,
    SchedulePreviewBody,
    TickSerializer,
    TriggerBody,
    TriggerSerializer,
)
from triggers.views import (
    EnvironmentRunViewSet,
    EnvironmentTriggerViewSet,
    RunViewSet,
    SchedulePreviewViewSet,
    TriggerViewSet,
)
from triggers.webhooks.serializers import DeliverySerializer
from triggers.webhooks.views import DeliveryViewSet, NoBody, TriggerDeliveryViewSet

_CONFLICT = frozenset({409})
_UNSEALABLE = frozenset({503})
_TRIGGER = {
    "name": "Morning report",
    "prompt": "Summarise what happened overnight.",
    "mcpUrl": "https://mcp.example.com/mcp",
    "mcpHeaders": {"Authorization": "Bearer a-secret-of-yours"},
    "schedule": "0 6 * * mon-fri",
    "timezone": "Europe/Berlin",
}
_IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[ -~]{1,255}$"},
    description="Makes the call safe to repeat: for 24 h the same key with the same body makes one run.",
)


class SchedulePreviewSerializer(serializers.Serializer[Any]):
    """What a schedule would do."""

    description = serializers.CharField()
    times = ComingTimeSerializer(many=True)


describe(
    EnvironmentTriggerViewSet,
    "Triggers",
    list=Operation(
        id="listTriggers",
        summary="List triggers",
        items=TriggerSerializer,
        filters=TriggerFilters,
    ),
    create=Operation(
        id="createTrigger",
        summary="Make a trigger",
        body=TriggerBody,
        example=_TRIGGER,
        answers={201: TriggerSerializer},
        errors=_CONFLICT | _UNSEALABLE,
        audit=("trigger.created",),
    ),
)
describe(
    SchedulePreviewViewSet,
    "Triggers",
    preview=Operation(
        id="previewSchedule",
        summary="Preview a schedule",
        body=SchedulePreviewBody,
        example={"schedule": "30 2 28 3 *", "timezone": "Europe/Berlin", "count": 2},
        answers={200: SchedulePreviewSerializer},
    ),
)
describe(
    TriggerViewSet,
    "Triggers",
    retrieve=Operation(id="getTrigger", summary="Get a trigger", answers={200: TriggerSerializer}),
    update=Operation(
        id="updateTrigger",
        summary="Change a trigger",
        body=TriggerBody,
        partial=True,
        example={"enabled": False},
        answers={200: TriggerSerializer},
        errors=_UNSEALABLE,
        audit=("trigger.updated",),
    ),
    destroy=Operation(
        id="deleteTrigger",
        summary="Delete a trigger",
        answers={204: None},
        errors=_CONFLICT,
        audit=("trigger.deleted",),
    ),
    rotate_mcp_token=Operation(
        id="rotateMcpToken",
        summary="Rotate a trigger's MCP headers",
        body=RotateBody,
        example={"mcpHeaders": {"Authorization": "Bearer a-newer-secret"}},
        answers={200: TriggerSerializer},
        errors=_UNSEALABLE,
        audit=("mcp-token.rotated",),
    ),
    run=Operation(
        id="runTrigger",
        summary="Run a trigger",
        body=RunBody,
        example={"payload": {"day": "monday"}},
        parameters=(_IDEMPOTENCY_KEY,),
        answers={201: RunDetailSerializer, 200: RunDetailSerializer},
        answer_headers={200: ("Idempotent-Replayed",)},
        errors=_CONFLICT,
        audit=("run.created",),
    ),
    runs=Operation(
        id="listTriggerRuns",
        summary="List a trigger's runs",
        items=RunSerializer,
        filters=RunFilters,
    ),
    ticks=Operation(id="listTicks", summary="List a trigger's ticks", items=TickSerializer),
)
describe(
    EnvironmentRunViewSet,
    "Runs",
    list=Operation(
        id="listRuns",
        summary="List an environment's runs",
        items=RunSerializer,
        filters=EnvironmentRunFilters,
    ),
)
describe(
    RunViewSet,
    "Runs",
    retrieve=Operation(id="getRun", summary="Get a run", answers={200: RunDetailSerializer}),
    cancel=Operation(
        id="cancelRun",
        summary="Cancel a run",
        answers={200: RunDetailSerializer},
        errors=_CONFLICT,
        audit=("run.canceled", "run.cancel-requested"),
    ),
)
describe(
    TriggerDeliveryViewSet,
    "Webhooks",
    list=Operation(id="listDeliveries", summary="List deliveries", items=DeliverySerializer),
    test=Operation(
        id="testWebhook",
        summary="Send a test webhook",
        body=NoBody,
        answers={201: DeliverySerializer},
        errors=_CONFLICT,
        audit=("webhook.tested",),
    ),
)
describe(
    DeliveryViewSet,
    "Webhooks",
    redeliver=Operation(
        id="redeliver",
        summary="Send a webhook again",
        body=NoBody,
        answers={201: DeliverySerializer},
        errors=_CONFLICT,
        audit=("webhook.redelivered",),
    ),
)
