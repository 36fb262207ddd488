"""The endpoint by which a worker asks for runs."""

from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.api.permissions import IsSignedIn
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.schema.parameters import header, query
from pipedai.api.throttling import TooManyRequests
from pipedai.server.access_log import LOG
from pipedai.server.memory_budget import room_for_answer
from pipedai.server.places import Places
from pipedai.server.ticket import POLL, PollTicket
from pipedai.wakeups import announce_poll
from triggers.runs.conditions import limits_of
from triggers.runs.handout import MOST_BYTES, hand_out_runs, outlook
from workers.accounts import note_account
from workers.models import Worker
from workers.protocol.access import VERSION, WorkerProtocolViewSet
from workers.protocol.serializers import HandedOutRunSerializer

MAX_WAIT_SECONDS = 30

ACCOUNT = header(
    "X-Pipedai-Account-Id",
    {"type": "string", "pattern": "^[!-~]{1,64}$"},
    description="The worker's `accountId`, where it is kept; anything else is ignored.",
)

# How many polls without the parameter `wait` one worker may have under way. The answers contain long prompts, and a
# worker that does not read its answers must not fill the memory of the web process.
_PLAIN_POLLS = Places(2)


class PollViewSet(WorkerProtocolViewSet):
    """The endpoint by which a worker polls for runs."""

    permissions = {"poll": IsSignedIn}

    @Operation(
        id="pollRuns",
        summary="Poll for runs",
        parameters=(
            query(
                "wait",
                {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0},
                description="Seconds to wait for a run.",
            ),
            VERSION,
            ACCOUNT,
        ),
        answers={
            200: answer(
                "Poll",
                "The runs that a worker is to claim.",
                runs=HandedOutRunSerializer(many=True),
                serverTime=serializers.DateTimeField(),
                authMode=serializers.ChoiceField(choices=Worker.AuthMode.choices),
                limitedUntil=serializers.DateTimeField(allow_null=True),
            )
        },
        says={
            200: (
                "With the runs to claim; with none when `wait` is over, after which the worker "
                "simply polls again."
            ),
        },
        errors={
            400: "A bad `wait`.",
            429: (
                "Two polls that do not wait are under way already; with the `code` `throttled` and "
                "`Retry-After`."
            ),
        },
        audit=("run.handed-out",),
    )
    def poll(self, request: Request, worker_id: UUID) -> Response:
        """Answers GET /workers/:id/poll with the runs that the worker is to claim, their secrets in plaintext.

        It answers at once, even without a run. If the worker sent `?wait=`, the web process keeps an answer without
        runs back, and calls this method again until there is a run or the time is over. A ticket, an object that
        belongs to the waiting request, tells the web process when to call.
        """
        wait = _wait_seconds(request)
        if not wait and not _PLAIN_POLLS.take(worker_id, request):
            raise TooManyRequests(
                "Two polls of this worker are being answered already: read their answers first.",
                headers={"Retry-After": "1"},
            )
        note_account(self.worker, header=request.META.get("HTTP_X_PIPEDAI_ACCOUNT_ID"))
        limits = limits_of(
            max_concurrency=self.worker.max_concurrency,
            disabled=self.worker.disabled,
            limited=self.worker.limited_until is not None,
            approved=self.worker.approved,
        )
        runs = hand_out_runs(
            worker_id=worker_id,
            **limits,
            has_pools=bool(self.worker.pool_ids),
            actor=self._actor(request),
            most_bytes=room_for_answer(request, MOST_BYTES),
        )
        scope = request.META.get("asgi.scope", {})
        scope.get(LOG, {})["runs"] = len(runs)
        ticket = scope.get(POLL)
        if isinstance(ticket, PollTicket):
            self._fill(ticket, wait=wait, empty=not runs, capacity=limits["capacity"])
        return Response(
            {
                "runs": [HandedOutRunSerializer(run).data for run in runs],
                "serverTime": self.worker.now,
                "authMode": self.worker.auth_mode,
                "limitedUntil": self.worker.limited_until,
            }
        )

    def _fill(self, ticket: PollTicket, *, wait: float, empty: bool, capacity: int) -> None:
        """Writes on the ticket of a waiting poll how long the web process is to wait, when the worker's next run comes
        due, and for the runs of which pools it waits.
        """
        ticket.workspace_id = self.worker.workspace_id
        ticket.wait_seconds, ticket.empty = wait, empty
        if not empty:
            return
        if ticket.is_first_ask:
            ticket.order = int(self.worker.now.timestamp() * 1_000_000)
            announce_poll(self.worker.id, ticket.order)
        until, has_room = outlook(worker_id=self.worker.id, capacity=capacity)
        ticket.next_due_seconds = None if until is None else until.total_seconds()
        ticket.pool_ids = self.worker.pool_ids if has_room else ()


def _wait_seconds(request: Request) -> float:
    """Returns the query parameter `wait` in seconds; 0 if it was not sent. Raises Invalid if it is no whole number from
    0 to MAX_WAIT_SECONDS.
    """
    sent = request.query_params.get("wait", "0")
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 2 and int(sent) <= MAX_WAIT_SECONDS):
        raise Invalid({"wait": [f"Must be a whole number from 0 to {MAX_WAIT_SECONDS}."]})
    return float(sent)
