"""The viewsets of the workers app, whose endpoints are below /api/v1/."""

from pipedai.api.views import paths_of
from workers.enrollment.views import (
    EnrollmentViewSet,
    EnvironmentEnrollmentViewSet,
    PairingViewSet,
)
from workers.host_views import ReleaseViewSet, WorkerEventViewSet, WorkspaceWorkerViewSet
from workers.pools.views import PoolViewSet
from workers.protocol.run_events import WorkerRunEventViewSet
from workers.protocol.run_views import RunEndViewSet, WorkerRunViewSet
from workers.protocol.worker_views import PollingViewSet, RegistrationViewSet
from workers.views import WhoAmIViewSet, WorkerApprovalViewSet, WorkerViewSet

urlpatterns = paths_of(
    PollingViewSet,
    WorkerRunViewSet,
    RunEndViewSet,
    WorkerRunEventViewSet,
    WhoAmIViewSet,
    RegistrationViewSet,
    PoolViewSet,
    WorkerViewSet,
    WorkerApprovalViewSet,
    EnrollmentViewSet,
    EnvironmentEnrollmentViewSet,
    PairingViewSet,
    WorkspaceWorkerViewSet,
    ReleaseViewSet,
    WorkerEventViewSet,
)
