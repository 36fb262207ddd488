"""Authenticates workers by their `wkt_` token, and defines the base of the endpoints that they call."""

from collections.abc import Sequence
from typing import Any

from rest_framework.request import Request

from pipedai.api.authentication import BearerAuthentication, bad_token
from pipedai.api.errors import BodyTooLarge, NotFound
from pipedai.api.principal import WorkerPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import header
from pipedai.api.views import ApiViewSet
from pipedai.events import Actor
from pipedai.server.ticket import POLL
from pipedai.sql import fetch_one
from triggers.runs.conditions import Limits, limits_of
from workers.presence import note_call
from workers.worker_events import actor_of_worker

# Finds a worker by its token. `seen_lately` says that `last_seen_at` was written within the last 10 s, and so need not
# be written again, which saves writes.
_FIND = """
SELECT w.id, w.environment_id, e.workspace_id, w.max_concurrency, w.auth_mode, w.disabled_at IS NOT NULL AS disabled,
    w.unapproved_since IS NULL AS approved, w.account_id, w.features,
    CASE WHEN w.limited_until > statement_timestamp() THEN w.limited_until END AS limited_until,
    ARRAY(SELECT m.pool_id FROM pool_member m WHERE m.worker_id = w.id) AS pool_ids, w.version, w.last_seen_at,
    w.process_id, w.signed_off_at IS NOT NULL AS signed_off, w.is_streamed,
    coalesce(w.last_seen_at > statement_timestamp() - interval '10 seconds', false) AS seen_lately,
    statement_timestamp() AS now
FROM worker w JOIN environment e ON e.id = w.environment_id
WHERE w.token_digest = %(digest)s AND w.deleted_at IS NULL AND e.deleted_at IS NULL
"""


class WorkerTokenAuthentication(BearerAuthentication):
    """Authenticates the worker's own calls (poll, claim, start, heartbeat, complete) by its `wkt_` token."""

    prefix = "wkt"

    def find(self, digest: bytes) -> WorkerPrincipal | None:
        """Returns the worker with this token. Returns None if there is none, or if it or its environment is deleted."""
        row = fetch_one(_FIND, {"digest": digest})
        return None if row is None else WorkerPrincipal(**row, token_digest=digest)


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


def check_size(request: Request, most_bytes: int) -> None:
    """Raises BodyTooLarge. The web server has already read the body, and tells its length."""
    if int(request.META.get("CONTENT_LENGTH") or 0) > most_bytes:
        raise BodyTooLarge(f"The body must not be longer than {most_bytes // 1024} KiB.")


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
        # The web process repeats a poll that waits. Only the first time counts as a call of the worker.
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


def locked_limits(worker: WorkerPrincipal, *, features: Sequence[str]) -> Limits:
    """Locks the worker's row, and returns its limits. Raises Unauthenticated if its token was revoked."""
    row = fetch_one(
        "SELECT max_concurrency, disabled_at IS NOT NULL AS disabled, unapproved_since IS NULL AS approved,"
        " coalesce(limited_until > statement_timestamp(), false) AS limited FROM worker"
        " WHERE id = %(id)s AND token_digest = %(token_digest)s FOR NO KEY UPDATE",
        {"id": worker.id, "token_digest": worker.token_digest},
    )
    if row is None:
        raise bad_token()
    return limits_of(**row, features=features)
