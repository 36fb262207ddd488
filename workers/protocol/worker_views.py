"""The endpoints by which a worker program registers, asks for runs, and says that it ends."""

import re
from functools import partial
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api import tokens
from pipedai.api.authentication import bearer_token, refusal
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Invalid, Unauthenticated
from pipedai.api.principal import actor_from
from pipedai.api.schema.operation import REGISTRATION_TOKEN, Operation, answer, header, query
from pipedai.api.serializers import read_body, serializer_of
from pipedai.api.throttling import Rate, Throttle, admit, by_address
from pipedai.api.views import ApiViewSet, IsPublic, IsSignedIn
from pipedai.server.memory_budget import RequestLimit, room_for_answer
from pipedai.server.outer import LOG
from pipedai.server.ticket import POLL, PollTicket
from pipedai.wakeups import announce_poll
from triggers.runs.conditions import FEATURES, Limits, limits_of
from triggers.runs.handout import MOST_BYTES, claim_next_run, hand_out_runs, offers_of, outlook
from triggers.runs.waiting import ended_runs
from workers.authentication import (
    PROCESS,
    VERSION,
    WorkerProtocolViewSet,
    check_size,
    locked_limits,
)
from workers.models import Worker
from workers.presence import note_account, note_features, note_problems, sign_off
from workers.protocol.serializers import (
    MAX_WAIT_SECONDS,
    ClaimNextBody,
    HandedOutRunSerializer,
    NextRunSerializer,
    RegisterBody,
    RegistrationBody,
    known_features,
)
from workers.registration import Registered, find_registration_key, register_worker

ACCOUNT = header(
    "X-Pipedai-Account-Id",
    {"type": "string", "pattern": "^[!-~]{1,64}$"},
    description="The worker's `accountId`, where it is kept; anything else is ignored.",
)

# The number of requests without a wait that a worker may have open. The answers contain long prompts, and a worker that
# does not read its answers must not fill the memory of the web process.
_POLLS = RequestLimit(2)
# A call that waits keeps its body in memory all the time, so the body must be small.
MAX_BODY_BYTES = 16 * 1024
# If other workers have claimed each run that a waiting call tried, it tries again after this many seconds.
LATE_AGAIN_SECONDS = 1.0


def _worker_fields() -> dict[str, serializers.Field]:  # type: ignore[type-arg]
    """Returns the fields about the worker itself that an answer has; `_about_worker` has their values."""
    # Each answer gets new fields, because the schema lists fields in the order in which they were made.
    return {
        "serverTime": serializers.DateTimeField(),
        "authMode": serializers.ChoiceField(choices=Worker.AuthMode.choices),
        "limitedUntil": serializers.DateTimeField(allow_null=True),
    }


class RegistrationViewSet(ApiViewSet):
    """The endpoint by which a machine becomes a worker. A `wrk_` token proves that it may."""

    tag = "Worker protocol"
    authentication_classes = ()
    permissions = {"register": IsPublic}
    throttles = {"register": (Throttle(Rate("register-worker", limit=60, seconds=60), by_address),)}

    @Operation(
        "POST /workers/register",
        id="registerWorker",
        summary="Register a worker",
        body=RegistrationBody,
        example={"token": "wrk_…", "hostname": "build-1", "os": "Linux 6.1", "version": "0.1.0"},
        answers={201: serializer_of(Registered)},
        security=({}, {REGISTRATION_TOKEN: []}),
    )
    def register(self, request: Request) -> Any:
        token = _registration_token(request)
        find_registration_key(token)  # This refuses a bad token before the body is checked.
        return register_worker(
            token=token,
            values=read_body(RegisterBody, request),
            actor=actor_from(request, "api_key"),
        )


def _registration_token(request: Request) -> str:
    if (sent := bearer_token(request)) is not None:
        if tokens.prefix_of(sent) != "wrk":
            raise refusal(sent)
        return sent
    token = request.data.get("token") if isinstance(request.data, dict) else None
    if not isinstance(token, str) or tokens.prefix_of(token) != "wrk":
        raise Unauthenticated(
            "The registration token (wrk_) is missing or malformed.",
            code=ErrorCode.UNAUTHENTICATED,
        )
    return token


class PollingViewSet(WorkerProtocolViewSet):
    """The endpoints by which a worker's process asks for runs, and says that it ends.

    Polls are answered at once, even without a run. If the worker wants to wait, the web process keeps an answer without
    runs back, and calls the endpoint again until there is a run or the time is over. A ticket, which belongs to the
    waiting request, tells the web process when to call.
    """

    permissions = {"poll": IsSignedIn, "claim_next": IsSignedIn, "sign_off": IsSignedIn}
    # These calls have no rate limit, because a worker must poll as often as its runs need, and a process that is
    # restarted often must be able to sign off each time.
    unmetered = frozenset(permissions)

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
                {"type": "string", "example": ",".join(FEATURES)},
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
                **_worker_fields(),
            )
        },
    )
    def poll(self, request: Request, worker_id: UUID) -> Any:
        sent = request.query_params.get("wait", "0")
        if not re.fullmatch("[0-9]{1,2}", sent) or (wait := int(sent)) > MAX_WAIT_SECONDS:
            raise Invalid({"wait": [f"Must be a whole number from 0 to {MAX_WAIT_SECONDS}."]})
        features = known_features(request.query_params.get("features", "").split(","))
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
        return {"runs": runs, **self._about_worker()}

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
                **_worker_fields(),
            )
        },
    )
    def claim_next(self, request: Request, worker_id: UUID) -> Any:
        check_size(request, MAX_BODY_BYTES)
        body = read_body(ClaimNextBody, request)
        features = body["features"]
        limits = self._begin(request, waits=bool(body["wait"]), features=features)
        if body["problems"] is not None:
            note_problems(self.worker, body["problems"])
        run, was_late = claim_next_run(
            worker_id=worker_id,
            claim_id=body["claim_id"],
            start=body["start"],
            limits=limits,
            lock_worker=partial(locked_limits, self.worker, features=features),
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
        return {"run": run, "endedRuns": ended, **self._about_worker()}

    @Operation(
        "POST /workers/{workerId}/sign-off",
        id="signOffWorker",
        summary="Sign a worker off",
        parameters=(VERSION, PROCESS),
    )
    def sign_off(self, request: Request, worker_id: UUID) -> None:
        sign_off(self.worker, process_header=request.META.get("HTTP_X_PIPEDAI_WORKER_PROCESS"))

    def _begin(self, request: Request, *, waits: bool, features: list[str]) -> Limits:
        """Records what a request with these `features` tells. Returns the worker's limits. Raises TooManyRequests."""
        if not waits:
            sentence = (
                "Two polls of this worker are being answered already: read their answers first."
            )
            admit(_POLLS, self.worker.id, request, sentence)
        note_features(self.worker, features)
        note_account(self.worker, header=request.META.get("HTTP_X_PIPEDAI_ACCOUNT_ID"))
        return limits_of(
            max_concurrency=self.worker.max_concurrency,
            disabled=self.worker.disabled,
            limited=self.worker.limited_until is not None,
            approved=self.worker.approved,
            features=features,
        )

    def _end(
        self,
        request: Request,
        *,
        wait: float,
        runs: int,
        capacity: int,
        has_news: bool = False,
        again_seconds: float | None = None,
    ) -> None:
        """Stores for the access log how many runs the answer has, and on the ticket how long to wait, when the next run
        comes due, and from which pools runs may come. With `has_news` the answer is sent at once even without runs.
        `again_seconds` is when to call again, if that is before the next run comes due.
        """
        scope = request.META.get("asgi.scope", {})
        scope.get(LOG, {})["runs"] = runs
        ticket = scope.get(POLL)
        if not isinstance(ticket, PollTicket):
            return
        ticket.workspace_id, ticket.wait_seconds = self.worker.workspace_id, wait
        ticket.empty = not (runs or has_news)
        if ticket.empty and wait:
            if ticket.is_first_ask:
                ticket.order = int(self.worker.now.timestamp() * 1_000_000)
                announce_poll(self.worker.id, ticket.order)
            until, has_room = outlook(worker_id=self.worker.id, capacity=capacity)
            ticket.next_due_seconds = None if until is None else until.total_seconds()
            ticket.pool_ids = self.worker.pool_ids if has_room else ()
        if again_seconds is not None:
            ticket.next_due_seconds = again_seconds

    def _about_worker(self) -> dict[str, object]:
        return {
            "serverTime": self.worker.now,
            "authMode": self.worker.auth_mode,
            "limitedUntil": self.worker.limited_until,
        }
