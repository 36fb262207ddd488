"""Shows an environment's rows as resources of files."""

from typing import Any
from uuid import UUID

from workspaces.files.kinds import kinds, lookups
from workspaces.files.names import with_names
from workspaces.files.values import shown
from workspaces.roles import Role


def export(*, environment_id: UUID, managed_by: str | None, role: Role) -> dict[str, Any]:
    """Returns the rows with a key as `resources`, and as `withoutKey` those that have none; of all labels, or of this
    one and of none. A plan of these resources with the label that they have changes nothing. A secret has a name, and
    no value. Kinds that this role may not read are left out.
    """
    read = [kind for kind in kinds() if role.includes(kind.readers)]
    live = {kind.name: kind.rows(environment_id) for kind in read}
    names = {
        (of, str(row["id"])): row["key"] for of, rows in live.items() for row in rows if row["key"]
    }
    for lookup in lookups():
        ids = lookup.ids(environment_id)
        names |= {(lookup.name, str(id_)): name for name, id_ in ids.items()}
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
