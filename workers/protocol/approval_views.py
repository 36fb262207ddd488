"""The endpoint by which a worker's gateway uses an approval, once (SPEC §27)."""

from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, read_body
from pipedai.api.views import IsSignedIn
from triggers.approvals.services import spend_approval
from workers.protocol.access import VERSION, WorkerProtocolViewSet


class SpendViewSet(WorkerProtocolViewSet):
    permissions = {"spend": IsSignedIn}
    # A run may ask as often as it makes calls.
    unmetered = frozenset(permissions)

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/approvals/{approvalId}/spend",
        id="spendApproval",
        summary="Use an approval",
        body=Body,
        parameters=(VERSION,),
        answers={
            200: answer(
                "SpentApproval",
                "An approval that the worker's gateway may use now.",
                approvalId=serializers.UUIDField(),
                spentAt=serializers.DateTimeField(),
            )
        },
    )
    def spend(self, request: Request, worker_id: UUID, run_id: UUID, approval_id: UUID) -> Response:
        """Lets the gateway forward the approved call. Only the worker that holds the run may use it."""
        read_body(Body, request)
        spent = spend_approval(
            worker_id=worker_id,
            run_id=run_id,
            approval_id=approval_id,
            actor=self._actor(request),
        )
        return Response({"approvalId": spent["id"], "spentAt": spent["spent_at"]})
