"""Keeps the tokens of connections fresh, in threads of the schedulers.

A claim is a lease of a row, so no two processes ask for the same connection. The new tokens are committed before
anybody uses them. All times are the database's.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from django.db import close_old_connections, connection, transaction
from django.db.models.functions import Now
from django.dispatch import Signal

from pipedai import timeouts
from pipedai.crypto import CannotOpen
from pipedai.events import SYSTEM
from pipedai.logs import get_logger
from pipedai.outgoing.kinds import Queue
from pipedai.outgoing.oauth import (
    GRANT_ENDED,
    CannotDiscover,
    Client,
    NoTokens,
    Tokens,
    ask_for_tokens,
    deadline,
)
from pipedai.outgoing.pool import Lane
from pipedai.sql import NOW, Row, execute
from pipedai.wakeups import announce_things, watches
from workspaces.connections import secrets
from workspaces.connections.models import GRANT_SECRETS, SERVER, Connection
from workspaces.connections.revoking import queue_revocation
from workspaces.connections.secrets import GrantSecrets, store_tokens
from workspaces.connections.servers import discover
from workspaces.connections.services import CONNECTIONS, bind_secret
from workspaces.encryption.keys import unseal_row

# The results of a request for tokens; see `record`.
RESULTS: Final = ("refreshed", "failed", "refused", "overtaken")
# The requests take ten seconds of the lease at most; the rest is for recording the answer if the database is away.
LEASE_SECONDS: Final = 60
# After this many failures in a row a connection is `failing`.
_FAILING_AFTER: Final = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 5, 300

# The longest time for a request of a connection that has no token or whose last request failed.
AILING_SECONDS: Final = 3.0

# Claims due connections, with the data keys of their secrets. A claim that has expired left no record. The CASE makes
# PostgreSQL look the rows up by id, because no index has it.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT d.id, d.lease_id IS NOT NULL AS is_second_try, d.is_second_try AS was_second_try FROM connection d
    WHERE d.id = ANY(%(ids)s) AND d.environment_id = ANY(%(environment_ids)s)
        AND CASE WHEN d.refresh_at <= {NOW} THEN d.leased_until IS NULL OR d.leased_until <= {NOW} ELSE false END
    FOR NO KEY UPDATE OF d SKIP LOCKED),
c AS (
    UPDATE connection c SET lease_id = %(lease_id)s, leased_until = {NOW} + interval '{LEASE_SECONDS} seconds',
        is_second_try = due.is_second_try
    FROM due WHERE c.id = due.id RETURNING c.*, due.was_second_try)
SELECT c.id, c.environment_id, c.mcp_url, c.grant_type, c.scopes, c.client_id, c.auth_method, c.resource, c.issuer,
    c.token_endpoint, c.revocation_endpoint, c.grant_secrets, c.lease_id, c.was_second_try,
    c.headers IS NULL OR c.failures > 0 AS is_ailing, {SERVER} AS host,
    {NOW} AS claimed_at, e.workspace_id, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id
FROM c JOIN environment e ON e.id = c.environment_id LEFT JOIN data_key k ON k.id = c.grant_secrets_key_id
"""  # noqa: S608


class _Due(Queue):
    table = "connection"
    tenants = "environment"
    host = SERVER
    due_at = "refresh_at"
    tries = "failures"
    waits_somewhere = "refresh_at IS NOT NULL"
    is_free = f"(leased_until IS NULL OR leased_until <= {NOW})"
    claims = _CLAIM


class Healthy(_Due):
    """Connections whose token works, and whose last request did not fail."""

    waits = "refresh_at IS NOT NULL AND headers IS NOT NULL AND failures = 0"
    shares = 16
    per_host = 8


class Ailing(_Due):
    """Connections without a token, or whose last request failed. Their own lane keeps them from delaying others."""

    waits = "refresh_at IS NOT NULL AND (headers IS NULL OR failures > 0)"
    shares = 8
    per_host = 4


# A token that came within the last minute stays, because otherwise a server that refuses every token would stop its
# runs again and again. A token that can't be refreshed stays too, and so does one that lives for three minutes at most:
# their `refresh_at` is not before `fresh_until` (`secrets.store_tokens`).
_DISTRUST = """
UPDATE connection SET fresh_until = statement_timestamp()
WHERE id = %(id)s AND date_trunc('milliseconds', access_expires_at) = %(expires_at)s
    AND refresh_at < fresh_until AND fresh_until > statement_timestamp()
    AND greatest(connected_at, last_refresh_at) < statement_timestamp() - interval '1 minute'
"""

# A connection that is being refreshed, or waits after a failure, is left alone: asking at once would not help.
_WANT = """
UPDATE connection SET refresh_at = statement_timestamp()
WHERE id = ANY(%(ids)s) AND refresh_at > statement_timestamp() AND lease_id IS NULL AND failures = 0
"""


@dataclass(frozen=True, slots=True)
class Given:
    """The tokens that a server gave, and what was learned about the server, as columns of the connection."""

    tokens: Tokens
    server: Mapping[str, str | None]
    client: Client


@dataclass(frozen=True, slots=True)
class NotGiven:
    """Why there are no tokens, as a sentence for people. `is_final` says that another request would be in vain, and
    `is_refused` that the server refused for another reason.
    """

    error: str
    is_final: bool = False
    is_refused: bool = False


def want_refresh(connection_ids: Iterable[UUID]) -> None:
    """Makes these connections due now, unless they are being refreshed or wait after a failure. A scheduler looks for
    due ones four times a second.
    """
    execute(_WANT, {"ids": list(connection_ids)})


def distrust_token(connection_id: UUID, expires_at: datetime) -> bool:
    """Marks the token with this expiry as stale, because its MCP server refused it before its time, so that runs wait
    for the next one. Returns False if the token is kept.
    """
    return execute(_DISTRUST, {"id": connection_id, "expires_at": expires_at}) == 1


def ask(claim: Row) -> Given | NotGiven:
    """Requests new tokens for a claimed connection, with no transaction open."""
    is_code = claim["grant_type"] == Connection.Grant.AUTHORIZATION_CODE
    if is_code and claim["was_second_try"]:
        return NotGiven(
            "Two requests for tokens were cut off, so the last token may be lost.", True
        )
    until = deadline(AILING_SECONDS) if claim["is_ailing"] else deadline()
    try:
        held = GrantSecrets()
        if claim["grant_secrets"] is not None:
            held = GrantSecrets(**json.loads(unseal_row(GRANT_SECRETS, claim, claim["id"])))
        if is_code:
            return _refreshed(claim, held, until)
        return _granted(claim, held, until)
    except CannotOpen:
        return NotGiven("The connection's secrets do not open.")
    except CannotDiscover as reason:
        return NotGiven(str(reason))
    except NoTokens as reason:
        error = f"The authorization server gave no token: {reason}."
        return NotGiven(error, reason.code in GRANT_ENDED, reason.code is not None)


def _refreshed(claim: Row, held: GrantSecrets, until: float) -> Given | NotGiven:
    if held.refresh_token is None:
        return NotGiven("The authorization server gave no refresh token.", True)
    client = Client(claim["client_id"], held.client_secret, claim["auth_method"])
    form = {
        "grant_type": "refresh_token",
        "refresh_token": held.refresh_token,
        "resource": claim["resource"],
    }
    tokens = ask_for_tokens(claim["token_endpoint"], client=client, form=form, until=until)
    return Given(tokens, {}, client)


def _granted(claim: Row, held: GrantSecrets, until: float) -> Given | NotGiven:
    """Requests tokens with the client's own credentials. The server is discovered each time, because no person could do
    it again when its endpoints move. The secret is sent only to the first issuer.
    """
    found = discover(claim["mcp_url"], with_codes=False, until=until)
    if not bind_secret(claim["id"], found.issuer, uses=True, lease_id=claim["lease_id"]):
        return NotGiven(
            "The MCP server names another authorization server than before. Enter the client secret again if it is for "
            "that one."
        )
    # This grant needs a client with a secret (RFC 6749 §4.4).
    methods = [method for method in found.auth_methods if method != "none"]
    client = Client(claim["client_id"], held.client_secret, (methods or ["client_secret_basic"])[0])
    form = {"grant_type": "client_credentials", "resource": found.resource}
    if scopes := claim["scopes"] or found.scopes:
        form["scope"] = " ".join(scopes)
    tokens = ask_for_tokens(found.token_endpoint, client=client, form=form, until=until)
    server = {
        "resource": found.resource,
        "issuer": found.issuer,
        "token_endpoint": found.token_endpoint,
        "revocation_endpoint": found.revocation_endpoint,
        "auth_method": client.method,
    }
    return Given(tokens, server, client)


def record(claim: Row, answer: Given | NotGiven) -> str:
    """Records an answer in one transaction. Returns `refreshed`, `failed`, `refused` if only a person can help, or
    `overtaken` if the connection was deleted, authorized anew or claimed again since the claim.
    """
    with transaction.atomic():
        rows = Connection.objects.filter(id=claim["id"])
        held = rows.filter(lease_id=claim["lease_id"])
        connection = held.select_for_update(no_key=True).first()
        if connection is None:
            # Nobody may keep these tokens. But many servers end all grants of a client together, so the tokens are not
            # revoked as long as the connection has the same client.
            has_client = rows.filter(client_id=claim["client_id"]).exists()
            if isinstance(answer, Given) and not has_client:
                _give_up(claim, answer)
            return "overtaken"
        if watches.is_watched(connection.environment_id):
            # Most answers cause no audit event, but an open page must show the connection's new state.
            announce_things(connection.environment_id, "connection", [connection.id])
        if isinstance(answer, Given):
            _store(connection, claim, answer)
            return "refreshed"
        return _note_failure(connection, claim, answer)


def _give_up(claim: Row, answer: Given) -> None:
    tokens = answer.tokens
    queue_revocation(
        environment_id=claim["environment_id"],
        connection_id=claim["id"],
        endpoint=answer.server.get("revocation_endpoint") or claim["revocation_endpoint"],
        client=answer.client,
        access_token=tokens.access_token,
        held=GrantSecrets(refresh_token=tokens.refresh_token),
    )


def _store(connection: Connection, claim: Row, answer: Given) -> None:
    """Stores the tokens. The other secrets are read from the row, because they may have changed since the claim."""
    is_first = connection.headers is None
    for name, value in answer.server.items():
        setattr(connection, name, value)
    if not is_first:
        connection.last_refresh_at = claim["claimed_at"]
    kept = secrets.grant_of(connection)
    store_tokens(connection, answer.tokens, kept=kept, since=claim["claimed_at"])
    if is_first:
        CONNECTIONS.tell("authorized", connection, SYSTEM)


def _note_failure(connection: Connection, claim: Row, answer: NotGiven) -> str:
    """Moves the next request to later, or gives the token up if no request can help. A refusal may be a server's
    mistake, so it is final only the third time, and only once the token has expired.
    """
    connection.failures += 1
    connection.error = answer.error[:300]
    connection.end_claim()
    is_failing = connection.failures >= _FAILING_AFTER
    is_stale = connection.fresh_until is None or connection.fresh_until <= claim["claimed_at"]
    if answer.is_final or (answer.is_refused and is_failing and is_stale):
        connection.status = Connection.Status.NEEDS_LOGIN
        connection.headers = connection.headers_key_id = None
        connection.access_expires_at = connection.fresh_until = connection.refresh_at = None
        connection.save(force_update=True)
        CONNECTIONS.tell("login-needed", connection, SYSTEM, error=connection.error)
        return "refused"
    if is_failing:
        connection.status = Connection.Status.FAILING
    pause = min(_FIRST_PAUSE * 2 ** min(connection.failures - 1, 10), _LONGEST_PAUSE)
    connection.refresh_at = Now() + timedelta(seconds=pause)
    connection.save(force_update=True)
    return "failed"


T = TypeVar("T")

log = get_logger(__name__)

# This signal tells the metrics about each recorded request for tokens, with its `result` and `seconds`.
refreshed = Signal()

_RECORD_AGAIN_SECONDS = 0.5


class Refreshers(Lane):
    """The lane of healthy connections, or of ailing ones."""

    name = "refresher"

    def _do(self, row: Row) -> None:
        begun = time.monotonic()
        try:
            answer = ask(row)
            said = isinstance(answer, Given) or answer.is_refused
            self._remember(row["host"], answered=said, seconds=time.monotonic() - begun)
            until = begun + LEASE_SECONDS
            result = surely(lambda: record(row, answer), until, connection_id=row["id"])
        except Exception:
            log.exception("connection.not_recorded", connection_id=str(row["id"]))
        else:
            seconds = time.monotonic() - begun
            refreshed.send(sender=Refreshers, result=result, seconds=seconds)
            log.info(
                "connection.refreshed",
                connection_id=str(row["id"]),
                result=result,
                error=answer.error if isinstance(answer, NotGiven) else None,
                duration_ms=round(seconds * 1000),
            )
        finally:
            # Most threads wait most of the time, so each closes its database connection before it waits.
            connection.close()
            self._leave(row)


def surely(work: Callable[[], T], until: float, *, connection_id: UUID) -> T:
    """Retries recording an answer until the lease is over. The server may have rotated the refresh token or used the
    code up, so the answer must not be lost while the database is away.
    """
    while True:
        try:
            close_old_connections()
            with timeouts.overriding(timeouts.SENDER):
                return work()
        except Exception as error:
            if time.monotonic() > until:
                raise
            id_, name = str(connection_id), type(error).__name__
            log.warning("connection.not_recorded_yet", connection_id=id_, error=name)
            time.sleep(_RECORD_AGAIN_SECONDS)
