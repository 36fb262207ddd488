"""The viewsets of the workers app, whose endpoints are below /api/v1/."""

from pipedai.api.views import paths_of
from workers.enrollment.views import (
    EnrollmentViewSet,
    EnvironmentEnrollmentViewSet,
    PairingViewSet,
)
from workers.hosts.event_views import WorkerEventViewSet
from workers.hosts.release_views import ReleaseViewSet
from workers.hosts.views import WorkspaceWorkerViewSet
from workers.pools.views import PoolMemberViewSet, PoolViewSet
from workers.protocol.approval_views import SpendViewSet
from workers.protocol.claim_next_views import ClaimNextViewSet
from workers.protocol.event_views import WorkerRunEventViewSet
from workers.protocol.poll_views import PollViewSet
from workers.protocol.registration_views import RegistrationViewSet
from workers.protocol.run_views import RunEndViewSet, WorkerRunViewSet
from workers.protocol.sign_off_views import SignOffViewSet
from workers.views import EnvironmentWorkerViewSet, WorkerApprovalViewSet, WorkerViewSet
from workers.whoami_views import WhoAmIViewSet

urlpatterns = paths_of(
    PollViewSet,
    ClaimNextViewSet,
    WorkerRunViewSet,
    RunEndViewSet,
    SpendViewSet,
    WorkerRunEventViewSet,
    SignOffViewSet,
    WhoAmIViewSet,
    RegistrationViewSet,
    EnvironmentWorkerViewSet,
    PoolViewSet,
    PoolMemberViewSet,
    WorkerViewSet,
    WorkerApprovalViewSet,
    EnrollmentViewSet,
    EnvironmentEnrollmentViewSet,
    PairingViewSet,
    WorkspaceWorkerViewSet,
    ReleaseViewSet,
    WorkerEventViewSet,
)
