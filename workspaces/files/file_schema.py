"""Makes the JSON Schema of `pipedai.yaml`, with which editors check the file and complete its fields."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from pipedai.api.service import made_document
from workspaces.files.kinds import Kind, kinds
from workspaces.files.values import file_name
from workspaces.tenant_columns import KEY_PATTERN, MAX_KEY, MAX_LABEL

Schema = dict[str, Any]

NAME = "pipedai.schema.json"
_SECRET: Schema = {
    "type": "object",
    "properties": {"secret": {"type": "string", "description": "Its value: PIPEDAI_SECRET_<name>"}},
    "required": ["secret"],
    "additionalProperties": False,
}
_PROMPT_FILE: Schema = {"type": "string", "pattern": r"\.md$", "description": "Below this file"}


@cache
def file_schema() -> bytes:
    """Returns the schema as JSON. Its fields are those of the bodies in the API's OpenAPI document."""
    parts = json.loads(made_document())["components"]["schemas"]
    label = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipedai.yaml",
        "type": "object",
        "properties": {
            "managedBy": {**label, "description": "A label, such as the repository's name"},
            **{f"{kind.name}s": _rows(kind, parts) for kind in kinds()},
        },
        "required": ["managedBy"],
        "additionalProperties": False,
    }
    named = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    defined = {name: _whole(parts[name], parts, (name,)) for name in sorted(named)}
    return json.dumps({**schema, "$defs": defined}).encode()


def _rows(kind: Kind, parts: Mapping[str, Schema]) -> Schema:
    key = {"pattern": f"^{KEY_PATTERN}$", "maxLength": MAX_KEY}
    return {
        "type": ["object", "null"],
        "propertyNames": key,
        "additionalProperties": _resource(kind, parts),
    }


def _resource(kind: Kind, parts: Mapping[str, Schema]) -> Schema:
    body = _whole(parts[f"Create{kind.name.title()}Body"], parts)
    fields: Schema = {}
    for name, field in body["properties"].items():
        if name in {"key", "managedBy", *kind.left_out}:
            continue
        short, of = file_name(kind, name)
        if of is not None:
            fields[short] = _named(field)
        else:
            fields[short] = _or_secret(field) if name in kind.secrets else field
    for path in kind.references:
        outer, _, inner = path.partition(".")
        if inner:
            items = _items(fields[outer])["properties"]
            items[inner] = _named(items.pop(f"{inner}Id"))
    needed = {file_name(kind, name)[0] for name in body.get("required", ())}
    schema: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
    if "prompt" in needed:
        needed.remove("prompt")
        fields["promptFile"] = _PROMPT_FILE
        schema["oneOf"] = [{"required": ["prompt"]}, {"required": ["promptFile"]}]
    return {**schema, "required": sorted(needed)}


def _named(field: Schema) -> Schema:
    """Returns the field with names in place of ids."""
    name: Schema = {"type": ["string", "null"]}
    if "array" in field.get("type", ()):
        name = {"type": ["array", "null"], "items": {"type": "string"}}
    said = field.get("description")
    return {**name, "description": said} if said else name


def _items(field: Schema) -> Schema:
    """Returns the schema of the items of a list, which may be null."""
    either = [field, *field.get("oneOf", ()), *field.get("anyOf", ())]
    found: Schema = next(each["items"] for each in either if "items" in each)
    return found


def _or_secret(field: Schema) -> Schema:
    """Returns a schema that takes the field, or a secret's name instead of the field or of a text in it."""
    inside = dict(field)
    for name in ("items", "additionalProperties"):
        if isinstance(field.get(name), dict):
            inside[name] = _or_secret(field[name])
    for name in ("oneOf", "anyOf", "allOf"):
        if name in field:
            inside[name] = [_or_secret(each) for each in field[name]]
    return {"anyOf": [inside, _SECRET]}


def _whole(schema: Any, parts: Mapping[str, Schema], within: tuple[str, ...] = ()) -> Any:
    """Returns the schema with each `$ref` replaced by its target, except for references of a schema to itself."""
    if isinstance(schema, list):
        return [_whole(each, parts, within) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].rpartition("/")[2]
        if name in within:
            return {"$ref": f"#/$defs/{name}"}
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**_whole(parts[name], parts, (*within, name)), **rest}
    return {key: _whole(value, parts, within) for key, value in schema.items()}


@require_safe
def download(_request: HttpRequest) -> HttpResponse:
    """Answers GET /downloads/pipedai.schema.json, which is public."""
    return HttpResponse(file_schema(), content_type="application/schema+json")
