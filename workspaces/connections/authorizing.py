"""Lets a person authorize a connection at its authorization server (SPEC §24; RFC 6749 §4.1, RFC 7636, RFC 9207).

`begin` returns the URL at the server. The server sends the browser back to the connection's own page (`pages.py`), with
a code that `finish` exchanges for tokens. Requests are sent with no transaction open.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from secrets import token_urlsafe
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, Unavailable
from pipedai.crypto import CannotOpen
from pipedai.events import Actor, emit
from pipedai.ids import new_id
from pipedai.sql import database_now
from workspaces.connections import revoking, secrets
from workspaces.connections.clients import (
    Registered,
    document_of,
    redirect_uri_of,
    register_client,
)
from workspaces.connections.discovery import CannotDiscover, Discovered, deadline, discover
from workspaces.connections.grants import store_tokens
from workspaces.connections.models import (
    AUTHORIZATION_SECRETS,
    Authorization,
    AuthorizedClient,
    Connection,
)
from workspaces.connections.secrets import GrantSecrets
from workspaces.connections.services import event_of, lock_connection
from workspaces.connections.tokens import (
    Client,
    NoTokens,
    Tokens,
    ask_for_tokens,
    challenge_of,
    new_verifier,
)
from workspaces.locks import hold_environment, hold_role
from workspaces.roles import Role

# How long a person has at the authorization server (SPEC §24).
_LIFETIME = timedelta(minutes=10)
_NOT_BEGUN = "This was not begun in this browser's session, was finished already, or took more than ten minutes."
# The error codes that a server may send the browser back with are such words (RFC 6749 §4.1.2.1).
_ERROR = re.compile(r"[a-z_]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class Returned:
    """What the browser brought back from an authorization server, by the names of RFC 6749 §4.1.2 and RFC 9207. Each is
    empty if it brought none.
    """

    state: str
    code: str
    error: str
    iss: str


def begin(*, connection_id: UUID, session_id: UUID, actor: Actor) -> str:
    """Returns the URL at the authorization server to which the person's browser is to go. Raises NotFound, Conflict
    (`wrong_grant`, `cannot_discover`), and the errors of `hold_role`.
    """
    with transaction.atomic():
        connection = lock_connection(connection_id, actor)
    if connection.grant_type != Connection.Grant.AUTHORIZATION_CODE:
        raise Conflict(
            f"A connection with the grant {connection.grant_type} needs no authorization.",
            code=ErrorCode.WRONG_GRANT,
        )
    until = deadline()
    try:
        server = discover(connection.mcp_url, with_codes=True, until=until)
        scopes = connection.scopes or server.scopes
        made = _client(connection, server, scopes, until)
    except CannotDiscover as reason:
        raise Conflict(str(reason), code=ErrorCode.CANNOT_DISCOVER) from None
    state, verifier = token_urlsafe(32), new_verifier()
    begun = Authorization(
        id=new_id(),
        environment_id=connection.environment_id,
        connection_id=connection.id,
        state_digest=_digest(state),
        session_id=session_id,
        redirect_uri=redirect_uri_of(connection.id),
        sends_issuer=server.sends_issuer,
        client_id=made.client.id,
        auth_method=made.client.method,
        resource=server.resource,
        issuer=server.issuer,
        token_endpoint=server.token_endpoint,
        revocation_endpoint=server.revocation_endpoint,
    )
    held = GrantSecrets(
        client_secret=made.client.secret,
        registration_token=made.token,
        registration_url=made.url,
        verifier=verifier,
    )
    _keep(begun, held, actor)
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
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"


def find(*, connection_id: UUID, session_id: UUID, state: str) -> Authorization:
    """Returns the authorization that this session has begun for the connection with this state, with its connection and
    its data key. Raises Conflict if there is none: it was finished, is too old, or another session's.
    """
    found = (
        Authorization.objects.filter(
            state_digest=_digest(state),
            connection_id=connection_id,
            session_id=session_id,
            expires_at__gt=Now(),
        )
        .select_related("connection__environment__workspace", "secrets_key")
        .first()
    )
    if found is None:
        raise _cannot(_NOT_BEGUN)
    return found


def finish(*, connection_id: UUID, session_id: UUID, returned: Returned, actor: Actor) -> None:
    """Exchanges the code and stores the tokens. What the browser brought works once, whatever comes of it. Raises
    Conflict with a sentence for people, and the errors of `hold_role`.
    """
    begun, since = _take(connection_id, session_id, returned.state, actor)
    check(begun, returned)
    try:
        held = secrets.authorization_of(begun)
        if begun.connection.client_given:
            held = GrantSecrets(
                client_secret=secrets.grant_of(begun.connection).client_secret,
                verifier=held.verifier,
            )
    except CannotOpen:
        raise Unavailable(
            "The connection's secrets do not open. The service's operators have been alarmed.",
            code=ErrorCode.ENCRYPTION_UNAVAILABLE,
        ) from None
    client = Client(str(begun.client_id), held.client_secret, str(begun.auth_method))
    form = {
        "grant_type": "authorization_code",
        "code": returned.code,
        "redirect_uri": begun.redirect_uri,
        "code_verifier": str(held.verifier),
        "resource": str(begun.resource),
    }
    try:
        tokens = ask_for_tokens(str(begun.token_endpoint), client=client, form=form)
    except NoTokens as reason:
        raise _cannot(f"The authorization server gave no token: {reason}.") from None
    try:
        _store(begun, tokens, held, since, actor)
    except ApiError:
        # The connection is gone, or the person may not connect it any more.
        _give_up(begun, tokens, client)
        raise


def _client(
    connection: Connection, server: Discovered, scopes: Sequence[str], until: float
) -> Registered:
    """Returns who we are to the server: whom a user named, else the connection's client ID metadata document, else a
    client that the server makes. Each authorization makes a new one, as servers forget theirs.
    """
    if connection.client_given:
        has_secret = _has_secret(connection)
        methods = [each for each in server.auth_methods if (each != "none") == has_secret]
        usual = "client_secret_basic" if has_secret else "none"
        client = Client(str(connection.client_id), None, methods[0] if methods else usual)
        return Registered(client, None, None)
    # A document must have an https URL, and its client has no secret (draft-ietf-oauth-client-id-metadata-document).
    is_https = settings.PUBLIC_URL.startswith("https://")
    if server.takes_documents and is_https and "none" in server.auth_methods:
        return Registered(Client(document_of(connection.id), None, "none"), None, None)
    return register_client(
        server, redirect_uri=redirect_uri_of(connection.id), scopes=scopes, until=until
    )


def _has_secret(connection: Connection) -> bool:
    try:
        return secrets.grant_of(connection).client_secret is not None
    except CannotOpen:
        return True


def _keep(begun: Authorization, held: GrantSecrets, actor: Actor) -> None:
    """Stores what was begun, in place of what the session began before for this connection."""
    with transaction.atomic():
        lock_connection(begun.connection_id, actor)
        late = Q(session_id=begun.session_id) | Q(expires_at__lte=Now())
        of_it = {"environment_id": begun.environment_id, "connection_id": begun.connection_id}
        Authorization.objects.filter(late, **of_it).delete()
        sealed = secrets.seal_grant(AUTHORIZATION_SECRETS, begun.environment_id, begun.id, held)
        begun.secrets, begun.secrets_key_id = sealed.box, sealed.data_key_id
        begun.expires_at = database_now() + _LIFETIME
        begun.save(force_insert=True)
        revoking.queue_removal(begun, held)


def _take(
    connection_id: UUID, session_id: UUID, state: str, actor: Actor
) -> tuple[Authorization, datetime]:
    """Returns the authorization, which nobody can take again, and the present time of the database."""
    with transaction.atomic():
        begun = find(connection_id=connection_id, session_id=session_id, state=state)
        hold_environment(begun.environment_id)
        hold_role(actor, begun.environment_id, Role.ADMIN)
        taken, _ = Authorization.objects.filter(id=begun.id).delete()
        if not taken:
            raise _cannot(_NOT_BEGUN)
        return begun, database_now()


def check(begun: Authorization, returned: Returned) -> None:
    """Raises Conflict unless a code came from the server that was asked (RFC 9207 §2.4)."""
    if (begun.sends_issuer or returned.iss) and returned.iss != begun.issuer:
        raise _cannot("The answer did not come from the authorization server that was asked.")
    if returned.error:
        why = returned.error if _ERROR.fullmatch(returned.error) else "it did not say why"
        raise _cannot(f"The authorization server refused ({why}).")
    if not returned.code:
        raise _cannot("The authorization server sent no code.")


def _store(
    begun: Authorization, tokens: Tokens, held: GrantSecrets, since: datetime, actor: Actor
) -> None:
    with transaction.atomic():
        connection = lock_connection(begun.connection_id, actor)
        if connection.client_given:
            # Somebody may have given another secret meanwhile.
            held = replace(held, client_secret=secrets.grant_of(connection).client_secret)
        if held.registration_url and not revoking.keep_client(begun):
            raise _cannot("It took too long.")
        if connection.client_id != begun.client_id:
            # The grant of another client is over. That of the same client may be one with the new one to the server.
            revoking.give_up_grant(connection)
        for column in AuthorizedClient._meta.get_fields():
            setattr(connection, column.name, getattr(begun, column.name))
        connection.connected_by_id, connection.connected_at = actor.id, since
        connection.last_refresh_at = None
        store_tokens(connection, tokens, kept=held, since=since)
        emit(event_of("connection.authorized", connection, actor))


def _give_up(begun: Authorization, tokens: Tokens, client: Client) -> None:
    """Queues the revocation of tokens that nobody shall have. Those of a client by which the connection has others are
    only forgotten: to some servers they are one grant. The removal of a registered client is queued already.
    """
    same = {"id": begun.connection_id, "client_id": client.id, "headers__isnull": False}
    if Connection.objects.filter(**same).exists():
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


def _cannot(sentence: str) -> Conflict:
    again = f"{sentence} Nothing was changed. Begin again at the connection."
    return Conflict(again, code=ErrorCode.LINK_UNUSABLE)


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()
