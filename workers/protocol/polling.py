"""Defines what the endpoints have in common by which a worker asks for runs, and may wait for one."""

from collections.abc import Collection

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.schema.operation import header
from pipedai.api.throttling import TooManyRequests
from pipedai.server.memory_budget import RequestLimit
from pipedai.server.outer import LOG
from pipedai.server.ticket import POLL, PollTicket
from pipedai.wakeups import announce_poll
from triggers.runs.conditions import Limits, limits_of
from triggers.runs.handout import outlook
from workers.accounts import note_account
from workers.models import Worker
from workers.presence import note_features
from workers.protocol.access import WorkerProtocolViewSet
from workers.protocol.fields import APPROVALS

ACCOUNT = header(
    "X-Pipedai-Account-Id",
    {"type": "string", "pattern": "^[!-~]{1,64}$"},
    description="The worker's `accountId`, where it is kept; anything else is ignored.",
)

# How many requests that don't wait one worker may have under way. The answers contain long prompts, and a worker that
# does not read its answers must not fill the memory of the web process.
_POLLS = RequestLimit(2)


class PollingViewSet(WorkerProtocolViewSet):
    """The base of the endpoints by which a worker asks for runs.

    They answer at once, even without a run. If the worker wants to wait, the web process keeps an answer without runs
    back, and calls the endpoint again until there is a run or the time is over. A ticket, an object that belongs to the
    waiting request, tells the web process when to call.
    """

    def _begin(self, request: Request, *, waits: bool, features: Collection[str]) -> Limits:
        """Notes what the request tells, and returns the worker's limits. `features` are those that it names. Raises
        TooManyRequests.
        """
        if not waits and not _POLLS.admits(self.worker.id, request):
            raise TooManyRequests(
                "Two polls of this worker are being answered already: read their answers first.",
                headers={"Retry-After": "1"},
            )
        takes_approvals = APPROVALS in features
        note_features(self.worker, takes_approvals=takes_approvals)
        note_account(self.worker, header=request.META.get("HTTP_X_PIPEDAI_ACCOUNT_ID"))
        return limits_of(
            max_concurrency=self.worker.max_concurrency,
            disabled=self.worker.disabled,
            limited=self.worker.limited_until is not None,
            approved=self.worker.approved,
            takes_approvals=takes_approvals,
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
        """Notes how many runs the answer has, for the access log and the ticket. With `has_news` it is sent at
        once also without runs. `again_seconds` is when to call again, if that is before the next run comes due.
        """
        scope = request.META.get("asgi.scope", {})
        scope.get(LOG, {})["runs"] = runs
        ticket = scope.get(POLL)
        if isinstance(ticket, PollTicket):
            self._fill(ticket, wait=wait, empty=not (runs or has_news), capacity=capacity)
            if again_seconds is not None:
                ticket.next_due_seconds = again_seconds

    def _fill(self, ticket: PollTicket, *, wait: float, empty: bool, capacity: int) -> None:
        """Writes on the ticket how long to wait, when the next run comes due, and of which pools runs may come."""
        ticket.workspace_id = self.worker.workspace_id
        ticket.wait_seconds, ticket.empty = wait, empty
        if not empty or not wait:
            return
        if ticket.is_first_ask:
            ticket.order = int(self.worker.now.timestamp() * 1_000_000)
            announce_poll(self.worker.id, ticket.order)
        until, has_room = outlook(worker_id=self.worker.id, capacity=capacity)
        ticket.next_due_seconds = None if until is None else until.total_seconds()
        ticket.pool_ids = self.worker.pool_ids if has_room else ()

    def _about_worker(self) -> dict[str, object]:
        """Returns what the answer tells of the worker itself. `worker_fields` has their types."""
        return {
            "serverTime": self.worker.now,
            "authMode": self.worker.auth_mode,
            "limitedUntil": self.worker.limited_until,
        }


def worker_fields() -> dict[str, serializers.Field]:  # type: ignore[type-arg]
    """Returns the fields of an answer that tell of the worker itself."""
    return {
        "serverTime": serializers.DateTimeField(),
        "authMode": serializers.ChoiceField(choices=Worker.AuthMode.choices),
        "limitedUntil": serializers.DateTimeField(allow_null=True),
    }
