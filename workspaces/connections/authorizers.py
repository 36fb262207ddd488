"""The threads of a scheduler that ask servers on behalf of people who authorize connections.

One lane finds out which requests an authorization server takes, and the other exchanges codes. All schedulers together
work on at most one authorization of a workspace at a time, and on four of a user. A claim is a lease. If a scheduler is
killed, another one repeats its questions, but a code is exchanged at most once, because the claim removes it from the
row.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from secrets import token_urlsafe
from typing import Final
from urllib.parse import urlencode

from django.conf import settings
from django.db import connection as database
from django.db import transaction
from django.db.models import QuerySet

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, Unavailable, or_not_found
from pipedai.crypto import CannotOpen
from pipedai.logs import get_logger
from pipedai.outgoing.kinds import Queue
from pipedai.outgoing.oauth import (
    CannotDiscover,
    Client,
    NoTokens,
    Tokens,
    ask_for_tokens,
    challenge_of,
    deadline,
    new_verifier,
)
from pipedai.outgoing.pool import Lane
from pipedai.sql import NOW, Row, database_now
from pipedai.wakeups import wake_workers
from workspaces.connections import revoking, secrets
from workspaces.connections.authorizing import LIFETIME, cannot, digest_of
from workspaces.connections.models import (
    AUTHORIZATION_CARRIED,
    Authorization,
    AuthorizedClient,
    Connection,
)
from workspaces.connections.refreshing import surely
from workspaces.connections.secrets import GrantSecrets, store_tokens
from workspaces.connections.servers import (
    Discovered,
    Registered,
    discover,
    document_of,
    register_client,
)
from workspaces.connections.services import CONNECTIONS, bind_secret
from workspaces.encryption.keys import unseal_row

log = get_logger(__name__)

# The requests take ten seconds of the lease at most; the rest is for recording the answer if the database is away.
LEASE_SECONDS: Final = 20
# How many times the questions to servers may be begun.
_MOST_TRIES = 2
_MOST_OF_A_USER = 4
# How long a refusal is kept for the person, who may have left the page.
_REFUSAL_KEPT = timedelta(seconds=10)
_Stage = Authorization.Stage

_CLAIM = f"""
WITH free AS MATERIALIZED (
    SELECT id, carried, carried_key_id FROM connection_authorization WHERE id = ANY(%(ids)s) AND due_at <= {NOW}
    FOR UPDATE SKIP LOCKED),
d AS (
    UPDATE connection_authorization a SET lease_id = %(lease_id)s, tries = a.tries + 1,
        leased_until = {NOW} + interval '{LEASE_SECONDS} seconds', carried = NULL, carried_key_id = NULL
    FROM free WHERE a.id = free.id
    RETURNING a.id, a.environment_id, a.connection_id, a.stage, a.host, a.tries, a.lease_id,
        free.carried, free.carried_key_id AS key_id)
SELECT d.*, {NOW} AS claimed_at, e.workspace_id, k.wrapped AS key_wrapped, k.master_key_id
FROM d JOIN environment e ON e.id = d.environment_id LEFT JOIN data_key k ON k.id = d.key_id
"""  # noqa: S608


class _Due(Queue):
    table = "connection_authorization"
    tenants = "environment"
    due_at = "due_at"
    tries = "tries"
    waits_somewhere = "due_at IS NOT NULL"
    is_free = f"""expires_at > {NOW} AND (leased_until IS NULL OR leased_until <= {NOW})
        AND NOT EXISTS (
            SELECT FROM connection_authorization other JOIN environment its ON its.id = other.environment_id
            WHERE other.leased_until > {NOW} AND its.workspace_id = e.workspace_id)
        AND (SELECT count(*) FROM connection_authorization other
            WHERE other.leased_until > {NOW} AND other.user_id = d.user_id) < {_MOST_OF_A_USER}"""  # noqa: S608
    by_whom = "user_id"
    claims = _CLAIM
    one_by_one = True
    shares = 8
    per_host = 4


class ToDiscover(_Due):
    """Authorizations whose servers have not been asked yet."""

    waits = "due_at IS NOT NULL AND stage = 'asked'"


class ToExchange(_Due):
    """Authorizations whose person has brought a code."""

    waits = "due_at IS NOT NULL AND stage = 'returned'"


class Authorizers(Lane):
    """The lane of one step of authorizations."""

    name = "authorizer"

    def _do(self, row: Row) -> None:
        begun = time.monotonic()
        try:
            # A thread that waits for a server must not keep a database connection, because many threads wait at once.
            until, id_ = begun + LEASE_SECONDS, row["connection_id"]
            refused = carry_out(
                row,
                pause=database.close,
                keep=lambda record: surely(record, until, connection_id=id_),
            )
        except Exception:
            # When the lease has expired, another scheduler asks again, or records that the authorization has ended.
            log.exception("authorization.not_recorded", authorization_id=str(row["id"]))
        else:
            seconds = time.monotonic() - begun
            self._remember(row["host"], answered=refused is None, seconds=seconds)
            log.info(
                "authorization.asked",
                authorization_id=str(row["id"]),
                stage=row["stage"],
                error=refused.code.value if refused else None,
                duration_ms=round(seconds * 1000),
            )
        finally:
            database.close()
            self._leave(row)


def carry_out(
    row: Row,
    *,
    pause: Callable[[], None],
    keep: Callable[[Callable[[], ApiError | None]], ApiError | None],
) -> ApiError | None:
    """Sends the requests of a claimed row and records the answer. Returns why there is no answer, which it records too.
    It calls `pause` before it asks a server, and gives `keep` the function that records the answer.
    """
    begun = _claimed(row).select_related("connection", "secrets_key").first()
    if begun is None:
        return None
    step = _discover if begun.stage == _Stage.ASKED else _exchange
    try:
        record = step(row, begun, pause)
        refused = keep(lambda: _refusal(record))
    except ApiError as error:
        refused = error
    if refused is not None:
        keep(lambda: _refuse(row, refused))
    return refused


def _refusal(record: Callable[[], None]) -> ApiError | None:
    """Records an answer. Returns the error of a refusal, because recording the answer again would fail as well."""
    try:
        record()
    except ApiError as error:
        return error
    return None


def _discover(row: Row, begun: Authorization, pause: Callable[[], None]) -> Callable[[], None]:
    """Discovers the authorization server. Returns the function that stores the way there. Raises Conflict."""
    if row["tries"] > _MOST_TRIES:
        raise Conflict(
            "Two schedulers ended while they asked the servers. Try again.",
            code=ErrorCode.CANNOT_DISCOVER,
        )
    connection = begun.connection
    has_secret = connection.client_given and _has_secret(connection)
    pause()
    until = deadline()
    try:
        server = discover(connection.mcp_url, with_codes=True, until=until)
        scopes = connection.scopes or server.scopes
        made = _client(begun, server, scopes, has_secret=has_secret, until=until)
    except CannotDiscover as reason:
        raise Conflict(str(reason), code=ErrorCode.CANNOT_DISCOVER) from None
    state, verifier = token_urlsafe(32), new_verifier()
    begun.stage, begun.state_digest = _Stage.READY, digest_of(state)
    begun.sends_issuer = server.sends_issuer
    begun.client_id, begun.auth_method = made.client.id, made.client.method
    begun.resource, begun.issuer = server.resource, server.issuer
    begun.token_endpoint = server.token_endpoint
    begun.revocation_endpoint = server.revocation_endpoint
    held = GrantSecrets(
        client_secret=made.client.secret,
        registration_token=made.token,
        registration_url=made.url,
        verifier=verifier,
    )
    asked = {
        "response_type": "code",
        "client_id": made.client.id,
        "redirect_uri": begun.redirect_uri,
        "state": state,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
        "resource": server.resource,
    }
    if scopes:
        asked["scope"] = " ".join(scopes)
    endpoint = server.authorization_endpoint or ""
    url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    def record() -> None:
        if has_secret and not bind_secret(connection.id, server.issuer, uses=False):
            raise _issuer_changed(server.issuer)
        _keep(row, begun, held, url)

    return record


def _keep(row: Row, begun: Authorization, held: GrantSecrets, url: str) -> None:
    with transaction.atomic():
        if not _lock(row):
            # The authorization was begun anew, or its connection is gone, so nobody can use its client.
            revoking.give_up_client(begun.environment_id, begun.connection_id, held)
            return
        secrets.seal_authorization(begun, held)
        secrets.carry(begun, url)
        begun.expires_at = database_now() + LIFETIME
        _end_claim(begun)
        begun.save(force_update=True)
        revoking.queue_removal(begun, held)
        wake_workers([begun.connection_id])


def _exchange(row: Row, begun: Authorization, pause: Callable[[], None]) -> Callable[[], None]:
    """Exchanges the code. Returns the function that stores the tokens. Raises Conflict, other ApiErrors."""
    if row["carried"] is None:
        raise cannot("The scheduler that exchanged the code ended before it had finished.")
    try:
        code = unseal_row(AUTHORIZATION_CARRIED, row, row["id"]).decode()
        held = _with_given_secret(begun, secrets.authorization_of(begun))
    except CannotOpen:
        raise Unavailable(
            "The connection's secrets do not open. The service's operators have been alarmed.",
            code=ErrorCode.ENCRYPTION_UNAVAILABLE,
        ) from None
    client = Client(str(begun.client_id), held.client_secret, str(begun.auth_method))
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": begun.redirect_uri,
        "code_verifier": str(held.verifier),
        "resource": str(begun.resource),
    }
    pause()
    try:
        tokens = ask_for_tokens(str(begun.token_endpoint), client=client, form=form)
    except NoTokens as reason:
        raise cannot(f"The authorization server gave no token: {reason}.") from None

    def record() -> None:
        try:
            _store(row, begun, tokens, held)
        except ApiError:
            # The connection is gone, or the person may not connect it any more, so nobody may keep the tokens.
            _give_up(begun, tokens, client)
            raise

    return record


def _with_given_secret(begun: Authorization, held: GrantSecrets) -> GrantSecrets:
    """Adds the client secret that a user gave, and ties the secret to this issuer. Raises CannotOpen, and Conflict if
    the secret belongs to another issuer.
    """
    if not begun.connection.client_given:
        return held
    with transaction.atomic():
        # The lock keeps everybody from setting another secret between the check and the use of this one.
        rows = Connection.objects.select_for_update(no_key=True).filter(id=begun.connection_id)
        connection = or_not_found(rows.first())
        secret = secrets.grant_of(connection).client_secret
        is_its = secret is None or bind_secret(connection.id, str(begun.issuer), uses=True)
    if not is_its:
        raise _issuer_changed(str(begun.issuer))
    return GrantSecrets(client_secret=secret, verifier=held.verifier)


def _store(row: Row, begun: Authorization, tokens: Tokens, held: GrantSecrets) -> None:
    with transaction.atomic():
        connection = CONNECTIONS.lock(begun.connection_id, begun.actor)
        if not _claimed(row).select_for_update().exists():
            raise cannot("It took too long.")
        if connection.client_given:
            # A user may have set another secret since the lane read it.
            held = replace(held, client_secret=secrets.grant_of(connection).client_secret)
        if held.registration_url and not revoking.keep_client(begun):
            raise cannot("It took too long.")
        if (connection.client_id, connection.issuer) != (begun.client_id, begun.issuer):
            # The grant of another client, or at another server, is revoked. An old grant of the same client is kept,
            # because the server may treat it and the new one as one grant.
            revoking.give_up_grant(connection)
        for column in AuthorizedClient._meta.get_fields():
            setattr(connection, column.name, getattr(begun, column.name))
        since = row["claimed_at"]
        connection.connected_by_id, connection.connected_at = begun.user_id, since
        connection.last_refresh_at = None
        store_tokens(connection, tokens, kept=held, since=since)
        begun.stage = _Stage.DONE
        _end_claim(begun)
        begun.save(update_fields=_CLAIMED)
        CONNECTIONS.tell("authorized", connection, begun.actor)
        wake_workers([connection.id])


def _give_up(begun: Authorization, tokens: Tokens, client: Client) -> None:
    """Queues the revocation of tokens that nobody may keep. If the connection has other tokens of the same client,
    these are not revoked but forgotten, because some servers would end both. A registered client's removal is
    queued.
    """
    same = {"id": begun.connection_id, "client_id": client.id, "issuer": begun.issuer}
    if Connection.objects.filter(headers__isnull=False, **same).exists():
        return
    with transaction.atomic():
        revoking.queue_revocation(
            environment_id=begun.environment_id,
            connection_id=begun.connection_id,
            endpoint=begun.revocation_endpoint,
            client=client,
            access_token=tokens.access_token,
            held=GrantSecrets(refresh_token=tokens.refresh_token),
        )


def _refuse(row: Row, error: ApiError) -> None:
    """Records why the step failed, for the person who waits."""
    with transaction.atomic():
        if not _lock(row):
            return
        begun = _claimed(row).get()
        begun.error, begun.error_code = error.message[:400], error.code
        if begun.stage == _Stage.ASKED:
            begun.expires_at = database_now() + _REFUSAL_KEPT
        _end_claim(begun)
        begun.save(update_fields=[*_CLAIMED, "error", "error_code", "expires_at"])
        wake_workers([begun.connection_id])


# The columns that `_end_claim` changes, and the stage.
_CLAIMED = ("stage", "due_at", "lease_id", "leased_until")


def _end_claim(begun: Authorization) -> None:
    begun.due_at = begun.lease_id = begun.leased_until = None


def _claimed(row: Row) -> QuerySet[Authorization]:
    return Authorization.objects.filter(id=row["id"], lease_id=row["lease_id"])


def _lock(row: Row) -> bool:
    """Locks the connection and then the authorization, and returns whether the claim still holds."""
    locked = Connection.objects.select_for_update(no_key=True).filter(id=row["connection_id"])
    return locked.first() is not None and _claimed(row).select_for_update().first() is not None


def _issuer_changed(issuer: str) -> Conflict:
    return Conflict(
        f"The MCP server names the authorization server {issuer} now, and the client secret belongs to another one. "
        "Enter the client secret again if it is for that one, and then connect.",
        code=ErrorCode.ISSUER_CHANGED,
    )


def _client(
    begun: Authorization,
    server: Discovered,
    scopes: Sequence[str],
    *,
    has_secret: bool,
    until: float,
) -> Registered:
    """Returns the client as which the service appears at the server: the one that a user gave, else the connection's
    client ID metadata document, else one that the server makes. Each authorization makes a new one, because servers
    forget them.
    """
    connection = begun.connection
    if connection.client_given:
        methods = [each for each in server.auth_methods if (each != "none") == has_secret]
        usual = "client_secret_basic" if has_secret else "none"
        client = Client(str(connection.client_id), None, methods[0] if methods else usual)
        return Registered(client, None, None)
    # A document must have an https URL, and its client has no secret (draft-ietf-oauth-client-id-metadata-document).
    is_https = settings.PUBLIC_URL.startswith("https://")
    if server.takes_documents and is_https and "none" in server.auth_methods:
        return Registered(Client(document_of(connection.id), None, "none"), None, None)
    return register_client(server, redirect_uri=begun.redirect_uri, scopes=scopes, until=until)


def _has_secret(connection: Connection) -> bool:
    try:
        return secrets.grant_of(connection).client_secret is not None
    except CannotOpen:
        return True
