"""Lets a person authorize a connection at its authorization server (RFC 6749 §4.1, RFC 7636, RFC 9207).

No server is asked here, because a slow one would block a web thread. Instead `begin` and `finish` write down what a
scheduler is to ask (`authorizers.py`), and are called again until there is an answer. The server sends the browser back
to the connection's own page (`pages.py`).
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_urlsafe
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, Unavailable
from pipedai.api.outside_urls import server_of
from pipedai.events import Actor
from pipedai.ids import new_id
from pipedai.server.ticket import ASKING
from pipedai.sql import database_now
from workspaces.connections import secrets
from workspaces.connections.models import Authorization, Connection
from workspaces.connections.secrets import GrantSecrets
from workspaces.connections.servers import redirect_uri_of
from workspaces.connections.services import CONNECTIONS
from workspaces.locks import hold_environment, hold_role
from workspaces.models import Environment
from workspaces.roles import Role

# How long a person may take at the authorization server.
LIFETIME = timedelta(minutes=10)
# How long a scheduler may still begin to ask the servers. The person does not wait longer.
_ASKED_FOR = timedelta(minutes=1)
_NOT_BEGUN = "This was not begun in this browser's session, was finished already, or took more than ten minutes."
# Error codes with which a server may send the browser back have this form (RFC 6749 §4.1.2.1).
_ERROR = re.compile(r"[a-z_]{1,40}", re.ASCII)
_Stage = Authorization.Stage


@dataclass(frozen=True, slots=True, repr=False)
class Returned:
    """What the browser brought back from an authorization server, by the names of RFC 6749 §4.1.2 and RFC 9207. A
    missing value is empty.
    """

    state: str
    code: str
    error: str
    iss: str


@dataclass(frozen=True, slots=True, repr=False)
class Way:
    """The URL at the authorization server to which the person's browser is to go, and the server's issuer."""

    url: str
    issuer: str


def begin(*, connection_id: UUID, session_id: UUID, actor: Actor) -> Way:
    """Returns the way to the authorization server. Raises Unavailable until a scheduler has found it, Conflict
    (`wrong_grant`, `cannot_discover`, `issuer_changed`), NotFound, and the errors of `hold_role`.
    """
    with transaction.atomic():
        connection = CONNECTIONS.lock(connection_id, actor)
        if connection.grant_type != Connection.Grant.AUTHORIZATION_CODE:
            raise Conflict(
                f"A connection with the grant {connection.grant_type} needs no authorization.",
                code=ErrorCode.WRONG_GRANT,
            )
        rows = Authorization.objects.filter(
            environment_id=connection.environment_id, connection_id=connection.id
        )
        begun = (
            rows.filter(session_id=session_id, expires_at__gt=Now())
            .select_related("carried_key")
            .first()
        )
        if begun is not None and begun.stage == _Stage.READY and begun.carried:
            way = Way(secrets.carried_of(begun), str(begun.issuer))
            begun.carried = begun.carried_key = None
            begun.save(update_fields=["carried", "carried_key"])
            return way
        refused = None
        if begun is None or begun.stage != _Stage.ASKED or begun.error:
            rows.filter(Q(session_id=session_id) | Q(expires_at__lte=Now())).delete()
            if begun is not None and begun.stage == _Stage.ASKED:
                refused = refusal_of(begun)
            else:
                _ask(connection, session_id, actor)
    raise refused or _still_asking(connection_id, session_id)


def find(*, connection_id: UUID, session_id: UUID, state: str) -> Authorization:
    """Returns the authorization that this session has begun for the connection with this state, with its connection and
    its data key. Raises Conflict if it was finished, is too old, or belongs to another session.
    """
    found = (
        Authorization.objects.filter(
            state_digest=digest_of(state),
            connection_id=connection_id,
            session_id=session_id,
            stage=_Stage.READY,
            expires_at__gt=Now(),
        )
        .select_related("connection__environment__workspace", "secrets_key")
        .first()
    )
    if found is None:
        raise cannot(_NOT_BEGUN)
    return found


def finish(*, connection_id: UUID, session_id: UUID, returned: Returned, actor: Actor) -> None:
    """Hands the code to a scheduler. Raises Unavailable until the connection has its tokens. A code works once,
    whatever comes of it. Raises Conflict with a sentence for people, and the errors of `hold_role`.
    """
    refused: ApiError | None = None
    with transaction.atomic():
        # The authorization whose code this session has already brought, if this call repeats an earlier one.
        brought = Authorization.objects.filter(
            state_digest=digest_of(returned.state, brought=True),
            connection_id=connection_id,
            session_id=session_id,
        ).first()
        begun = brought or find(
            connection_id=connection_id, session_id=session_id, state=returned.state
        )
        hold_environment(begun.environment_id)
        hold_role(actor, begun.environment_id, Role.ADMIN)
        if brought is None:
            refused = _take(begun, returned, actor)
        elif brought.due_at is None:
            refused = refusal_of(brought) if brought.error else None
            Authorization.objects.filter(id=brought.id).delete()
    if refused is not None:
        raise refused
    if brought is None or brought.stage != _Stage.DONE:
        raise _still_asking(connection_id, session_id)


def _still_asking(connection_id: UUID, session_id: UUID) -> Unavailable:
    """Returns the error to raise while there is no answer. Usually the lane then calls the view again. A caller sees
    the error only outside a lane, or after the last try, which withdraws the authorization unless one has begun.
    """
    sentence = "The server is being asked. Try again in a moment."
    if ticket := ASKING.get():
        ticket.waits = True
        if ticket.workspace_id is None:
            its = Connection.objects.filter(id=connection_id).values("environment_id")
            rows = Environment.objects.filter(id__in=its)
            ticket.workspace_id = rows.values_list("workspace_id", flat=True).first()
        if ticket.is_last:
            # The authorization is withdrawn, unless a scheduler has begun.
            asked = Authorization.objects.filter(connection_id=connection_id, session_id=session_id)
            given_up, _ = asked.filter(due_at__isnull=False, lease_id__isnull=True).delete()
            sentence = (
                "No scheduler of this service has asked the server in time. Nothing was changed. Try again in a moment."
                if given_up
                else "The server has not answered in time. Look at the connection in a moment."
            )
    return Unavailable(sentence, code=ErrorCode.STILL_ASKING)


def check(begun: Authorization, returned: Returned) -> None:
    """Raises Conflict unless the browser brought a code from the server that was asked (RFC 9207 §2.4)."""
    if (begun.sends_issuer or returned.iss) and returned.iss != begun.issuer:
        raise cannot("The answer did not come from the authorization server that was asked.")
    if returned.error:
        why = returned.error if _ERROR.fullmatch(returned.error) else "it did not say why"
        raise cannot(f"The authorization server refused ({why}).")
    if not returned.code:
        raise cannot("The authorization server sent no code.")


def refusal_of(begun: Authorization) -> ApiError:
    """Returns the error that a scheduler has recorded."""
    code = ErrorCode(str(begun.error_code))
    kind = Unavailable if code is ErrorCode.ENCRYPTION_UNAVAILABLE else Conflict
    return kind(str(begun.error), code=code)


def cannot(sentence: str) -> Conflict:
    again = f"{sentence} Nothing was changed. Begin again at the connection."
    return Conflict(again, code=ErrorCode.LINK_UNUSABLE)


def _ask(connection: Connection, session_id: UUID, actor: Actor) -> None:
    """Writes down that a scheduler is to ask the servers of a connection. The authorization has no state yet."""
    begun = Authorization(
        id=new_id(),
        environment_id=connection.environment_id,
        connection_id=connection.id,
        stage=_Stage.ASKED,
        state_digest=digest_of(token_urlsafe(32)),
        session_id=session_id,
        redirect_uri=redirect_uri_of(connection.id),
        sends_issuer=False,
        expires_at=database_now() + _ASKED_FOR,
    )
    secrets.seal_authorization(begun, GrantSecrets())
    _let_ask(begun, connection.mcp_url, actor)
    begun.save(force_insert=True)


def _let_ask(begun: Authorization, url: str, actor: Actor) -> None:
    begun.user_id, begun.address, begun.request_id = actor.id, actor.ip, actor.request_id
    begun.host, begun.due_at, begun.tries = server_of(url), database_now(), 0


def _take(begun: Authorization, returned: Returned, actor: Actor) -> ApiError | None:
    """Stores what the browser brought for a scheduler, so that nobody brings it again. Returns why it is unusable."""
    rows = Authorization.objects.filter(id=begun.id, stage=_Stage.READY)
    if rows.select_for_update().first() is None:
        return cannot(_NOT_BEGUN)
    try:
        check(begun, returned)
    except Conflict as refused:
        rows.delete()
        return refused
    begun.stage, begun.state_digest = _Stage.RETURNED, digest_of(returned.state, brought=True)
    secrets.carry(begun, returned.code)
    _let_ask(begun, str(begun.token_endpoint), actor)
    changed = (
        *("stage", "state_digest", "carried", "carried_key", "user_id", "address"),
        *("request_id", "host", "due_at", "tries"),
    )
    begun.save(update_fields=changed)
    return None


def digest_of(state: str, *, brought: bool = False) -> bytes:
    """Returns the digest of a state. Once a code came it differs, so that older releases don't exchange it too."""
    return hashlib.sha256(state.encode() + (b" brought" if brought else b"")).digest()
