"""Translates between the names that files have for other rows, which are keys and hostnames, and the API's ids."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

from pipedai.api.errors import Invalid
from workspaces.files.kinds import Kind

Fields = dict[str, Any]
Ids = Mapping[tuple[str, str], UUID]
Names = Mapping[tuple[str, str], str]


def with_ids(kind: Kind, fields: Fields, ids: Ids) -> Fields:
    """Returns the fields as the API has them: `pool` becomes `poolId`. Raises Invalid for a name that is nobody's."""

    def swap(name: str, value: Any, of: str) -> tuple[str, Any]:
        return f"{name}Id", None if value is None else _found(name, value, of, ids)

    def swap_all(name: str, values: Any, of: str) -> tuple[str, Any]:
        if values is None:
            return f"{name.removesuffix('s')}Ids", None
        if not isinstance(values, list):
            raise Invalid({name: ["Must be a list of keys."]})
        return f"{name.removesuffix('s')}Ids", [_found(name, each, of, ids) for each in values]

    fields = {kind.renamed.get(name, name): value for name, value in fields.items()}
    return _swapped(kind, fields, swap, swap_all)


def named_rows(kind: Kind, fields: Fields) -> Iterator[tuple[str, str]]:
    """Yields what the fields refer to by name: its kind and the name."""
    for path, of in kind.references.items():
        outer, _, inner = path.partition(".")
        values = fields.get(outer)
        for value in values if isinstance(values, list) else [values]:
            name = value.get(inner) if inner and isinstance(value, dict) else value
            if isinstance(name, str):
                yield of, name


def with_names(kind: Kind, fields: Fields, names: Names) -> Fields:
    """Returns the API's fields as files have them. An id whose row has no name stays, with its name in the API."""
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


def _item_with_names(item: Fields, inner: str, of: str, names: Names) -> Fields:
    value = item.get(f"{inner}Id")
    found = names.get((of, str(value)))
    if found is None:
        return item
    rest = {name: each for name, each in item.items() if name != f"{inner}Id" and each is not None}
    return {inner: found, **rest}


def file_name(kind: Kind, name: str) -> tuple[str, str | None]:
    """Returns the name that files have for a field of the API, and the kind of row that it names, if it does."""
    for path, of in kind.references.items():
        if name in {f"{path}Id", f"{path.removesuffix('s')}Ids"}:
            return path, of
    return next((short for short, long in kind.renamed.items() if long == name), name), None


Swap = Callable[[str, Any, str], tuple[str, Any]]


def _swapped(kind: Kind, fields: Fields, swap: Swap, swap_all: Swap) -> Fields:
    fields = dict(fields)
    for path, of in kind.references.items():
        outer, _, inner = path.partition(".")
        if inner:
            items = fields.get(outer)
            if isinstance(items, list):
                fields[outer] = [_swapped_item(item, inner, of, swap) for item in items]
        elif outer in fields:
            change = swap_all if outer.endswith("s") else swap
            name, value = change(outer, fields.pop(outer), of)
            _refuse_both(outer, name, fields)
            fields[name] = value
    return fields


def _swapped_item(item: Any, inner: str, of: str, swap: Swap) -> Any:
    if not isinstance(item, dict) or inner not in item:
        return item
    name, value = swap(inner, item[inner], of)
    _refuse_both(inner, name, item)
    return {**{each: other for each, other in item.items() if each != inner}, name: value}


def _refuse_both(short: str, name: str, fields: Fields) -> None:
    if name in fields:
        raise Invalid({short: [f"Must not be there beside {name}."]})


def _found(name: str, value: Any, of: str, ids: Ids) -> str:
    found = ids.get((of, value)) if isinstance(value, str) else None
    if found is None:
        what = "worker has this hostname" if of == "worker" else f"{of} has this key"
        raise Invalid({name: [f"No {what} in this environment."]})
    return str(found)
