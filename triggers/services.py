"""Creates, changes and deletes triggers, each with its audit event in the same transaction.

An environment, and the creator of its workspace, may have only so many triggers.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import transaction
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict, Invalid, Unavailable, or_not_found
from pipedai.api.outside_urls import is_elsewhere, without_query
from pipedai.api.renderers import api_name, compact_json, counted, for_audit
from pipedai.clocks import BadTimezone
from pipedai.crypto import CannotOpen
from pipedai.events import Actor, Event, emit, is_rehearsal, keep, once
from pipedai.ids import new_id
from pipedai.redaction import REDACTED
from pipedai.sql import database_now, execute, fetch_row
from triggers.approvals.rules import rules_about
from triggers.events.listening import check_unheard, set_listeners
from triggers.locks import hold_trigger_environment, lock_workers
from triggers.models import MAX_CONCURRENT_RUNS, REVISED, Trigger, TriggerRevision
from triggers.models.trigger import MCP_HEADERS, WEBHOOK_SECRET
from triggers.runs.routing import give_trigger_slots, prefer_anew, reassign_queued_runs, wake_for
from triggers.runs.waiting import note_change
from triggers.schedules import cron
from workspaces.ceilings import PROFILE, Room, check_ceiling
from workspaces.connections.models import MAX_HEADERS_BYTES
from workspaces.connections.services import hold_connection
from workspaces.encryption.keys import seal_into, unseal_from
from workspaces.locks import hold_pools, hold_role, lock_environment
from workspaces.resources import Resource
from workspaces.roles import Role
from workspaces.tenant_columns import keeping_keys

# The values of a TriggerBody that are not stored unchanged in the table `trigger`: secrets, which are encrypted first,
# the columns of the trigger's revision, and `on`, which has rows of its own. All other values need no code of their own
# here: they are copied to the column with the same name, and written to the audit log under their API name.
_NO_COLUMNS = frozenset({"mcp_headers", "mcp_headers_mode", "webhook_secret", "on", *REVISED})

# For each column of a URL, the secrets that may only go to the server of this URL.
_SECRETS_OF_URLS = {"mcp_url": "mcp_headers", "webhook_url": "webhook_secret"}


class Triggers(Resource[Trigger]):
    noun = "trigger"
    model = Trigger
    # A transaction that queues a run locks the trigger FOR SHARE. A deletion waits for such transactions, and makes
    # later ones wait until the trigger is deleted, so that no run is queued for a deleted trigger.
    is_referred_to = True
    # A deleted trigger does not need its MCP headers any more. The webhook's secret stays, because it must sign the
    # deliveries that are still pending.
    emptied = ("next_run_at", "connection", "mcp_headers", "mcp_header_names", "mcp_key")

    def create(
        self, *, environment_id: UUID, values: dict[str, Any], actor: Actor, id_: UUID | None = None
    ) -> UUID:
        """Creates a trigger from a TriggerBody's values, and encrypts its secrets. Returns its id, which is `id_` if
        that is given. Raises NotFound, Invalid for a missing worker, pool or connection or a schedule that never comes
        due, CeilingReached, and the errors of `hold_role` and `set_listeners`.
        """
        next_run_at = _next_run_at(values)
        with keeping_keys():
            lock_environment(environment_id)
            hold_role(actor, environment_id, Role.ADMIN)
            check_room_for_trigger(environment_id)
            _check_worker(environment_id, values["worker_id"])
            _check_pool(environment_id, values["pool_id"])
            columns = _columns_of(_with_url_of_connection(environment_id, values))
            trigger = Trigger(
                id=id_ or new_id(),
                environment_id=environment_id,
                revision_id=new_id(),
                next_run_at=next_run_at,
                changed_by=actor.id,
                **columns,
            )
            _seal_headers(trigger, values["mcp_headers"])
            _seal_secret(trigger, values["webhook_secret"])
            trigger.save(force_insert=True)
            _check_look(values["before"], trigger)
            _revise(trigger, actor, {name: values[name] for name in REVISED})
            if values["on"]:
                set_listeners(trigger, values["on"])
            self.emit("created", trigger, actor, {"name": trigger.name})
        return trigger.id

    def update(
        self,
        row_id: UUID,
        *,
        values: dict[str, Any],
        actor: Actor,
        environment_id: UUID | None = None,
        restored_id: UUID | None = None,
    ) -> None:
        """Changes the given values of a trigger, which are validated as for a TriggerBody. A value that is equal to the
        present one changes nothing.

        A secret that is absent from `values` stays; one that is null or empty is removed, unless headers are merged. If
        `mcp_url` or `webhook_url` moves to another origin without a new secret, its secret is removed, because it is
        only for the server that it was given for. For the same reason the headers are removed if the connection changes
        or is removed. If the trigger gets another worker or pool, its queued runs move there. `restored_id` names the
        revision that is restored, for the audit row. Raises NotFound, Invalid, and whatever `hold_role` and
        `set_listeners` raise.
        """
        with keeping_keys():
            trigger = _locked(row_id, actor, values, environment_id)
            changes = self.apply(trigger, values, actor)
            if "on" in values and (both := set_listeners(trigger, values["on"])):
                changes["on"] = [for_audit(entries) for entries in both]
            if not changes:
                return
            if changes.keys() & {"enabled", "schedule", "timezone", "runOnceAt"}:
                changes |= _without_past_once(trigger, changes)
                trigger.next_run_at = _next_run_at(vars(trigger))
            trigger.updated_at = Now()
            trigger.save(force_update=True)
            if changes.keys() & {"workerId", "poolId"}:
                reassign_queued_runs(trigger_id=trigger.id)
            elif "preferSeconds" in changes:
                prefer_anew(trigger_id=trigger.id)
            if "maxConcurrentRuns" in changes:
                _adjust_slots(trigger, *changes["maxConcurrentRuns"])
            _note_change(trigger, actor)
            restored = {"restoredRevisionId": str(restored_id)} if restored_id else {}
            self.emit("updated", trigger, actor, changes | restored)

    def apply(self, trigger: Trigger, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Writes the values to the trigger, and returns the changes without secrets."""
        if "connection_id" in values or "mcp_url" in values:
            values = {"connection_id": trigger.connection_id, **values}
            values = _with_url_of_connection(trigger.environment_id, values)
        old_urls = {url: getattr(trigger, url) for url in _SECRETS_OF_URLS}
        changes = super().apply(trigger, _columns_of(values), actor)
        lost = {"mcp_headers"} if "connectionId" in changes else set()
        for url, secret in _SECRETS_OF_URLS.items():
            old = old_urls[url]
            if (
                api_name(url) in changes
                and old is not None
                and is_elsewhere(old, getattr(trigger, url))
            ):
                lost.add(secret)
        if values.get("mcp_headers_mode") == "merge" and values.get("mcp_headers") is not None:
            values = _with_merged_headers(trigger, values, is_empty="mcp_headers" in lost)
        values = {**dict.fromkeys(lost), **values}
        if "mcp_headers" in values and (values["mcp_headers"] or trigger.mcp_headers is not None):
            _seal_headers(trigger, values["mcp_headers"])
            changes["mcpHeaders"] = REDACTED
        if "webhook_secret" in values and (
            values["webhook_secret"] or trigger.webhook_secret is not None
        ):
            _seal_secret(trigger, values["webhook_secret"])
            changes["webhookSecret"] = REDACTED
        changes |= _apply_revision(trigger, values, actor)
        if changes.keys() & {"before", "approvals", "mcpUrl"}:
            _check_look(values.get("before", trigger.revision.before), trigger)
        return changes

    def shown(self, column: str, value: Any) -> Any:
        """Returns a value for the audit row. A URL loses its query, which may contain a secret."""
        is_url = column.endswith("_url") and isinstance(value, str)
        return without_query(value) if is_url else super().shown(column, value)

    def release(self, trigger: Trigger) -> None:
        """Removes a deleted trigger's listeners; its runs stay. Raises Conflict if a run is unfinished."""
        unfinished = trigger.runs.filter(ended_at__isnull=True).count()
        if unfinished:
            raise Conflict(
                f"The trigger still has {counted(unfinished, 'unfinished run')}.",
                code=ErrorCode.UNFINISHED_RUNS,
            )
        check_unheard(trigger.id)
        trigger.listeners.all().delete()


TRIGGERS = Triggers()


def rotate_mcp_token(*, trigger_id: UUID, mcp_headers: dict[str, str], actor: Actor) -> None:
    """Replaces the MCP headers. Runs that are given to workers from now on get the new ones. Raises NotFound."""
    with transaction.atomic():
        trigger = _locked(trigger_id, actor)
        _seal_headers(trigger, mcp_headers)
        trigger.updated_at = Now()
        trigger.save(update_fields=["mcp_headers", "mcp_header_names", "mcp_key", "updated_at"])
        _note_change(trigger, actor)
        emit(Event("mcp-token.rotated", actor, trigger.environment_id, "trigger", trigger.id, {}))


def _locked(
    trigger_id: UUID,
    actor: Actor,
    values: Mapping[str, Any] = MappingProxyType({}),
    environment_id: UUID | None = None,
) -> Trigger:
    """Locks a trigger and returns it. Before that it locks the environment, the actor's role, and the worker and pool
    among the trigger's new values, because these come before triggers in the order of locks.

    If the values limit how many runs may be held at once, it locks all workers of the environment, and keeps others
    from registering. Then no claim is under way, so that each held run can get a slot of the trigger. If the values
    change `on`, it locks the environment alone, so that no two changes together make a circle.
    """
    is_limited = values.get("max_concurrent_runs") is not None
    alone = is_limited or "on" in values
    environment_id = hold_trigger_environment(trigger_id, actor, environment_id, alone=alone)
    if is_limited:
        once(("workers", environment_id), lambda: lock_workers(environment_id))
    _check_worker(environment_id, values.get("worker_id"))
    _check_pool(environment_id, values.get("pool_id"))
    # A later statement reads the trigger's revision. If this statement joined the revision and had to wait for the
    # trigger's lock, it would return the revision that was current before the wait.
    rows = Trigger.objects.select_for_update(no_key=True)
    row = rows.filter(id=trigger_id, deleted_at__isnull=True)
    return or_not_found(once(("trigger", trigger_id), row.first))


def keep_triggers(trigger_ids: Collection[UUID]) -> None:
    """Reads triggers that are locked already, with their revisions, so that several changes need not read each."""
    for trigger in Trigger.objects.filter(id__in=trigger_ids).select_related("revision"):
        keep(("trigger", trigger.id), trigger)


def _apply_revision(trigger: Trigger, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """Makes a new revision if a column of it changes. Queued runs keep the revision that they have."""
    old = {name: getattr(trigger.revision, name) for name in REVISED}
    new = {name: values.get(name, value) for name, value in old.items()}
    # The values are compared as JSON text, because in Python 1, 1.0 and True are equal.
    changes = {
        api_name(name): [for_audit(value), for_audit(new[name])]
        for name, value in old.items()
        if compact_json(new[name]) != compact_json(value)
    }
    if changes:
        revision_id = new_id()
        trigger.revision_id = revision_id
        _revise(trigger, actor, new)
    return changes


def _check_look(before: dict[str, Any] | None, trigger: Trigger) -> None:
    """Raises Invalid if runs are to look for something new without a server, or by a call that a person approves."""
    if before and trigger.mcp_url is None:
        raise Invalid({"before": ["The trigger has no MCP server."]})
    always = [rule for rule in trigger.approvals or () if rule["when"] == "always"]
    if before and rules_about(before["tool"], always):
        raise Invalid({"before": ["Its tool needs an approval by the trigger's rules."]})


def _adjust_slots(trigger: Trigger, old: int | None, new: int | None) -> None:
    """Gives the trigger's held runs their slots if it gets a limit of such runs, and wakes workers that may take
    further runs if the limit grows.
    """
    if old is None:
        give_trigger_slots(environment_id=trigger.environment_id, trigger_id=trigger.id)
    elif new is None or new > old:
        one = {"worker_id": trigger.worker_id, "pool_id": trigger.pool_id}
        wake_for([one] * ((new or MAX_CONCURRENT_RUNS) - old))


def _note_change(trigger: Trigger, actor: Actor) -> None:
    note_change(environment_id=trigger.environment_id, trigger_ids=[trigger.id], actor=actor)


def _columns_of(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _NO_COLUMNS}


def _revise(trigger: Trigger, actor: Actor, values: dict[str, Any]) -> None:
    TriggerRevision.objects.create(
        id=trigger.revision_id,
        environment_id=trigger.environment_id,
        trigger_id=trigger.id,
        **values,
        created_by_type=actor.type,
        created_by_id=actor.id,
    )


def _without_past_once(trigger: Trigger, changes: dict[str, Any]) -> dict[str, Any]:
    """Removes the single due time of a trigger that has just been enabled, if the time has passed, since due times of a
    disabled trigger are lost. Returns the change. If the trigger was enabled before, a scheduler decides about the
    time.
    """
    once = trigger.run_once_at
    if "enabled" not in changes or not trigger.enabled or once is None or once > database_now():
        return {}
    trigger.run_once_at = None
    return {"runOnceAt": [for_audit(once), None]}


def _next_run_at(values: dict[str, Any]) -> datetime | None:
    """Returns the next due time by the schedule, or the single one if that is earlier. The single one may have passed,
    if no scheduler has decided about it yet.
    """
    schedule, moment = values["schedule"], values["run_once_at"]
    if not values["enabled"] or schedule is None:
        return moment if values["enabled"] else None
    try:
        following = cron.parse(schedule, values["timezone"]).next_after(once("now", database_now))
        return min(following, moment or following)
    except cron.BadSchedule as error:
        raise Invalid({"schedule": [str(error)]}) from None
    except BadTimezone as error:
        # This happens if the time zone was removed from the zone database after it was stored.
        raise Invalid({"timezone": [str(error)]}) from None


def _with_url_of_connection(environment_id: UUID, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with the URL of the connection that they name, if any, and keeps the connection from being
    deleted. Raises Invalid if the environment has no such connection, or the values have another URL.
    """
    if values["connection_id"] is None:
        return values
    url = hold_connection(environment_id, values["connection_id"])
    if url is None:
        raise Invalid({"connectionId": ["No such connection in this environment."]})
    if values.get("mcp_url") not in (None, url):
        raise Invalid({"mcpUrl": ["The trigger's connection is for another URL. Leave it out."]})
    return {**values, "mcp_url": url}


def _with_merged_headers(
    trigger: Trigger, values: dict[str, Any], *, is_empty: bool
) -> dict[str, Any]:
    """Returns the values with all headers that the trigger has after the merge, or without headers if these don't
    change. `is_empty` says that the trigger loses its present headers. Raises Invalid, and Unavailable if these can't
    be decrypted.
    """
    given = values["mcp_headers"]
    try:
        sealed = None if is_empty else unseal_from(MCP_HEADERS, trigger)
    except CannotOpen:
        raise Unavailable(
            "The trigger's headers can't be decrypted: an operator has to mend that, or you replace all of them.",
            code=ErrorCode.ENCRYPTION_UNAVAILABLE,
            retry_after=60,
        ) from None
    old: dict[str, str] = json.loads(sealed or "{}")
    named = {name.lower() for name in given}
    both = {name: old[name] for name in old if name.lower() not in named} | given
    merged = {name: value for name, value in both.items() if value is not None}
    if sum(map(len, (*merged, *merged.values()))) > MAX_HEADERS_BYTES:
        raise Invalid({"mcpHeaders": ["Must not be longer than 8 KiB in all."]})
    values = {name: value for name, value in values.items() if name != "mcp_headers"}
    return values if merged == old else {**values, "mcp_headers": merged}


def _seal_headers(trigger: Trigger, headers: dict[str, str] | None) -> None:
    """Raises Invalid for a trigger without a server, or with a connection and an `Authorization` of its own."""
    if headers and trigger.mcp_url is None:
        raise Invalid({"mcpHeaders": ["There is no MCP server to send them to: give mcpUrl."]})
    if trigger.connection_id and "authorization" in map(str.lower, headers or ()):
        raise Invalid({"mcpHeaders": ["The trigger's connection has the Authorization."]})
    trigger.mcp_headers, trigger.mcp_header_names, trigger.mcp_key_id = None, None, None
    if headers:
        trigger.mcp_header_names = list(headers)
        seal_into(MCP_HEADERS, trigger, json.dumps(headers).encode())


def _seal_secret(trigger: Trigger, secret: str | None) -> None:
    trigger.webhook_secret, trigger.webhook_key_id = None, None
    if secret:
        seal_into(WEBHOOK_SECRET, trigger, secret.encode())


def _check_pool(environment_id: UUID, pool_id: UUID | None) -> None:
    """Keeps the pool from being deleted. Raises Invalid if the environment has no such pool."""
    if pool_id is not None and not hold_pools(environment_id, [pool_id]):
        raise Invalid({"poolId": ["No such pool in this environment."]})


def _check_worker(environment_id: UUID, worker_id: UUID | None) -> None:
    if worker_id is None:
        return
    workers = apps.get_model("workers", "Worker")._default_manager
    found = workers.select_for_update(no_key=True).filter(
        environment_id=environment_id, id=worker_id, deleted_at__isnull=True
    )
    if not once(("worker", environment_id, worker_id), found.exists):
        raise Invalid({"workerId": ["No such machine in this environment."]})


# Requests that create triggers in the workspaces of one user run one after another by this advisory lock, so that two
# at once can't both create the last trigger that is allowed. Locking the user's row instead could deadlock: each
# request holds a FOR SHARE lock on the row of its caller, who may be that user. Two requests that share such a lock
# would each wait for the other before they could lock the row alone.
_TAKE_TURNS = """
SELECT pg_advisory_xact_lock(hashtextextended('triggers of ' || w.created_by_id, 0))
FROM environment e JOIN workspace w ON w.id = e.workspace_id WHERE e.id = %(environment_id)s
"""

_COUNT = """
SELECT here.most, counted.number FROM (
    SELECT w.created_by_id, greatest((w.ceilings ->> 'triggersOfCreator')::int, %(limit)s) AS most
    FROM environment e JOIN workspace w ON w.id = e.workspace_id WHERE e.id = %(environment_id)s) here,
    LATERAL (SELECT count(*) AS number FROM (
        SELECT FROM workspace w
        JOIN environment e ON e.workspace_id = w.id
        JOIN trigger t ON t.environment_id = e.id AND t.deleted_at IS NULL
        WHERE w.created_by_id = here.created_by_id LIMIT here.most) t) counted
"""


def check_room_for_trigger(environment_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many triggers as it may, or if the workspaces of its workspace's
    creator together have. The caller has locked the environment. Other requests that count for this creator wait.
    """
    live = Trigger.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    check_ceiling("triggers", "triggers", environment_id=environment_id, rows=live)
    room = room_of_creator(environment_id)
    if not room.take():
        raise CeilingReached(
            "triggersOfCreator",
            f"The workspaces of this one's creator have {room.most} triggers, as many as they may.",
        )


def room_of_creator(environment_id: UUID) -> Room:
    params = {"environment_id": environment_id, "limit": PROFILE["triggersOfCreator"]}

    def count() -> Room:
        if not is_rehearsal():
            execute(_TAKE_TURNS, params)
        row = fetch_row(_COUNT, params)
        return Room(row["number"], row["most"])

    return once(("triggersOfCreator", environment_id), count)
