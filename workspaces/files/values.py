"""Reads one resource of a file, compares it with the row that there is, and shows a row as a resource."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rest_framework.exceptions import ParseError
from rest_framework.fields import CharField, empty

from pipedai.api.errors import Invalid
from pipedai.api.parsers import check_text, parse_json
from pipedai.api.renderers import compact_json
from pipedai.api.serializers import Body
from workspaces.files.kinds import Kind, Row, Secret

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """What a resource says: `values` as the services take them, without secrets; `secrets` those fields whose value is
    there, by their names in the API; `unset` those that name a secret without a value, which stays; `literal` those
    that hold a secret in clear.
    """

    values: Row
    secrets: Fields
    unset: tuple[str, ...]
    literal: tuple[str, ...]


def read(
    kind: Kind,
    body: Body,
    fields: Fields,
    secrets: Mapping[str, str],
    row: Row | None,
    *,
    is_plan: bool,
) -> Wanted:
    """Checks the fields of a resource, which have ids in place of keys. `body` is one of the kind, which takes longer
    to make than to use. Raises DRF's ValidationError, Invalid.
    """
    given = dict(fields)
    unset, literal = [], []
    if wrong := kind.left_out & fields.keys():
        raise Invalid({name: ["It is no part of files."] for name in wrong})
    for name in kind.secrets.keys() & fields.keys():
        names = _secret_names(fields[name])
        if names <= secrets.keys():
            given[name] = _filled(name, fields[name], secrets, body.fields[name])
            if not names and fields[name] is not None:
                literal.append(name)
        else:
            unset.append(name)
            given.pop(name)
            stand_in = kind.secrets[name].stand_in
            if stand_in is not None and not has_secret(kind, row, name):
                if not is_plan:
                    raise Invalid({name: ["Its secret has no value."]})
                given[name] = stand_in
    if optional := [name for name in unset if body.fields[name].required]:
        body = kind.body()
        for name in optional:
            body.fields[name].required = False
    values = {**kind.defaults, **body.run_validation(given)}
    apart = {kind.sources[name] for name in (*kind.secrets, *kind.left_out)}
    return Wanted(
        values={name: value for name, value in values.items() if name not in apart},
        secrets={name: values[kind.sources[name]] for name in kind.secrets if name in given},
        unset=tuple(sorted(unset)),
        literal=tuple(sorted(literal)),
    )


def changed_values(row: Row | None, wanted: Wanted) -> Row:
    """Returns the values that the row has not yet, secrets aside: all if there is no row."""
    return {
        name: value
        for name, value in wanted.values.items()
        if row is None or name not in row or not same(row[name], value)
    }


def changed_secrets(
    kind: Kind, row: Row | None, wanted: Wanted, *, compared: bool = True
) -> list[str]:
    """Returns the fields whose secret is another than the row has, or would be lost with what changes. Unless they are
    compared, each that has a value.
    """
    changed: list[str] = []
    for name, value in wanted.secrets.items():
        secret = kind.secrets[name]
        is_kept = compared and row is not None and not _is_lost(secret, row, wanted, changed)
        if not (is_kept and secret.opened(row) == value) if value else has_secret(kind, row, name):
            changed.append(name)
    return changed


def _is_lost(secret: Secret, row: Row, wanted: Wanted, changed: Sequence[str]) -> bool:
    return any(
        name in changed or (name in wanted.values and wanted.values[name] != row[name])
        for name in secret.lost_with
    )


def has_secret(kind: Kind, row: Row | None, name: str) -> bool:
    return row is not None and row[kind.secrets[name].sealed.column] is not None


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON."""
    if type(one) is type(other) and isinstance(one, str | UUID | bool | int | None):
        return bool(one == other)
    return canonical(one) == canonical(other)


def canonical(value: Any) -> str:
    """Returns a value as JSON text with sorted keys. There 1, 1.0 and true differ; in Python they are equal."""
    return json.dumps(json.loads(compact_json(value)), sort_keys=True)


def shown(kind: Kind, row: Row) -> Fields:
    """Returns a row's fields as the API has them, without those that are as by default. A secret has a name alone."""
    fields: Fields = {}
    for name, source in kind.sources.items():
        if name in {"key", "managedBy", *kind.left_out} or kind.hides(row, name):
            continue
        if name in kind.secrets:
            if has_secret(kind, row, name):
                fields[name] = {"secret": secret_name(row["key"], name)}
            continue
        if source not in row:
            continue
        default = kind.all_defaults[name]
        if default is empty or not same(row[source], default):
            fields[name] = json.loads(compact_json(row[source]))
    return fields


def secret_name(key: str | None, field: str) -> str:
    """Returns the name that an export gives a secret, such as NIGHTLY_MCP_HEADERS."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", f"{key}_{field}")
    return re.sub(r"\W", "_", words, flags=re.ASCII).upper()


def _secret_names(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_secret_names, value))
    if isinstance(value, dict):
        if (name := _named(value)) is not None:
            return {name}
        return set().union(*map(_secret_names, value.values()))
    return set()


def _named(value: Any) -> str | None:
    is_one = isinstance(value, dict) and value.keys() == {"secret"}
    return value["secret"] if is_one and isinstance(value["secret"], str) else None


def _filled(name: str, value: Any, secrets: Mapping[str, str], field: Any) -> Any:
    """Puts the secrets in. Of a field that is no text, the secret is the JSON of the whole."""
    whole = _named(value)
    if whole is None or isinstance(field, CharField):
        return _filled_inside(value, secrets)
    try:
        value = parse_json(secrets[whole].encode())
        check_text(value)
    except ParseError:
        raise Invalid({name: ["Its secret is not JSON."]}) from None
    return value


def _filled_inside(value: Any, secrets: Mapping[str, str]) -> Any:
    if (name := _named(value)) is not None:
        return secrets[name]
    if isinstance(value, list):
        return [_filled_inside(each, secrets) for each in value]
    if isinstance(value, dict):
        return {name: _filled_inside(each, secrets) for name, each in value.items()}
    return value
