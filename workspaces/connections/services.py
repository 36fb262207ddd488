"""Creates, changes and deletes connections (SPEC §24), each with its audit event in the same transaction."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid, NotFound
from pipedai.api.renderers import api_name, counted
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.redaction import REDACTED
from pipedai.sql import fetch_one
from workspaces.ceilings import check_ceiling
from workspaces.connections import secrets
from workspaces.connections.models import Connection
from workspaces.files.columns import keeping_keys
from workspaces.locks import hold_environment, hold_role, lock_environment
from workspaces.roles import Role

_HOLD = """
SELECT mcp_url FROM connection
WHERE environment_id = %(environment_id)s AND id = %(connection_id)s FOR KEY SHARE
"""


def create_connection(*, environment_id: UUID, values: dict[str, Any], actor: Actor) -> UUID:
    """Creates a connection from a ConnectionBody's values, seals its headers, and returns its id. Raises NotFound,
    CeilingReached, and the errors of `hold_role`.
    """
    columns = {name: value for name, value in values.items() if name != "headers"}
    connection = Connection(id=new_id(), environment_id=environment_id, **columns)
    with keeping_keys():
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        rows = Connection.objects.filter(environment_id=environment_id)
        check_ceiling("connections", "connections", environment_id=environment_id, rows=rows)
        _seal(connection, values["headers"])
        connection.save(force_insert=True)
        metadata = {"name": connection.name, "grant": connection.grant_type}
        emit(_event("connection.created", connection, actor, metadata))
    return connection.id


def update_connection(*, connection_id: UUID, values: dict[str, Any], actor: Actor) -> None:
    """Changes the given values. Runs that are handed out from now on get new headers, whichever trigger they are of.
    Raises NotFound, Invalid for what is fixed, and the errors of `hold_role`.
    """
    with keeping_keys():
        connection = _locked(connection_id, actor, no_key=True)
        _check_fixed(connection, values)
        changes: dict[str, Any] = {}
        for name in ("name", "key", "managed_by"):
            old = getattr(connection, name)
            if (new := values.get(name, old)) != old:
                changes[api_name(name)] = [old, new]
                setattr(connection, name, new)
        if "headers" in values:
            changes["headers"] = REDACTED
            _seal(connection, values["headers"])
        if changes:
            connection.updated_at = Now()
            connection.save(force_update=True)
            emit(_event("connection.updated", connection, actor, changes))


def delete_connection(*, connection_id: UUID, actor: Actor) -> None:
    """Removes a connection and its secrets. Raises NotFound, Conflict while triggers use it, and the errors of
    `hold_role`.
    """
    with transaction.atomic():
        # This lock waits for transactions that give the connection to a trigger.
        connection = _locked(connection_id, actor, no_key=False)
        if users := connection.triggers.count():
            raise Conflict(
                f"The connection still has {counted(users, 'trigger')}.",
                code=ErrorCode.HAS_CHILDREN,
            )
        Connection.objects.filter(id=connection.id).delete()
        emit(_event("connection.deleted", connection, actor, {"name": connection.name}))


def hold_connection(environment_id: UUID, connection_id: UUID) -> str | None:
    """Returns the URL of a connection, and keeps the connection from being deleted. None if there is no such one."""
    params = {"environment_id": environment_id, "connection_id": connection_id}
    row = fetch_one(_HOLD, params)
    return row["mcp_url"] if row else None


def _locked(connection_id: UUID, actor: Actor, *, no_key: bool) -> Connection:
    rows = Connection.objects.filter(id=connection_id)
    environment_id = rows.values_list("environment_id", flat=True).first()
    if environment_id is None:
        raise NotFound
    hold_environment(environment_id)
    hold_role(actor, environment_id, Role.ADMIN)
    connection = rows.select_for_update(no_key=no_key).first()
    if connection is None:
        raise NotFound
    return connection


def _check_fixed(connection: Connection, values: dict[str, Any]) -> None:
    fixed = {"mcpUrl": "mcp_url", "grant": "grant_type"}
    wrong = {
        name: ["It can't be changed."]
        for name, column in fixed.items()
        if values.get(column, getattr(connection, column)) != getattr(connection, column)
    }
    if wrong:
        raise Invalid(wrong)


def _seal(connection: Connection, headers: dict[str, str]) -> None:
    sealed = secrets.seal_headers(connection.environment_id, connection.id, headers)
    connection.headers, connection.headers_key_id = sealed.box, sealed.data_key_id


def _event(action: str, connection: Connection, actor: Actor, metadata: dict[str, Any]) -> Event:
    return Event(action, actor, connection.environment_id, "connection", connection.id, metadata)
