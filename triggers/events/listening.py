"""The field `on` of a trigger: what it listens to. Its entries are rows of `Listener`, without a circle of triggers."""

from typing import Any
from uuid import UUID

from rest_framework import serializers

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict, Invalid
from pipedai.api.fields import IdField, ListField, TextField, WholeNumberField
from pipedai.api.renderers import compact_json
from pipedai.api.serializers import InnerBody
from pipedai.sql import fetch_all, fetch_one
from triggers.events.clauses import FieldsField, PointerField, WhereField
from triggers.models import MAX_LISTENERS, Listener, Trigger
from triggers.states import Outcome
from workspaces.ceilings import most
from workspaces.files.values import same
from workspaces.models import Workspace

_MAX_TYPES = 50
# How many bytes of compact JSON all entries of a trigger may take together, so that pages of triggers stay small.
_MAX_BYTES = 16 * 1024
# The keys of an entry beside the id of what it listens to: for a source and for a trigger.
OF_SOURCE = ("types", "where", "fields", "coalesce")
OF_TRIGGER = ("outcome",)

Entry = dict[str, Any]


class CoalesceBody(InnerBody):
    path = PointerField()
    windowSeconds = WholeNumberField(min_value=1, max_value=3600)
    keep = serializers.ChoiceField(choices=("last", "all"), default="last")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return dict(attrs)


class EntryBody(InnerBody):
    """What a trigger listens to: a source, or the ends of another trigger's runs."""

    sourceId = IdField(required=False)
    types = ListField(
        child=TextField(max_length=200),
        min_length=1,
        max_length=_MAX_TYPES,
        allow_null=True,
        required=False,
    )
    where = WhereField(allow_null=True, required=False)
    fields = FieldsField(allow_null=True, required=False)  # type: ignore[assignment]
    coalesce = CoalesceBody(allow_null=True, required=False)
    triggerId = IdField(required=False)
    outcome = serializers.ChoiceField(choices=Outcome.choices, required=False)

    def validate(self, attrs: dict[str, Any]) -> Entry:
        """Returns the entry as it is shown again."""
        if ("sourceId" in attrs) == ("triggerId" in attrs):
            raise serializers.ValidationError("Must have either a sourceId or a triggerId.")
        wrong: tuple[str, ...] = OF_SOURCE
        what = "a trigger"
        entry: Entry = {"outcome": Outcome.SUCCEEDED.value}
        if "sourceId" in attrs:
            wrong, what = OF_TRIGGER, "a source"
            entry = dict.fromkeys(OF_SOURCE)
        if errors := {name: [f"Not for {what}."] for name in wrong if attrs.get(name) is not None}:
            raise serializers.ValidationError(errors)
        for name in ("sourceId", "triggerId"):
            if name in attrs:
                entry[name] = str(attrs.pop(name))
        return entry | attrs


class OnField(serializers.ListField):
    child = EntryBody()

    def to_internal_value(self, data: Any) -> list[Entry]:
        # The number is checked first, so that no long list is validated only to be refused.
        if isinstance(data, list) and len(data) > MAX_LISTENERS:
            raise serializers.ValidationError(f"Must not have more than {MAX_LISTENERS} entries.")
        entries: list[Entry] = super().to_internal_value(data)
        if len(compact_json(entries).encode()) > _MAX_BYTES:
            raise serializers.ValidationError("Must not be longer than 16 KiB.")
        return entries


def columns_of(entry: Entry) -> dict[str, Any]:
    """Returns the entry under the names of the columns of `Listener`."""
    if "triggerId" in entry:
        return {"upstream_id": entry["triggerId"], "outcome": entry["outcome"]}
    return {"source_id": entry["sourceId"], **{name: entry[name] for name in OF_SOURCE}}


def entry_of(row: dict[str, Any]) -> Entry:
    """Returns the entry of a row with the columns of `Listener`."""
    if row["upstream_id"] is not None:
        return {"triggerId": str(row["upstream_id"]), "outcome": row["outcome"]}
    return {"sourceId": str(row["source_id"]), **{name: row[name] for name in OF_SOURCE}}


# Keeps the sources and triggers of the entries from being deleted until the transaction ends.
_HOLD = """
SELECT id FROM {table} WHERE id = ANY(%(ids)s::uuid[]) AND environment_id = %(environment_id)s
    AND deleted_at IS NULL ORDER BY id FOR KEY SHARE
"""
# Finds a circle: it goes from the triggers that this one would listen to, to those that these listen to, and so on.
_CIRCLE = """
WITH RECURSIVE heard (id) AS (
    SELECT unnest(%(ids)s::uuid[])
    UNION
    SELECT l.upstream_id FROM heard JOIN listener l ON l.trigger_id = heard.id WHERE l.upstream_id IS NOT NULL)
SELECT FROM heard WHERE id = %(trigger_id)s
"""
# Finds a source or trigger among these that already has as many listening triggers as are allowed.
_FULL = """
SELECT kind FROM (
    SELECT 'source' AS kind, source_id AS id, trigger_id FROM listener WHERE source_id = ANY(%(sources)s::uuid[])
    UNION ALL
    SELECT 'trigger', upstream_id, trigger_id FROM listener WHERE upstream_id = ANY(%(triggers)s::uuid[])) l
WHERE trigger_id <> %(trigger_id)s
GROUP BY kind, id HAVING count(DISTINCT trigger_id) >= %(most)s LIMIT 1
"""


def set_listeners(trigger: Trigger, entries: list[Entry]) -> list[list[Entry]] | None:
    """Makes these the entries of a trigger. Returns the former and the new ones, or None if they are equal. The caller
    has locked the environment alone, and the trigger, if it existed before.

    Raises Invalid if an entry names nothing of the environment, Conflict if the trigger would hear itself, and
    CeilingReached.
    """
    rows = Listener.objects.filter(trigger_id=trigger.id)
    former = [entry_of(vars(row)) for row in rows.order_by("position")]
    if same(former, entries):
        return None
    sources = _hold(trigger, entries, "sourceId", "event_source")
    triggers = _hold(trigger, entries, "triggerId", "trigger")
    circle = {"trigger_id": trigger.id, "ids": triggers}
    if triggers and fetch_one(_CIRCLE, circle) is not None:
        raise Conflict(
            "The trigger would listen to itself, over the triggers to which it listens.",
            code=ErrorCode.CHAIN_CIRCLE,
        )
    _check_ceiling(trigger, sources, triggers)
    rows.delete()
    Listener.objects.bulk_create(
        Listener(
            environment_id=trigger.environment_id,
            trigger_id=trigger.id,
            position=position,
            **columns_of(entry),
        )
        for position, entry in enumerate(entries)
    )
    return [former, entries]


def check_unheard(trigger_id: UUID) -> None:
    """Raises Conflict if triggers listen to this one. The caller has locked it for its deletion."""
    count = Listener.objects.filter(upstream_id=trigger_id).values("trigger_id").distinct().count()
    if count:
        verb = "trigger listens" if count == 1 else "triggers listen"
        raise Conflict(f"{count} {verb} to it.", code=ErrorCode.HAS_CHILDREN)


def _hold(trigger: Trigger, entries: list[Entry], name: str, table: str) -> list[str]:
    wanted = {entry[name] for entry in entries if name in entry}
    if not wanted:
        return []
    params = {"ids": sorted(wanted), "environment_id": trigger.environment_id}
    rows = fetch_all(_HOLD.format(table=table), params)
    # The trigger itself is added, because it may not be stored yet. Hearing itself is refused as a circle.
    found = {str(row["id"]) for row in rows} | {str(trigger.id)}
    errors: dict[str, list[str]] = {}
    for position, entry in enumerate(entries):
        if name in entry and entry[name] not in found:
            message = f"No such {name.removesuffix('Id')} in this environment."
            errors.setdefault("on", []).append(f"{position}.{name}: {message}")
            errors[f"on.{position}.{name}"] = [message]
    if errors:
        raise Invalid(errors)
    return sorted(wanted)


def _check_ceiling(trigger: Trigger, sources: list[str], triggers: list[str]) -> None:
    if not sources and not triggers:
        return
    workspace = Workspace.objects.filter(environments=trigger.environment_id)
    limit = most("listeners", workspace.values_list("ceilings", flat=True).get())
    params = {"sources": sources, "triggers": triggers, "trigger_id": trigger.id, "most": limit}
    if full := fetch_one(_FULL, params):
        raise CeilingReached(
            "listeners", f"{limit} triggers listen to a {full['kind']} of these, as many as may."
        )
