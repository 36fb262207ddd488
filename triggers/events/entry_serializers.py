"""The field `on` of a trigger: what it listens to. Its entries are rows of `Listener`."""

from collections.abc import Iterable
from typing import Any

from rest_framework import serializers

from pipedai.api.fields import IdField, ListField, TextField, WholeNumberField
from pipedai.api.renderers import compact_json
from pipedai.api.serializers import InnerBody
from triggers.events.clauses import FieldsField, PointerField, WhereField
from triggers.models import MAX_LISTENERS, Listener
from triggers.states import Outcome

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


def entries_of(rows: Iterable[Listener]) -> list[Entry]:
    return [entry_of(vars(row)) for row in rows]
