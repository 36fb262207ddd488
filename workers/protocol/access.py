"""Defines the base of the worker protocol's viewsets, which finds the worker that calls."""

from typing import Any

from rest_framework.request import Request

from pipedai.api.errors import NotFound
from pipedai.api.principal import WorkerPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import header
from pipedai.api.views import ApiViewSet
from pipedai.events import Actor
from pipedai.server.ticket import POLL
from workers.authentication import WorkerTokenAuthentication
from workers.presence import note_call
from workers.worker_events import actor_of_worker

VERSION = header(
    "X-Pipedai-Worker-Version",
    {"type": "string", "pattern": r"^[\w.+-]{1,64}$"},
    description="The worker's version, where it is kept; anything else is ignored.",
)
PROCESS = header(
    "X-Pipedai-Worker-Process",
    {"type": "string", "pattern": r"^[\w.+-]{1,64}$"},
    description="A word for the worker's process, another one for each; anything else is ignored.",
)


class WorkerProtocolViewSet(ApiViewSet):
    """The base of viewsets that a worker calls with its `wkt_` token. A path that names another worker is a 404."""

    tag = "Worker protocol"
    authentication_classes = (WorkerTokenAuthentication,)
    worker: WorkerPrincipal

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        principal = principal_of(request)
        if not isinstance(principal, WorkerPrincipal) or principal.id != kwargs["worker_id"]:
            raise NotFound
        self.worker = principal
        ticket = request.META.get("asgi.scope", {}).get(POLL)
        # The web process asks again for a poll that waits. Only the first time is a call of the worker's process.
        is_new = ticket is None or ticket.is_first_ask
        note_call(
            principal,
            version_header=request.META.get("HTTP_X_PIPEDAI_WORKER_VERSION"),
            process_header=request.META.get("HTTP_X_PIPEDAI_WORKER_PROCESS"),
            seen=self.action in {"poll", "claim_next", "heartbeat"},
            polls=is_new and self.action in {"poll", "claim_next"},
        )

    def _actor(self, request: Request) -> Actor:
        return actor_of_worker(actor_of(request), self.worker)
