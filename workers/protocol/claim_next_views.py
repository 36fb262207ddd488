"""The endpoint by which a worker asks for the next run and claims it, in one call (SPEC §21)."""

from functools import partial
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import read_body
from pipedai.api.views import IsSignedIn
from triggers.runs.claim_next import claim_next_run
from triggers.runs.offers import offers_of
from triggers.runs.waiting import ended_runs
from workers.locks import locked_limits
from workers.protocol.access import PROCESS, VERSION, check_size
from workers.protocol.fields import APPROVALS
from workers.protocol.polling import ACCOUNT, PollingViewSet, worker_fields
from workers.protocol.serializers import ClaimNextBody, NextRunSerializer

# A call that waits keeps its body in memory all the time, so the body must be small.
MAX_BODY_BYTES = 16 * 1024
# After how many seconds a waiting call tries again when others have claimed each run that it tried.
LATE_AGAIN_SECONDS = 1.0


class ClaimNextViewSet(PollingViewSet):
    permissions = {"claim_next": IsSignedIn}
    # A worker must call as often as its runs need.
    unmetered = frozenset(permissions)

    @Operation(
        "POST /workers/{workerId}/claim-next",
        id="claimNextRun",
        summary="Claim the next run",
        body=ClaimNextBody,
        example={"claimId": "01a20e61-d1c1-7d52-9c1e-0f5a8ad3a1b2", "start": True, "wait": 25},
        parameters=(VERSION, PROCESS, ACCOUNT),
        answers={
            200: answer(
                "ClaimedNext",
                "The run that the worker has claimed.",
                run=NextRunSerializer(allow_null=True),
                endedRuns=serializers.ListField(child=serializers.UUIDField()),
                **worker_fields(),
            )
        },
    )
    def claim_next(self, request: Request, worker_id: UUID) -> Response:
        """Gives the worker the first run that a poll would return, claimed for it."""
        check_size(request, MAX_BODY_BYTES)
        body = read_body(ClaimNextBody, request)
        features = body["features"] or ()
        limits = self._begin(request, waits=bool(body["wait"]), features=features)
        run, was_late = claim_next_run(
            worker_id=worker_id,
            claim_id=body["claim_id"],
            start=body["start"],
            limits=limits,
            lock_worker=partial(locked_limits, self.worker, takes_approvals=APPROVALS in features),
            has_pools=bool(self.worker.pool_ids),
            actor=self._actor(request),
            offers=offers_of(self.worker.environment_id),
        )
        ended = ended_runs(worker_id, body["waiting_runs"] or ())
        self._end(
            request,
            wait=body["wait"],
            has_news=bool(ended),
            runs=int(run is not None),
            capacity=limits["capacity"],
            again_seconds=LATE_AGAIN_SECONDS if was_late else None,
        )
        return Response(
            {
                "run": None if run is None else NextRunSerializer(run).data,
                "endedRuns": ended,
                **self._about_worker(),
            }
        )
