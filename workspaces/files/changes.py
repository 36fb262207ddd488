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
    """A resource with its row, if there is one; or a row that no resource stands for any more. A row that is to be made
    has its id already, by which others refer to it. `values` is what the row gets, with those secrets that are new.
    """

    kind: Kind
    key: str
    resource: Json | None
    id: UUID
    row: Row | None = None
    wanted: Wanted | None = None
    secrets: list[str] = field(default_factory=list)
    values: Row = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        # It stands before each field that is wrong, and a key in a request may be as long as the request.
        return f"{self.kind.name} {self.key[:MAX_KEY]}"

    @property
    def is_wanted(self) -> bool:
        """Whether the row is as the resource says, with its secrets, so that nothing has to be done."""
        return self.row is not None and not self.values

    def compare(self, *, with_secrets: bool) -> None:
        """Notes what the row gets. Unless secrets are compared, each that has a value counts as new."""
        assert self.wanted is not None
        kind, wanted = self.kind, self.wanted
        self.secrets = values.changed_secrets(kind, self.row, wanted, compared=with_secrets)
        self.values = values.changed_values(self.row, wanted)
        self.values |= {kind.sources[name]: wanted.secrets[name] for name in self.secrets}

    @property
    def late(self) -> Row:
        """Those of the values that may name rows of the same kind, unless they name none."""
        before = self.row or self.kind.without_any
        return {
            name: value
            for name, value in self.values.items()
            if name in self.kind.late_sources and not values.same(before[name], value)
        }

    @property
    def kept(self) -> list[str]:
        """The secrets that the row has, and that the resource names without a value, so that they ought to stay."""
        unset = self.wanted.unset if self.wanted else ()
        return [name for name in unset if values.has_secret(self.kind, self.row, name)]


def told(change: Change, new: Row | None, names: Names, role: Role) -> Json:
    """Returns what became of a row, as the API shows it. Who may not read such rows gets no diff, and `update` of each
    that there is: else they could guess what it has.
    """
    old_fields, new_fields = (_fields(change.kind, row, names) for row in (change.row, new))
    both = [*new_fields, *(name for name in old_fields if name not in new_fields)]
    diff: Json = {
        name: [old_fields.get(name), new_fields.get(name)]
        for name in both
        if not values.same(old_fields.get(name), new_fields.get(name))
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
