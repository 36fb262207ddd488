"""Shows a JSON value as rows that people fill in, and makes the value from the rows."""

import json
from collections.abc import Iterable
from typing import Any

from rest_framework import serializers

from console.asking import Json
from console.forms import (
    Look,
    Shape,
    WrongRow,
    fits_one_line,
    text_of,
    value_of,
    values_of,
)
from console.screens.finding import Named

# A value with more rows is shown as JSON, because nobody could use a page with so many fields.
_MOST_ROWS = 50
_NO_NUMBER = "Type a number, such as 5 or 0.5."
_FLAGS = {"yes": True, "no": False, "true": True, "false": False}


class _Named(Shape):
    """A JSON object, with a row for each of its names."""

    # The name of the row's field beside its name and its kind.
    other: str
    pastes = True

    def rows_of(self, value: Any) -> list[Json] | None:
        try:
            rows = [{"name": name, **row} for name, row in self.parts(value)]
            is_whole = json.dumps(self.value_of(rows)) == json.dumps(value)
        except (WrongRow, AttributeError, TypeError):  # It is no object, or not one of this shape.
            return None
        is_shown = all(row["name"].isprintable() for row in rows) and len(rows) <= _MOST_ROWS
        return rows if is_whole and is_shown else None

    def parts(self, value: Any) -> Iterable[tuple[str, Json]]:
        """Yields each name with the other fields of its row."""
        raise NotImplementedError

    def named(self, rows: list[Json]) -> Iterable[tuple[int, str, Json]]:
        """Yields the rows in which something was typed, with their numbers and names."""
        names = set[str]()
        for number, row in enumerate(rows):
            name = row.get("name", "").strip()
            if not name and not row.get(self.other):
                continue
            if not name or name in names:
                raise WrongRow(
                    number, "name", "Another row has this name." if name else "Type a name."
                )
            names.add(name)
            yield number, name, row


class Values(_Named):
    """An object with values of any type, each shown as text with its type."""

    class Row(serializers.Serializer[Any]):
        name = serializers.CharField(required=False, allow_blank=True)
        kind = serializers.CharField(required=False)
        value = serializers.CharField(required=False, allow_blank=True)

    other = "value"
    kinds = {
        "text": "Text",
        "number": "Number",
        "flag": "Yes or no",
        "list": "List, by commas",
        "json": "JSON",
    }
    looks = {"name": Look(), "kind": Look(choices=kinds.items()), "value": Look()}

    def parts(self, value: Any) -> Iterable[tuple[str, Json]]:
        return ((name, _typed(each)) for name, each in value.items())

    def value_of(self, rows: list[Json]) -> Json:
        return {name: _read(number, row) for number, name, row in self.named(rows)}


def _typed(value: Any) -> Json:
    """Returns the type of a value, and the text that a person would type for it."""
    if isinstance(value, bool):
        return {"kind": "flag", "value": "yes" if value else "no"}
    if isinstance(value, int | float):
        return {"kind": "number", "value": json.dumps(value)}
    if fits_one_line(value):
        return {"kind": "text", "value": value}
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return {"kind": "list", "value": text_of(value, "value")}
    return {"kind": "json", "value": json.dumps(value, ensure_ascii=False)}


def _read(number: int, row: Json) -> Any:
    """Returns the value that somebody typed into a row."""
    text, kind = row["value"], row.get("kind")
    if kind == "list":
        return values_of(text)
    if kind == "flag":
        if text.strip().lower() not in _FLAGS:
            raise WrongRow(number, "value", "Type yes or no.")
        return _FLAGS[text.strip().lower()]
    if kind not in {"number", "json"}:
        return text
    try:
        value = value_of("json", text)
    except ValueError as error:
        raise WrongRow(number, "value", str(error) if kind == "json" else _NO_NUMBER) from None
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise WrongRow(number, "value", _NO_NUMBER)
    return value


class Schema(_Named):
    """A JSON Schema of an object without nested objects."""

    class Row(serializers.Serializer[Any]):
        name = serializers.CharField(required=False, allow_blank=True)
        kind = serializers.CharField(required=False)
        needed = serializers.BooleanField(default=True)
        description = serializers.CharField(required=False, allow_blank=True)

    other = "description"
    kinds = {
        "string": "Text",
        "number": "Number",
        "integer": "Whole number",
        "boolean": "Yes or no",
        "array": "List of texts",
    }
    looks = {
        "name": Look(),
        "kind": Look(choices=kinds.items()),
        "description": Look("What it is"),
        "needed": Look("Always there"),
    }

    def parts(self, value: Any) -> Iterable[tuple[str, Json]]:
        required = value.get("required", ())
        for name, each in value["properties"].items() if "properties" in value else ():
            kind, description = each.get("type"), each.get("description", "")
            if kind not in self.kinds or not fits_one_line(description):
                raise TypeError("The fields of a row would change it.")
            yield name, {"kind": kind, "description": description, "needed": name in required}

    def value_of(self, rows: list[Json]) -> Json | None:
        fields, required = Json(), []
        for _, name, row in self.named(rows):
            fields[name] = {"type": row.get("kind")}
            if row.get("kind") == "array":
                fields[name]["items"] = {"type": "string"}
            if row["description"]:
                fields[name]["description"] = row["description"]
            if row["needed"]:
                required.append(name)
        schema = {"type": "object", "properties": fields}
        return {**schema, **({"required": required} if required else {})} if fields else None


class Ids(Shape):
    """A list of ids, whose rows people find by name."""

    class Row(serializers.Serializer[Any]):
        id = serializers.CharField(required=False, allow_blank=True)

    pastes = False

    def __init__(self, label: str, finder: Named) -> None:
        self.looks = {"id": Look(label, finder=finder)}

    def rows_of(self, value: list[str]) -> list[Json]:
        return [{"id": each} for each in value]

    def value_of(self, rows: list[Json]) -> list[str]:
        return [row["id"] for row in rows if row.get("id")]
