"""Routes of the triggers app, below /api/v1/."""

from django.urls import path

from triggers.budgets.views import BudgetViewSet, EnvironmentBudgetViewSet
from triggers.changes.views import EnvironmentEventViewSet
from triggers.explain.views import RunExplanationViewSet, TriggerExplanationViewSet
from triggers.run_events.views import RunEventListViewSet, RunEventStreamViewSet
from triggers.runs.views import EnvironmentRunViewSet, RunViewSet, TriggerRunViewSet
from triggers.schedules.views import SchedulePreviewViewSet, TickViewSet
from triggers.views import EnvironmentTriggerViewSet, TriggerViewSet
from triggers.webhooks.views import DeliveryViewSet, TriggerDeliveryViewSet

# `pipedai.urls` puts this before the routes of workers.
most_called = [
    path("triggers/<uuid:trigger_id>/run", TriggerRunViewSet.as_view({"post": "run"})),
]
urlpatterns = [
    path(
        "environments/<uuid:environment_id>/events/stream",
        EnvironmentEventViewSet.as_view({"get": "stream"}),
    ),
    path(
        "environments/<uuid:environment_id>/triggers",
        EnvironmentTriggerViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path("environments/<uuid:environment_id>/runs", EnvironmentRunViewSet.as_view({"get": "list"})),
    path(
        "environments/<uuid:environment_id>/schedule-preview",
        SchedulePreviewViewSet.as_view({"post": "preview"}),
    ),
    path(
        "triggers/<uuid:trigger_id>",
        TriggerViewSet.as_view({"get": "retrieve", "patch": "update", "delete": "destroy"}),
    ),
    path(
        "triggers/<uuid:trigger_id>/rotate-mcp-token",
        TriggerViewSet.as_view({"post": "rotate_mcp_token"}),
    ),
    path("triggers/<uuid:trigger_id>/ticks", TickViewSet.as_view({"get": "list"})),
    path(
        "triggers/<uuid:trigger_id>/explain",
        TriggerExplanationViewSet.as_view({"get": "retrieve"}),
    ),
    path("triggers/<uuid:trigger_id>/runs", TriggerRunViewSet.as_view({"get": "list"})),
    path(
        "triggers/<uuid:trigger_id>/deliveries",
        TriggerDeliveryViewSet.as_view({"get": "list"}),
    ),
    path(
        "triggers/<uuid:trigger_id>/test-webhook",
        TriggerDeliveryViewSet.as_view({"post": "test"}),
    ),
    path(
        "deliveries/<uuid:delivery_id>/redeliver",
        DeliveryViewSet.as_view({"post": "redeliver"}),
    ),
    path(
        "environments/<uuid:environment_id>/budgets",
        EnvironmentBudgetViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "budgets/<uuid:budget_id>",
        BudgetViewSet.as_view({"get": "retrieve", "patch": "update", "delete": "destroy"}),
    ),
    path("runs/<uuid:run_id>", RunViewSet.as_view({"get": "retrieve"})),
    path("runs/<uuid:run_id>/tool-calls", RunViewSet.as_view({"get": "tool_calls"})),
    path("runs/<uuid:run_id>/events", RunEventListViewSet.as_view({"get": "list"})),
    path("runs/<uuid:run_id>/events/stream", RunEventStreamViewSet.as_view({"get": "stream"})),
    path("runs/<uuid:run_id>/explain", RunExplanationViewSet.as_view({"get": "retrieve"})),
    path("runs/<uuid:run_id>/cancel", RunViewSet.as_view({"post": "cancel"})),
    path("runs/<uuid:run_id>/rerun", RunViewSet.as_view({"post": "rerun"})),
]
