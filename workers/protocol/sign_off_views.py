"""The endpoint by which a worker's process says that it ends."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.schema.operation import Operation
from pipedai.api.views import IsSignedIn
from workers.presence import sign_off
from workers.protocol.access import PROCESS, VERSION, WorkerProtocolViewSet


class SignOffViewSet(WorkerProtocolViewSet):
    """The endpoint by which a worker becomes offline without a silence."""

    permissions = {"sign_off": IsSignedIn}
    # A worker that is started and stopped often must still be able to say so.
    unmetered = frozenset(permissions)

    @Operation(
        "POST /workers/{workerId}/sign-off",
        id="signOffWorker",
        summary="Sign a worker off",
        parameters=(VERSION, PROCESS),
        answers={204: None},
    )
    def sign_off(self, request: Request, worker_id: UUID) -> Response:
        """Makes the worker offline at once, unless another process of it has polled since."""
        sign_off(self.worker, process_header=request.META.get("HTTP_X_PIPEDAI_WORKER_PROCESS"))
        return Response(status=204)
