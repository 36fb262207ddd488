"""The worker endpoints: registering, listing, and the run protocol as a thin adapter over `triggers.runs.lifecycle`."""

from typing import Any, TypedDict
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import CookieJWTAuthentication
from pipedai.api import tokens
from pipedai.api.authentication import BAD_TOKEN, bearer_token, refusal
from pipedai.api.errors import Invalid, NotFound, Unauthenticated
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.permissions import IsPublic, IsSignedIn
from pipedai.api.principal import WorkerPrincipal, actor_of, address_of, principal_of
from pipedai.api.request_id import current_request_id
from pipedai.api.serializers import Body, read_body
from pipedai.api.throttling import Rate, Throttle, TooManyRequests, by_address
from pipedai.api.views import ApiViewSet
from pipedai.events import Actor
from pipedai.server.access_log import LOG
from pipedai.server.memory_budget import room_for_answer
from pipedai.server.places import Places
from pipedai.server.ticket import POLL, PollTicket
from pipedai.sql import fetch_one
from pipedai.wakeups import announce_poll
from triggers.runs import lifecycle
from triggers.runs.handout import MOST_BYTES, hand_out_runs, time_until_next
from triggers.runs.overview import run_figures
from triggers.schedules.cron import BadTimezone, check_timezone
from triggers.serializers import RunSerializer
from workers import queries, services
from workers.authentication import WorkerTokenAuthentication
from workers.filters import WorkerFilters
from workers.models import Worker
from workers.presence import note_call
from workers.registration import find_registration_key, register_worker
from workers.serializers import (
    ClaimBody,
    CompleteBody,
    HandedOutRunSerializer,
    HeartbeatBody,
    RegisterBody,
    WorkerBody,
    WorkerSerializer,
    as_reported,
    outcome_of,
)
from workers.worker_events import actor_of_worker
from workspaces.access import TenantViewSet, find_visible
from workspaces.permissions import IsAdmin, IsViewer

MAX_WAIT_SECONDS = 30

# How many polls without `wait` one worker may have under way. Their answers hold prompts: a worker that does not read
# them must not fill the memory.
_PLAIN_POLLS = Places(2)


class RegistrationViewSet(ApiViewSet):
    """Registers machines as workers."""

    authentication_classes = ()
    permissions = {"register": IsPublic}
    throttles = {"register": (Throttle(Rate("register-worker", limit=60, seconds=60), by_address),)}

    def register(self, request: Request) -> Response:
        """POST /workers/register: the only answer that holds the `wkt_` token."""
        token = _registration_token(request)
        find_registration_key(token)  # refuses a bad token before it looks at the body
        registered = register_worker(
            token=token,
            values=read_body(RegisterBody, request),
            actor=Actor("api_key", None, address_of(request), current_request_id.get() or None),
        )
        return Response(
            {
                "workerId": registered.worker_id,
                "workerToken": registered.worker_token,
                "workspaceId": registered.workspace_id,
                "environmentId": registered.environment_id,
                "approved": registered.approved,
                "authMode": registered.auth_mode,
            },
            status=201,
        )


class EnvironmentWorkerViewSet(TenantViewSet):
    permissions = {"list": IsViewer}
    filter_names = WorkerFilters.names()

    def list(self, request: Request, environment_id: UUID) -> Response:
        """GET /environments/:envId/workers"""
        rows = queries.workers().filter(environment_id=environment_id)
        filters = WorkerFilters.read(rows, request)
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(filters.qs, request, self)
        return paginator.get_paginated_response(WorkerSerializer(page, many=True).data)


class OneWorkerViewSet(TenantViewSet):
    """The base of viewsets whose URL names one worker and whose callers are members of its environment."""

    worker: Worker

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Finds the worker."""
        self.access = find_visible(principal_of(request), queries.LIVE_WORKERS, kwargs["worker_id"])
        self.worker = Worker(id=kwargs["worker_id"], environment_id=self.access.environment_id)


class WorkerViewSet(OneWorkerViewSet):
    """One worker, for people and their scripts."""

    permissions = {
        "retrieve": IsViewer,
        "update": IsAdmin,
        "destroy": IsAdmin,
        "revoke_token": IsAdmin,
    }

    def retrieve(self, request: Request, worker_id: UUID) -> Response:
        """GET /workers/:id"""
        return Response(WorkerSerializer(queries.workers().get(id=worker_id)).data)

    def update(self, request: Request, worker_id: UUID) -> Response:
        """PATCH /workers/:id"""
        services.update_worker(
            worker=self.worker,
            values=read_body(WorkerBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(WorkerSerializer(queries.workers().get(id=worker_id)).data)

    def destroy(self, request: Request, worker_id: UUID) -> Response:
        """DELETE /workers/:id"""
        services.deregister_worker(
            worker=self.worker,
            reassign_to=_uuid_parameter(request, "reassignTo"),
            actor=actor_of(request),
        )
        return Response(status=204)

    def revoke_token(self, request: Request, worker_id: UUID) -> Response:
        """POST /workers/:id/revoke-token"""
        services.revoke_token(worker=self.worker, actor=actor_of(request))
        return Response(status=204)


class WorkerApprovalViewSet(OneWorkerViewSet):
    """An admin's permission for a worker to get secrets. Only people can give it: a leaked key must not approve the
    worker that it registered.
    """

    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"approve": IsAdmin}

    def approve(self, request: Request, worker_id: UUID) -> Response:
        """POST /workers/:id/approve"""
        services.approve_worker(worker=self.worker, actor=actor_of(request))
        return Response(WorkerSerializer(queries.workers().get(id=worker_id)).data)


class OverviewViewSet(TenantViewSet):
    permissions = {"retrieve": IsViewer}

    def retrieve(self, request: Request, environment_id: UUID) -> Response:
        """GET /environments/:envId/dashboard/overview"""
        timezone = request.query_params.get("timezone", "UTC")
        try:
            check_timezone(timezone)
        except BadTimezone as error:
            raise Invalid({"timezone": [str(error)]}) from None
        figures = run_figures(environment_id=environment_id, timezone=timezone)
        workers = queries.workers().filter(environment_id=environment_id)
        rate = figures["success_rate"]
        return Response(
            {
                "onlineWorkers": workers.filter(Q(online=True)).count(),
                "todaysRuns": figures["todays_runs"],
                "successRatePct": None if rate is None else float(rate),
                "monthTokenSpendUsd": float(figures["month_cost_usd"]),
            }
        )


class WorkerProtocolViewSet(ApiViewSet):
    """The endpoints that a worker calls with its `wkt_` token. The paths of other workers answer it with 404."""

    authentication_classes = (WorkerTokenAuthentication,)
    permissions = {
        "poll": IsSignedIn,
        "claim": IsSignedIn,
        "start": IsSignedIn,
        "heartbeat": IsSignedIn,
        "complete": IsSignedIn,
    }
    unmetered = frozenset(permissions)  # no rate limit: a worker calls as often as its runs need
    worker: WorkerPrincipal

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Checks that the caller is the worker that the URL names. Raises NotFound."""
        principal = principal_of(request)
        if not isinstance(principal, WorkerPrincipal) or principal.id != kwargs["worker_id"]:
            raise NotFound
        self.worker = principal
        note_call(
            principal,
            version_header=request.META.get("HTTP_X_PIPEDAI_WORKER_VERSION"),
            seen=self.action in {"poll", "heartbeat"},
        )

    def poll(self, request: Request, worker_id: UUID) -> Response:
        """GET /workers/:id/poll

        Answers at once. With `?wait=` the long-poll lane calls it again until there is a run; the ticket says when.
        """
        wait = _wait_seconds(request)
        if not wait and not _PLAIN_POLLS.take(worker_id, request):
            raise TooManyRequests(
                "Two polls of this worker are being answered already: read their answers first.",
                headers={"Retry-After": "1"},
            )
        runs = hand_out_runs(
            worker_id=worker_id,
            capacity=0 if self.worker.disabled else self.worker.max_concurrency,
            approved=self.worker.approved,
            actor=self._actor(request),
            most_bytes=room_for_answer(request, MOST_BYTES),
        )
        scope = request.META.get("asgi.scope", {})
        scope.get(LOG, {})["runs"] = len(runs)
        ticket = scope.get(POLL)
        if isinstance(ticket, PollTicket):
            self._fill(ticket, wait=wait, empty=not runs)
        return Response(
            {
                "runs": [HandedOutRunSerializer(run).data for run in runs],
                "serverTime": self.worker.now,
                "authMode": self.worker.auth_mode,
            }
        )

    def claim(self, request: Request, worker_id: UUID, run_id: UUID) -> Response:
        """POST /workers/:id/runs/:runId/claim"""
        body = read_body(ClaimBody, request)
        with transaction.atomic():
            run = lifecycle.claim_run(
                worker_id=worker_id,
                run_id=run_id,
                **body,
                **_locked_limits(self.worker),
                actor=self._actor(request),
            )
        return Response(RunSerializer(run).data)

    def start(self, request: Request, worker_id: UUID, run_id: UUID) -> Response:
        """POST /workers/:id/runs/:runId/start"""
        read_body(Body, request)
        run = lifecycle.start_run(worker_id=worker_id, run_id=run_id, actor=self._actor(request))
        return Response(RunSerializer(run).data)

    def heartbeat(self, request: Request, worker_id: UUID, run_id: UUID) -> Response:
        """POST /workers/:id/runs/:runId/heartbeat"""
        body = read_body(HeartbeatBody, request)
        beat = lifecycle.heartbeat_run(worker_id=worker_id, run_id=run_id, **body)
        return Response(
            {
                "status": beat["status"],
                "cancelRequested": beat["cancel_requested_at"] is not None,
                "leaseExpiresAt": beat["lease_expires_at"],
            }
        )

    def complete(self, request: Request, worker_id: UUID, run_id: UUID) -> Response:
        """POST /workers/:id/runs/:runId/complete"""
        values = read_body(CompleteBody, request)
        run = lifecycle.complete_run(
            worker_id=worker_id,
            run_id=run_id,
            outcome=outcome_of(values),
            reported=as_reported(values),
            actor=self._actor(request),
        )
        return Response(RunSerializer(run).data)

    def _actor(self, request: Request) -> Actor:
        return actor_of_worker(actor_of(request), self.worker)

    def _fill(self, ticket: PollTicket, *, wait: float, empty: bool) -> None:
        ticket.workspace_id = self.worker.workspace_id
        ticket.wait_seconds, ticket.empty = wait, empty
        if not empty:
            return
        if ticket.is_first_ask:
            ticket.order = int(self.worker.now.timestamp() * 1_000_000)
            announce_poll(self.worker.id, ticket.order)
        until = time_until_next(worker_id=self.worker.id)
        ticket.next_due_seconds = None if until is None else until.total_seconds()


class _Limits(TypedDict):
    capacity: int
    approved: bool


def _registration_token(request: Request) -> str:
    """Reads the `wrk_` token from the Bearer header or, without one, from the body."""
    if (sent := bearer_token(request)) is not None:
        if tokens.prefix_of(sent) != "wrk":
            raise refusal(sent)
        return sent
    token = request.data.get("token") if isinstance(request.data, dict) else None
    if not isinstance(token, str) or tokens.prefix_of(token) != "wrk":
        raise Unauthenticated("The registration token (wrk_) is missing or malformed.")
    return token


def _locked_limits(worker: WorkerPrincipal) -> _Limits:
    """Locks the worker's row until the transaction ends and returns how much it may claim: nothing if it is disabled.

    Raises Unauthenticated if the token was revoked since the request was authenticated.
    """
    row = fetch_one(
        "SELECT max_concurrency, disabled_at, unapproved_since FROM worker"
        " WHERE id = %(id)s AND token_digest = %(token_digest)s FOR NO KEY UPDATE",
        {"id": worker.id, "token_digest": worker.token_digest},
    )
    if row is None:
        raise Unauthenticated(BAD_TOKEN)
    return {
        "capacity": 0 if row["disabled_at"] else row["max_concurrency"],
        "approved": row["unapproved_since"] is None,
    }


def _wait_seconds(request: Request) -> float:
    sent = request.query_params.get("wait", "0")
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 2 and int(sent) <= MAX_WAIT_SECONDS):
        raise Invalid({"wait": [f"Must be a whole number from 0 to {MAX_WAIT_SECONDS}."]})
    return float(sent)


def _uuid_parameter(request: Request, name: str) -> UUID | None:
    sent = request.query_params.get(name)
    if sent is None:
        return None
    try:
        return UUID(sent)
    except ValueError:
        raise Invalid({name: ["Must be a UUID."]}) from None
