"""Reads a resource of a file, compares it with the existing row, and shows rows as resources.

Files name other rows by keys and hostnames, and the API by ids; this module translates between the two.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rest_framework.exceptions import ParseError
from rest_framework.fields import CharField, empty

from pipedai.api.errors import Invalid
from pipedai.api.parsers import check_text, parse_json
from pipedai.api.renderers import compact_json
from pipedai.api.serializers import Body
from workspaces.files.kinds import Kind, Row, Secret, ids_by_name, kinds
from workspaces.roles import Role

Fields = dict[str, Any]
Ids = Mapping[tuple[str, str], UUID]
Names = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """The content of a resource. `values` are for the services, without secrets. `secrets` are the secret fields that
    have a value, by their names in the API. `unset` are those named without a value, which stay. `literal` are those
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
    """Checks the fields of a resource, which have ids in place of keys. `body` is the kind's serializer; callers reuse
    one, because making it takes longer than using it. Raises DRF's ValidationError, Invalid.
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
    # A row that has a secret keeps it if the resource leaves it out, even if a new row needs one.
    missing = (name for name in kind.secrets if name not in given and body.fields[name].required)
    if optional := [name for name in missing if has_secret(kind, row, name)]:
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
    """Returns the values, without secrets, that differ from the row; all values if there is no row."""
    return {
        name: value
        for name, value in wanted.values.items()
        if row is None or name not in row or not same(row[name], value)
    }


def changed_secrets(
    kind: Kind, row: Row | None, wanted: Wanted, *, compared: bool = True
) -> list[str]:
    """Returns the fields whose secret differs from the row's, or would be lost by the changes. If secrets are not
    compared, returns each secret that has a value.
    """
    changed: list[str] = []
    for name, value in wanted.secrets.items():
        secret = kind.secrets[name]
        is_kept = compared and row is not None and not _is_lost(secret, row, wanted, changed)
        if not (is_kept and secret.opened(row) == value) if value else has_secret(kind, row, name):
            changed.append(name)
    return changed


def has_secret(kind: Kind, row: Row | None, name: str) -> bool:
    return row is not None and row[kind.secrets[name].sealed.column] is not None


def same(one: Any, other: Any) -> bool:
    """Returns whether two values are the same in JSON."""
    if type(one) is type(other) and isinstance(one, str | UUID | bool | int | None):
        return bool(one == other)
    return canonical(one) == canonical(other)


def canonical(value: Any) -> str:
    """Returns a value as JSON text with sorted keys. There 1, 1.0 and true differ; in Python they are equal."""
    return json.dumps(json.loads(compact_json(value)), sort_keys=True)


def export(*, environment_id: UUID, managed_by: str | None, role: Role) -> dict[str, Any]:
    """Returns the rows with a key as `resources`, and those without as `withoutKey`: of all labels, or of this label
    and unlabelled ones. Planning these resources with their label changes nothing. A secret has a name and no value.
    Kinds that this role may not read are left out.
    """
    read = [kind for kind in kinds() if role.includes(kind.readers)]
    live = {kind.name: kind.rows(environment_id) for kind in read}
    names = names_of(ids_by_name(environment_id, live))
    resources = [
        {"kind": kind.name, "key": row["key"], **with_names(kind, shown(kind, row), names)}
        for kind in read
        for row in live[kind.name]
        if row["key"] and (managed_by is None or row["managed_by"] in {None, managed_by})
    ]
    unkeyed = [
        {"kind": kind.name, "id": row["id"], "name": row["name"]}
        for kind in read
        for row in live[kind.name]
        if not row["key"]
    ]
    return {"resources": resources, "withoutKey": unkeyed}


def shown(kind: Kind, row: Row) -> Fields:
    """Returns a row's fields as the API has them, without those that have their default. A secret has only a name."""
    fields: Fields = {}
    for name, source in kind.sources.items():
        if name in {"key", "managedBy", *kind.left_out} or kind.hides(row, name):
            continue
        if name in kind.secrets:
            if has_secret(kind, row, name):
                # An export names each secret after its row and field, such as NIGHTLY_MCP_HEADERS.
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", f"{row['key']}_{name}")
                fields[name] = {"secret": re.sub(r"\W", "_", words, flags=re.ASCII).upper()}
            continue
        if source not in row:
            continue
        default = kind.all_defaults[name]
        if default is empty or not same(row[source], default):
            fields[name] = json.loads(compact_json(row[source]))
    return fields


def with_ids(kind: Kind, fields: Fields, ids: Ids) -> Fields:
    """Returns the fields as the API has them: `pool` becomes `poolId`. Raises Invalid for a name that no row has."""
    fields = {kind.renamed.get(name, name): value for name, value in fields.items()}
    for path, of in kind.references.items():
        outer, _, inner = path.partition(".")
        if not inner:
            fields = _with_id(fields, outer, of, ids)
        elif isinstance(items := fields.get(outer), list):
            fields[outer] = [_with_id(item, inner, of, ids) for item in items]
    return fields


def _with_id(fields: Any, short: str, of: str, ids: Ids) -> Any:
    """Returns the fields with the name in one of them, if that is there, replaced by an id, or names by ids."""
    if not isinstance(fields, dict) or short not in fields:
        return fields
    value, is_list = fields[short], short.endswith("s")
    name = f"{short.removesuffix('s')}Ids" if is_list else f"{short}Id"
    if name in fields:
        raise Invalid({short: [f"Must not be there beside {name}."]})
    if value is not None and is_list:
        if not isinstance(value, list):
            raise Invalid({short: ["Must be a list of keys."]})
        value = [_found(short, each, of, ids) for each in value]
    elif value is not None:
        value = _found(short, value, of, ids)
    return {**{each: other for each, other in fields.items() if each != short}, name: value}


def named_rows(kind: Kind, fields: Fields) -> Iterator[tuple[str, str]]:
    """Yields the kind and the name of each row that the fields refer to."""
    for path, of in kind.references.items():
        outer, _, inner = path.partition(".")
        values = fields.get(outer)
        for value in values if isinstance(values, list) else [values]:
            name = value.get(inner) if inner and isinstance(value, dict) else value
            if isinstance(name, str):
                yield of, name


def names_of(ids: Ids) -> Names:
    return {(of, str(id_)): name for (of, name), id_ in ids.items()}


def with_names(kind: Kind, fields: Fields, names: Names) -> Fields:
    """Returns the API's fields as files have them. The id of a row without a key stays, under its name in the API."""
    back: Fields = {}
    for name, value in fields.items():
        short, of = file_name(kind, name)
        if of is None or value is None:
            back[short] = value
        elif isinstance(value, list):
            found = [names.get((of, str(each))) for each in value]
            back |= {name: value} if None in found else {short: found}
        elif (one := names.get((of, str(value)))) is not None:
            back[short] = one
        else:
            back[name] = value
    for path, of in kind.references.items():
        outer, _, inner = path.partition(".")
        if inner and isinstance(items := back.get(outer), list):
            back[outer] = [_item_with_names(item, inner, of, names) for item in items]
    return back


def file_name(kind: Kind, name: str) -> tuple[str, str | None]:
    """Returns the name of an API field in files, and the kind of row that it refers to, if any."""
    for path, of in kind.references.items():
        if name in {f"{path}Id", f"{path.removesuffix('s')}Ids"}:
            return path, of
    return next((short for short, long in kind.renamed.items() if long == name), name), None


def _item_with_names(item: Fields, inner: str, of: str, names: Names) -> Fields:
    value = item.get(f"{inner}Id")
    found = names.get((of, str(value)))
    if found is None:
        return item
    rest = {name: each for name, each in item.items() if name != f"{inner}Id" and each is not None}
    return {inner: found, **rest}


def _found(name: str, value: Any, of: str, ids: Ids) -> str:
    found = ids.get((of, value)) if isinstance(value, str) else None
    if found is None:
        what = "worker has this hostname" if of == "worker" else f"{of} has this key"
        raise Invalid({name: [f"No {what} in this environment."]})
    return str(found)


def _is_lost(secret: Secret, row: Row, wanted: Wanted, changed: Sequence[str]) -> bool:
    return any(
        name in changed or (name in wanted.values and wanted.values[name] != row[name])
        for name in secret.lost_with
    )


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
    """Puts the values of secrets into a field. If the field is not a text, the secret is its JSON."""
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
