"""Routes of the workers app, below /api/v1/."""

from django.urls import path

from pipedai.api.parsers import OutcomeJSONParser
from workers.views import (
    EnvironmentWorkerViewSet,
    OverviewViewSet,
    RegistrationViewSet,
    WorkerProtocolViewSet,
    WorkerViewSet,
)

_RUN = "workers/<uuid:worker_id>/runs/<uuid:run_id>"

urlpatterns = [
    path("workers/<uuid:worker_id>/poll", WorkerProtocolViewSet.as_view({"get": "poll"})),
    path(f"{_RUN}/claim", WorkerProtocolViewSet.as_view({"post": "claim"})),
    path(f"{_RUN}/start", WorkerProtocolViewSet.as_view({"post": "start"})),
    path(f"{_RUN}/heartbeat", WorkerProtocolViewSet.as_view({"post": "heartbeat"})),
    path(
        f"{_RUN}/complete",
        # An outcome is never thrown away for characters that can't be stored.
        WorkerProtocolViewSet.as_view({"post": "complete"}, parser_classes=[OutcomeJSONParser]),
    ),
    path("workers/register", RegistrationViewSet.as_view({"post": "register"})),
    path(
        "environments/<uuid:environment_id>/workers",
        EnvironmentWorkerViewSet.as_view({"get": "list"}),
    ),
    path(
        "environments/<uuid:environment_id>/dashboard/overview",
        OverviewViewSet.as_view({"get": "retrieve"}),
    ),
    path(
        "workers/<uuid:worker_id>",
        WorkerViewSet.as_view({"get": "retrieve", "patch": "update", "delete": "destroy"}),
    ),
    path(
        "workers/<uuid:worker_id>/revoke-token",
        WorkerViewSet.as_view({"post": "revoke_token"}),
    ),
]
