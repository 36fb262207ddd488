"""Makes up a value that fits a simple JSON Schema."""

from __future__ import annotations

from typing import Any


def sample(schema: Any) -> Any:
    """Return a value of the type that the schema asks for, with every property that the schema lists."""
    schema = schema if isinstance(schema, dict) else {}
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: sample(each) for name, each in (schema.get("properties") or {}).items()}
    simple = {"array": [], "string": "scripted", "integer": 1, "number": 1, "boolean": True}
    return simple.get(kind)
