"""The endpoint by which a worker asks for runs."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.api.schema.operation import Operation, answer, query
from pipedai.api.views import IsSignedIn
from pipedai.server.memory_budget import room_for_answer
from triggers.runs.handout import MOST_BYTES, hand_out_runs
from triggers.runs.offers import offers_of
from workers.protocol.access import PROCESS, VERSION
from workers.protocol.fields import APPROVALS
from workers.protocol.polling import ACCOUNT, PollingViewSet, worker_fields
from workers.protocol.serializers import MAX_WAIT_SECONDS, HandedOutRunSerializer


class PollViewSet(PollingViewSet):
    permissions = {"poll": IsSignedIn}

    @Operation(
        "GET /workers/{workerId}/poll",
        id="pollRuns",
        summary="Poll for runs",
        parameters=(
            query(
                "wait",
                {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0},
                description="Seconds to wait for a run.",
            ),
            query(
                "features",
                {"type": "string", "example": APPROVALS},
                description="What the worker can do, separated by commas. Unknown words are ignored.",
            ),
            VERSION,
            PROCESS,
            ACCOUNT,
        ),
        answers={
            200: answer(
                "Poll",
                "The runs that a worker is to claim.",
                runs=HandedOutRunSerializer(many=True),
                **worker_fields(),
            )
        },
    )
    def poll(self, request: Request, worker_id: UUID) -> Response:
        """Answers with the runs that the worker is to claim, their secrets in plaintext."""
        wait = _wait_seconds(request)
        features = request.query_params.get("features", "").split(",")
        limits = self._begin(request, waits=bool(wait), features=features)
        runs = hand_out_runs(
            worker_id=worker_id,
            **limits,
            has_pools=bool(self.worker.pool_ids),
            actor=self._actor(request),
            offers=offers_of(self.worker.environment_id),
            most_bytes=room_for_answer(request, MOST_BYTES),
        )
        self._end(request, wait=wait, runs=len(runs), capacity=limits["capacity"])
        return Response(
            {"runs": [HandedOutRunSerializer(run).data for run in runs], **self._about_worker()}
        )


def _wait_seconds(request: Request) -> float:
    """Raises Invalid if `wait` is no whole number from 0 to MAX_WAIT_SECONDS."""
    sent = request.query_params.get("wait", "0")
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 2 and int(sent) <= MAX_WAIT_SECONDS):
        raise Invalid({"wait": [f"Must be a whole number from 0 to {MAX_WAIT_SECONDS}."]})
    return float(sent)
