"""The viewsets of the triggers app, whose endpoints are below /api/v1/."""

from pipedai.api.views import paths_of
from triggers.approvals.views import (
    ApprovalDecisionViewSet,
    ApprovalViewSet,
    EnvironmentApprovalViewSet,
)
from triggers.budgets.views import BudgetViewSet
from triggers.changes import EnvironmentEventViewSet
from triggers.events.views import (
    EnvironmentSourceEventViewSet,
    EventViewSet,
    HookViewSet,
    SourceEventViewSet,
    SourceViewSet,
)
from triggers.explain.views import RunExplanationViewSet, TriggerExplanationViewSet
from triggers.revisions import TriggerRevisionViewSet
from triggers.run_events.views import RunEventListViewSet, RunEventStreamViewSet
from triggers.runs.stats import OverviewViewSet, StatsViewSet
from triggers.runs.views import (
    EnvironmentRunViewSet,
    RunViewSet,
    TriggerRunListViewSet,
    TriggerRunViewSet,
)
from triggers.schedules.views import SchedulePreviewViewSet, TickViewSet
from triggers.views import TriggerViewSet
from triggers.webhooks.views import DeliveryViewSet, TriggerDeliveryViewSet

urlpatterns = paths_of(
    TriggerRunViewSet,
    TriggerRunListViewSet,
    EnvironmentEventViewSet,
    EnvironmentRunViewSet,
    SchedulePreviewViewSet,
    TriggerViewSet,
    TriggerRevisionViewSet,
    TickViewSet,
    TriggerExplanationViewSet,
    TriggerDeliveryViewSet,
    DeliveryViewSet,
    SourceViewSet,
    EnvironmentSourceEventViewSet,
    SourceEventViewSet,
    EventViewSet,
    HookViewSet,
    BudgetViewSet,
    EnvironmentApprovalViewSet,
    ApprovalViewSet,
    ApprovalDecisionViewSet,
    OverviewViewSet,
    StatsViewSet,
    RunViewSet,
    RunEventListViewSet,
    RunEventStreamViewSet,
    RunExplanationViewSet,
)
