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
    ToolCallListSerializer,
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
        says={200: "A list of triggers; a page ends before its prompts come to over 4 MiB."},
        errors={400: "A bad parameter, or a worker that is not this environment's."},
    ),
    create=Operation(
        id="createTrigger",
        summary="Make a trigger",
        body=TriggerBody,
        example=_TRIGGER,
        answers={201: TriggerSerializer},
        says={201: "With the trigger."},
        errors={409: "A ceiling.", 503: "The secrets can't be sealed."},
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
        errors={403: "Origin."},
    ),
)
describe(
    TriggerViewSet,
    "Triggers",
    retrieve=Operation(
        id="getTrigger",
        summary="Get a trigger",
        answers={200: TriggerSerializer},
        says={200: "With the trigger."},
    ),
    update=Operation(
        id="updateTrigger",
        summary="Change a trigger",
        body=TriggerBody,
        partial=True,
        example={"enabled": False},
        answers={200: TriggerSerializer},
        says={200: "With the trigger; what is as it was changes nothing."},
        errors={503: "The secrets can't be sealed."},
        audit=("trigger.updated",),
    ),
    destroy=Operation(
        id="deleteTrigger",
        summary="Delete a trigger",
        answers={204: None},
        errors={409: "While it has unfinished runs."},
        audit=("trigger.deleted",),
    ),
    rotate_mcp_token=Operation(
        id="rotateMcpToken",
        summary="Rotate a trigger's MCP headers",
        body=RotateBody,
        example={"mcpHeaders": {"Authorization": "Bearer a-newer-secret"}},
        answers={200: TriggerSerializer},
        says={200: "With the trigger."},
        errors={503: "The headers can't be sealed."},
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
        says={
            200: (
                "With the first run as it is now and `Idempotent-Replayed: true`, whatever has "
                "happened to the trigger since."
            ),
            201: "With the run.",
        },
        errors={
            409: (
                "The trigger is disabled or has no worker, the `Idempotency-Key` was used with "
                "another body, or a ceiling."
            ),
        },
        audit=("run.created",),
    ),
    runs=Operation(
        id="listTriggerRuns",
        summary="List a trigger's runs",
        items=RunSerializer,
        filters=RunFilters,
        says={200: "A list of the trigger's runs, by `queuedAt`."},
    ),
    ticks=Operation(
        id="listTicks",
        summary="List a trigger's ticks",
        items=TickSerializer,
        says={
            200: (
                "A list of what was decided about each due time of the trigger's schedule, by "
                "`tickAt`."
            ),
        },
        errors={400: "A bad `limit` or `cursor`."},
    ),
)
describe(
    EnvironmentRunViewSet,
    "Runs",
    list=Operation(
        id="listRuns",
        summary="List an environment's runs",
        items=RunSerializer,
        filters=EnvironmentRunFilters,
        says={200: "A list of the environment's runs, across its triggers."},
        errors={400: "A bad parameter, or an id that is not this environment's."},
    ),
)
describe(
    RunViewSet,
    "Runs",
    retrieve=Operation(
        id="getRun",
        summary="Get a run",
        answers={200: RunDetailSerializer},
        says={
            200: (
                "With the run and its `payload`, `prompt`, `mcpUrl`, `toolCalls`, `output` and "
                "`lateResult`."
            ),
        },
    ),
    tool_calls=Operation(
        id="listToolCalls",
        summary="List a run's tool calls",
        answers={200: ToolCallListSerializer},
        says={200: "With the first 500 calls that the worker listed, in the order of its list."},
    ),
    cancel=Operation(
        id="cancelRun",
        summary="Cancel a run",
        answers={200: RunDetailSerializer},
        says={200: "With the run."},
        errors={409: "It has ended."},
        audit=("run.canceled", "run.cancel-requested"),
    ),
)
describe(
    TriggerDeliveryViewSet,
    "Webhooks",
    list=Operation(
        id="listDeliveries",
        summary="List deliveries",
        items=DeliverySerializer,
        says={200: "A list of deliveries."},
        errors={400: "A bad parameter."},
    ),
    test=Operation(
        id="testWebhook",
        summary="Send a test webhook",
        body=NoBody,
        answers={201: DeliverySerializer},
        says={201: "With the delivery."},
        errors={409: "The trigger has no `webhookUrl`."},
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
        says={201: "With the delivery."},
        errors={409: "The trigger has no `webhookUrl`."},
        audit=("webhook.redelivered",),
    ),
)
