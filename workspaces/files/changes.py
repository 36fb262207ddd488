"""One change that files ask for, what decides whether a plan of it is stale, and how it is told."""

import hashlib
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from workspaces.files import values
from workspaces.files.columns import MAX_KEY
from workspaces.files.kinds import Kind, Row
from workspaces.files.names import Names, with_names
from workspaces.files.values import Wanted
from workspaces.roles import Role

Json = dict[str, Any]

# What a plan shows in place of a secret.
_SET = "set"


@dataclass(slots=True)
class Change:
    """A resource with its row, if there is one; or a row that no resource stands for any more."""

    kind: Kind
    key: str
    resource: Json | None
    row: Row | None
    wanted: Wanted | None = None
    secrets: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    id: UUID | None = None

    @property
    def name(self) -> str:
        # It stands before each field that is wrong, and a key in a request may be as long as the request.
        return f"{self.kind.name} {self.key[:MAX_KEY]}"

    @property
    def is_wanted(self) -> bool:
        """Whether the row is as the resource says, with its secrets, so that nothing has to be done."""
        assert self.wanted is not None
        if self.row is None or self.secrets:
            return False
        return values.has_values(self.row, self.wanted)


def told(change: Change, new: Row | None, names: Names, role: Role) -> Json:
    """Returns what became of a row, as the API shows it. Who may not read such rows gets no diff, and `update` of each
    that there is: else they could guess what it has.
    """
    old_fields, new_fields = (_fields(change.kind, row, names) for row in (change.row, new))
    both = [*new_fields, *(name for name in old_fields if name not in new_fields)]
    diff: Json = {
        name: [old_fields.get(name), new_fields.get(name)]
        for name in both
        if values.canonical(old_fields.get(name)) != values.canonical(new_fields.get(name))
    }
    for name in change.secrets:
        had = values.has_secret(change.kind, change.row, name)
        has = values.has_secret(change.kind, new, name)
        diff[name] = [_SET if had else None, _SET if has else None]
    may_read = role.includes(change.kind.readers)
    if change.resource is None:
        action, diff = "delete", {}
    elif change.row is None:
        action = "create"
    else:
        action = "none" if may_read and not diff else "update"
    return {
        "kind": change.kind.name,
        "key": change.key,
        "action": action,
        "diff": diff if may_read else {},
        "warnings": change.warnings,
        **(change.kind.remarks(change.row, new) if new and action != "none" else {}),
    }


def _fields(kind: Kind, row: Row | None, names: Names) -> Json:
    """Returns what a diff compares: a row's fields as files have them, and whose it is."""
    if row is None:
        return {}
    label = {"managedBy": row["managed_by"]} if row["managed_by"] else {}
    return {**with_names(kind, values.shown(kind, row), names), **label}


def plain(kind: Kind, row: Row) -> Json:
    """Returns a row as JSON can have it. Of what is sealed, a digest will do."""
    sealed = {column for secret in kind.secrets.values() for column in secret.columns}
    plain = {name: value for name, value in row.items() if name not in sealed}
    for name, secret in kind.secrets.items():
        box = row[secret.sealed.column]
        if box is not None and not secret.is_renewed and not kind.hides(row, name):
            plain[secret.sealed.column] = hashlib.sha256(bytes(box)).hexdigest()
    return plain
