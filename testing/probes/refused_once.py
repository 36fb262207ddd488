"""Lets schemathesis send what a field refuses once, and not again for each operation that has the same field.

It counts as the same if its name and its schema are: then one serializer or filter refuses it everywhere. What a field
takes is sent to each operation.
"""

import json
from typing import Any

import schemathesis

# What was refused of a field, with the operation and schemathesis's words of the first time.
_sent: dict[tuple[str, ...], tuple[str, str]] = {}


@schemathesis.hook
def filter_case(_: Any, case: Any) -> bool:
    """Whether the case is sent."""
    if case.meta.phase.name.value != "coverage" or case.meta.generation.mode.is_positive:
        return True
    tried = case.meta.phase.data
    field = _field(case.operation, tried)
    now = case.operation.label, tried.description
    return field is None or _sent.setdefault((*field, str(tried.scenario)), now) == now


def _field(operation: Any, tried: Any) -> tuple[str, ...] | None:
    """Returns what tells the field of which a wrong value is tried, or None if something else is."""
    place, raw = str(tried.parameter_location), operation.definition.raw
    if place.endswith("QUERY"):
        for each in raw.get("parameters", []):
            if each["name"] == tried.parameter:
                return place, each["name"], _of_type(each["schema"])
    if place.endswith("BODY") and (tried.location or "").startswith("/properties/"):
        schema = raw["requestBody"]["content"][tried.parameter]["schema"]
        components = operation.schema.raw_schema["components"]["schemas"]
        schema = components.get(schema.get("$ref", "").rpartition("/")[2], schema)
        name = tried.location.split("/")[2]
        return place, tried.location, _of_type(schema["properties"][name])
    return None


def _of_type(schema: dict[str, Any]) -> str:
    """Returns a field's schema without what only people read."""
    words = ("description", "default", "example", "examples")
    return json.dumps({name: each for name, each in schema.items() if name not in words})
