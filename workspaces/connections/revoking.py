"""Ends grants at their authorization servers: revokes tokens (RFC 7009), and removes clients that were registered for a
connection (RFC 7592). The requests are an outbox. Its rows have all that they need, because the connection may be
deleted.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from pipedai.crypto import CannotOpen
from pipedai.ids import new_id
from pipedai.outgoing.kinds import Attempt, CannotSend, Kind, SendStatus
from pipedai.outgoing.oauth import ASKING, Client, authenticated
from pipedai.outgoing.posts import Post, host_of
from pipedai.sql import Row, execute
from workspaces.connections import secrets
from workspaces.connections.models import (
    REVOCATION_REQUEST,
    Authorization,
    Connection,
    Revocation,
    RevocationAttempt,
)
from workspaces.connections.secrets import GrantSecrets
from workspaces.encryption import keys

# A request, in the form of the sealed JSON.
_Request = dict[str, Any]

# A client is removed this long after its authorization has expired. A person who came in time has finished by then.
_FINISHING = timedelta(minutes=1)
# Withdraws a removal, unless a sender has claimed it, which changes its time.
_TAKE_BACK = "DELETE FROM connection_revocation WHERE id = %(id)s AND next_attempt_at = %(due_at)s"


def give_up_grant(connection: Connection) -> None:
    """Queues the requests that end the grant of a connection, and remove its client if the server registered it for us.
    Call it in the transaction that removes or replaces the grant. Secrets that don't open revoke nothing.
    """
    if connection.client_id is None or connection.auth_method is None:
        return
    try:
        held, access_token = secrets.grant_of(connection), secrets.access_token_of(connection)
    except CannotOpen:
        return
    queue_revocation(
        environment_id=connection.environment_id,
        connection_id=connection.id,
        endpoint=connection.revocation_endpoint,
        client=Client(connection.client_id, held.client_secret, connection.auth_method),
        access_token=access_token,
        held=held,
    )


def queue_revocation(
    *,
    environment_id: UUID,
    connection_id: UUID,
    endpoint: str | None,
    client: Client,
    access_token: str | None,
    held: GrantSecrets,
) -> None:
    """Queues the requests that end a grant, in the transaction that gives it up. `endpoint` is the server's URL for
    revocations, or None. The client is removed if `held` has its registration.
    """
    hinted = {"refresh_token": held.refresh_token, "access_token": access_token}
    requests = []
    for hint, token in hinted.items():
        if endpoint and token:
            headers, fields = authenticated(client, {"token": token, "token_type_hint": hint})
            sent = {"headers": headers, "body": urlencode(fields)}
            requests.append({"method": "POST", "url": endpoint, **sent})
    # The removal of the client comes last, because the client authenticates the other requests.
    _queue(environment_id, connection_id, [*requests, *_of_client(held)])


def queue_removal(begun: Authorization, held: GrantSecrets) -> None:
    """Queues the removal of the client that the server registered for an authorization, at a time when nobody can
    finish it any more. Call it in the transaction that stores the authorization. Then only the step that finishes it
    has to keep the client, and a failed authorization leaves none behind.
    """
    due = {"id": begun.id, "next_attempt_at": begun.expires_at + _FINISHING}
    _queue(begun.environment_id, begun.connection_id, _of_client(held), **due)


def give_up_client(environment_id: UUID, connection_id: UUID, held: GrantSecrets) -> None:
    """Queues the removal of a client that was registered for an authorization which no longer exists."""
    _queue(environment_id, connection_id, _of_client(held))


def keep_client(begun: Authorization) -> bool:
    """Withdraws the removal, in the transaction that connects. Returns False if it was too late for that."""
    return execute(_TAKE_BACK, {"id": begun.id, "due_at": begun.expires_at + _FINISHING}) == 1


def _of_client(held: GrantSecrets) -> list[_Request]:
    """Returns the request that removes our client, or nothing if the server gave us no way to do so."""
    if held.registration_url is None:
        return []
    headers = {**ASKING, "Authorization": f"Bearer {held.registration_token}"}
    return [{"method": "DELETE", "url": held.registration_url, "headers": headers, "body": ""}]


def _queue(
    environment_id: UUID, connection_id: UUID, requests: Sequence[_Request], **columns: Any
) -> None:
    """Queues the first request. Its row contains the others, which are queued in turn when the one before has ended."""
    if not requests:
        return
    first, row = requests[0], {"id": new_id(), **columns}
    sealed = keys.seal(REVOCATION_REQUEST, environment_id, row["id"], json.dumps(requests).encode())
    purpose = Revocation.Purpose.CLIENT if first["method"] == "DELETE" else Revocation.Purpose.TOKEN
    Revocation.objects.create(
        **row,
        environment_id=environment_id,
        connection_id=connection_id,
        purpose=purpose,
        host=host_of(first["url"]),
        request=sealed.box,
        request_key_id=sealed.data_key_id,
    )


def _message(row: Row) -> Post:
    try:
        first = _opened(row)[0]
    except CannotOpen:
        raise CannotSend("the request does not open") from None
    return Post(first["url"], first["body"].encode(), first["headers"], first["method"])


def _go_on(attempts: Sequence[Attempt]) -> None:
    """Queues the next requests of those that have ended, even if they were given up."""
    for attempt in attempts:
        if attempt.status is SendStatus.PENDING:
            continue
        row = attempt.row
        try:
            _, *others = _opened(row)
        except CannotOpen:  # Opening them has already logged an alarm.
            continue
        _queue(row["environment_id"], row["connection_id"], others)


def _opened(row: Row) -> list[_Request]:
    return list(json.loads(keys.unseal_row(REVOCATION_REQUEST, row, row["id"])))


REVOCATIONS = Kind(
    "revocation",
    Revocation,
    RevocationAttempt,
    _message,
    _go_on,
    tenants="environment",
    reads="k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id",
    joins="JOIN data_key k ON k.id = d.request_key_id",
    # A server may repeat the token in its answer.
    keeps_answers=False,
    forgets=("request", "request_key_id"),
    shares=4,
    per_host=2,
    recorders=1,
)
