"""URL routes of the workers app, below /api/v1/."""

from django.urls import path

from pipedai.api.parsers import OutcomeJSONParser
from workers.enrollment.views import EnrollmentViewSet, EnvironmentEnrollmentViewSet
from workers.hosts.event_views import WorkerEventViewSet
from workers.hosts.release_views import ReleaseViewSet
from workers.hosts.views import WorkspaceWorkerViewSet
from workers.overview_views import OverviewViewSet
from workers.pools.views import EnvironmentPoolViewSet, PoolMemberViewSet, PoolViewSet
from workers.protocol.claim_next_views import ClaimNextViewSet
from workers.protocol.event_views import WorkerRunEventViewSet
from workers.protocol.poll_views import PollViewSet
from workers.protocol.registration_views import RegistrationViewSet
from workers.protocol.run_views import WorkerRunViewSet
from workers.stats_views import StatsViewSet
from workers.views import EnvironmentWorkerViewSet, WorkerApprovalViewSet, WorkerViewSet
from workers.whoami_views import WhoAmIViewSet

_RUN = "workers/<uuid:worker_id>/runs/<uuid:run_id>"
_HOSTED = "workspaces/<uuid:workspace_id>/workers"

urlpatterns = [
    path("workers/<uuid:worker_id>/poll", PollViewSet.as_view({"get": "poll"})),
    path(
        "workers/<uuid:worker_id>/claim-next",
        ClaimNextViewSet.as_view({"post": "claim_next"}),
    ),
    path(f"{_RUN}/claim", WorkerRunViewSet.as_view({"post": "claim"})),
    path(f"{_RUN}/start", WorkerRunViewSet.as_view({"post": "start"})),
    path(f"{_RUN}/heartbeat", WorkerRunViewSet.as_view({"post": "heartbeat"})),
    path(
        f"{_RUN}/complete",
        # Text in a run's outcome can hold characters that PostgreSQL can't store. This parser replaces them, so that
        # the worker's report of the outcome is stored and not refused.
        WorkerRunViewSet.as_view({"post": "complete"}, parser_classes=[OutcomeJSONParser]),
    ),
    path(f"{_RUN}/events", WorkerRunEventViewSet.as_view({"post": "store"})),
    path("whoami", WhoAmIViewSet.as_view({"get": "retrieve"})),
    path("workers/register", RegistrationViewSet.as_view({"post": "register"})),
    path(
        "environments/<uuid:environment_id>/workers",
        EnvironmentWorkerViewSet.as_view({"get": "list"}),
    ),
    path(
        "environments/<uuid:environment_id>/pools",
        EnvironmentPoolViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "pools/<uuid:pool_id>",
        PoolViewSet.as_view({"get": "retrieve", "patch": "update", "delete": "destroy"}),
    ),
    path(
        "pools/<uuid:pool_id>/workers/<uuid:worker_id>",
        PoolMemberViewSet.as_view({"put": "add", "delete": "remove"}),
    ),
    path(
        "environments/<uuid:environment_id>/dashboard/overview",
        OverviewViewSet.as_view({"get": "retrieve"}),
    ),
    path("environments/<uuid:environment_id>/stats", StatsViewSet.as_view({"get": "list"})),
    path(
        "workers/<uuid:worker_id>",
        WorkerViewSet.as_view({"get": "retrieve", "patch": "update", "delete": "destroy"}),
    ),
    path(
        "workers/<uuid:worker_id>/revoke-token",
        WorkerViewSet.as_view({"post": "revoke_token"}),
    ),
    path("workers/<uuid:worker_id>/approve", WorkerApprovalViewSet.as_view({"post": "approve"})),
    path("enrollments/device", EnrollmentViewSet.as_view({"post": "device"})),
    path("enrollments/redeem", EnrollmentViewSet.as_view({"post": "redeem"})),
    path(
        "environments/<uuid:environment_id>/enrollments",
        EnvironmentEnrollmentViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "environments/<uuid:environment_id>/enrollments/<uuid:enrollment_id>",
        EnvironmentEnrollmentViewSet.as_view({"delete": "destroy"}),
    ),
    path(_HOSTED, WorkspaceWorkerViewSet.as_view({"get": "list"})),
    path(
        f"{_HOSTED}/registration-token",
        WorkspaceWorkerViewSet.as_view({"post": "mint_token"}),
    ),
    path(f"{_HOSTED}/<uuid:worker_id>", WorkspaceWorkerViewSet.as_view({"delete": "destroy"})),
    path(
        f"{_HOSTED}/<uuid:worker_id>/disable",
        WorkspaceWorkerViewSet.as_view({"post": "disable"}),
    ),
    path(
        f"{_HOSTED}/<uuid:worker_id>/enable",
        WorkspaceWorkerViewSet.as_view({"post": "enable"}),
    ),
    path("releases/latest", ReleaseViewSet.as_view({"get": "retrieve"})),
    path(
        "workers/<uuid:worker_id>/events/stream",
        WorkerEventViewSet.as_view({"get": "stream"}),
    ),
]
