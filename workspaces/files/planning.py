"""Works out what resources change, by changing it: a plan calls the services of apply, and rolls everything back."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict
from pipedai.api.outside_urls import origin_of
from pipedai.api.renderers import compact_json
from pipedai.events import Actor, Event, emit
from workspaces.files import values
from workspaces.files.kinds import Kind, Row, kinds, lookups
from workspaces.files.names import with_ids, with_names
from workspaces.files.requests import Json, Request, check_resources, named
from workspaces.files.values import Wanted
from workspaces.locks import hold_role, lock_environment
from workspaces.roles import Role

# What a plan shows in place of a secret.
_SET = "set"


def plan(*, environment_id: UUID, request: Request, actor: Actor, role: Role) -> Json:
    """Returns what apply would change, and the digest that it wants. Changes and sends nothing. For who may not apply,
    no secret is compared, since that would let guesses be tried. Raises as `apply` does.
    """
    planner = actor
    if not role.includes(Role.ADMIN):
        # The services want an admin. What the system does here is rolled back.
        request, planner = Request(request.managed_by, request.resources), Actor("system")
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.VIEWER)
        work = _Work(environment_id, request, planner, role)
        changes = work.changes()
        transaction.set_rollback(True)
    return {"digest": work.digest, "changes": changes}


def apply(*, environment_id: UUID, request: Request, actor: Actor) -> Json:
    """Makes all changes, or none. Raises Conflict if the digest is another, because a row has changed since the plan,
    or a secret would go to a new origin; Invalid, and whatever else a service refuses, with the resource's name.
    """
    with transaction.atomic():
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        work = _Work(environment_id, request, actor)
        if work.digest != request.digest:
            raise Conflict(
                "The resources, or rows that they touch, have changed since the plan.",
                code=ErrorCode.PLAN_STALE,
            )
        changes = work.changes()
        counts = Counter(f"{change['action']}d" for change in changes if change["action"] != "none")
        said = {"managedBy": request.managed_by, "digest": work.digest, **counts}
        emit(Event("files.applied", actor, environment_id, "environment", environment_id, said))
        return {"digest": work.digest, "changes": changes}


@dataclass(slots=True)
class _Change:
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
        return f"{self.kind.name} {self.key}"

    @property
    def is_wanted(self) -> bool:
        """Whether the row is as the resource says, with its secrets, so that nothing has to be done."""
        assert self.wanted is not None
        return (
            self.row is not None
            and not self.secrets
            and values.is_as_wanted(self.kind, self.row, self.wanted)
        )


class _Work:
    """One plan or apply, in its transaction."""

    def __init__(
        self, environment_id: UUID, request: Request, actor: Actor, role: Role = Role.ADMIN
    ) -> None:
        check_resources(request.resources)
        self._role = role
        self._environment_id = environment_id
        self._request = request
        self._actor = actor
        self._before = self._live()
        self._ids = self._named_rows()
        self._changes = [self._change(resource) for resource in request.resources]
        self._gone = self._left_over()
        self.digest = self._digest()

    def changes(self) -> list[Json]:
        """Makes the changes in an order in which each finds what it refers to, and tells what they were."""
        order = [kind.name for kind in kinds()]
        ordered = sorted(self._changes, key=lambda change: order.index(change.kind.name))
        # Rows that are to be made have no id yet. Until then another one stands for it.
        for change in ordered:
            self._ids.setdefault((change.kind.name, change.key), uuid4())
        for change in ordered:
            self._read(change)
            assert change.wanted is not None
            change.secrets = values.changed_secrets(
                change.kind,
                change.row,
                change.wanted,
                compared=self._role.includes(Role.ADMIN),
            )
        for kind in kinds():
            self._lock(kind, [each for each in ordered if not each.is_wanted])
        deletes = self._request.is_plan or self._request.prune
        gone = self._gone if deletes else []
        for change in (*ordered, *gone):
            self._empty_late(change)
        for change in ordered:
            self._save(change)
        for change in ordered:
            self._save_late(change)
        for change in reversed(gone):
            self._delete(change)
        after = self._live()
        self._check_origins(after)
        return [self._told(change, after) for change in (*self._changes, *gone)]

    def _lock(self, kind: Kind, changes: list[_Change]) -> None:
        mine = [change for change in changes if change.kind is kind]
        gone = [change for change in self._gone if change.kind is kind]
        ids = [change.id for change in (*mine, *gone) if change.id is not None]
        if ids or mine:
            kind.lock(self._environment_id, ids, [self._everything(change) for change in mine])

    def _live(self) -> dict[str, dict[UUID, Row]]:
        return {
            kind.name: {row["id"]: row for row in kind.rows(self._environment_id)}
            for kind in kinds()
        }

    def _named_rows(self) -> dict[tuple[str, str], UUID]:
        keyed = {
            (name, row["key"]): id_
            for name, rows in self._before.items()
            for id_, row in rows.items()
            if row["key"]
        }
        for lookup in lookups():
            ids = lookup.ids(self._environment_id)
            keyed |= {(lookup.name, name): id_ for name, id_ in ids.items()}
        return keyed

    def _change(self, resource: Json) -> _Change:
        kind = next(kind for kind in kinds() if kind.name == resource["kind"])
        id_ = self._ids.get((kind.name, resource["key"]))
        row = self._before[kind.name][id_] if id_ else None
        return _Change(kind, resource["key"], resource, row, id=id_)

    def _left_over(self) -> list[_Change]:
        """Returns the rows that the files had once: those with the label, and without a resource."""
        wanted = {(change.kind.name, change.key) for change in self._changes}
        return [
            _Change(kind, row["key"], None, row, id=id_)
            for kind in kinds()
            for id_, row in self._before[kind.name].items()
            if row["managed_by"] == self._request.managed_by
            and row["key"]
            and (kind.name, row["key"]) not in wanted
        ]

    def _digest(self) -> str:
        """Returns a digest of the resources, and of all rows that they touch as these are now."""
        rows = [
            _plain(change.kind, change.row) if change.row else None
            for change in (*self._changes, *self._gone)
        ]
        said = compact_json([self._request.managed_by, self._request.resources, rows])
        return hashlib.sha256(said.encode()).hexdigest()

    def _read(self, change: _Change) -> None:
        assert change.resource is not None
        fields = {name: value for name, value in change.resource.items() if name != "kind"}
        with named(change.name):
            with_label = {**fields, "managedBy": self._request.managed_by}
            plain = with_ids(change.kind, with_label, self._ids)
            change.wanted = values.read(
                change.kind,
                plain,
                self._request.secrets,
                change.row,
                is_plan=self._request.is_plan,
            )

    def _empty_late(self, change: _Change) -> None:
        """Empties the fields that name rows of the same kind if they change, so that no order of changes leads over a
        circle, or to a row that another one still names.
        """
        if change.row is None or change.id is None:
            return
        empty = {
            name: values.without_any(change.kind)[name] for name in self._late_sources(change.kind)
        }
        wanted = change.wanted.values if change.wanted else empty
        stale = {
            name: value
            for name, value in empty.items()
            if values.canonical(change.row[name])
            not in {values.canonical(value), values.canonical(wanted[name])}
        }
        if stale:
            with named(change.name):
                change.kind.update(change.id, values=stale, actor=self._actor)

    def _save(self, change: _Change) -> None:
        """Makes or changes the row, without the fields that may name rows which are not there yet."""
        self._read(change)
        if change.is_wanted:
            return
        self._warn(change)
        late = self._late_sources(change.kind)
        everything = self._everything(change)
        with named(change.name):
            if change.id is None:
                first = {**values.without_any(change.kind), **everything}
                first |= {name: values.without_any(change.kind)[name] for name in late}
                change.id = change.kind.create(
                    environment_id=self._environment_id, values=first, actor=self._actor
                )
                self._ids[change.kind.name, change.key] = change.id
            else:
                first = {name: value for name, value in everything.items() if name not in late}
                change.kind.update(change.id, values=first, actor=self._actor)

    def _save_late(self, change: _Change) -> None:
        late = self._late_sources(change.kind)
        if not late:
            return
        self._read(change)
        assert change.wanted is not None
        assert change.id is not None
        if change.is_wanted:
            return
        last = {name: value for name, value in change.wanted.values.items() if name in late}
        with named(change.name):
            change.kind.update(change.id, values=last, actor=self._actor)

    def _delete(self, change: _Change) -> None:
        """Deletes a row. A plan warns of a refusal."""
        assert change.id is not None
        try:
            with named(change.name):
                change.kind.delete(change.id, actor=self._actor)
        except ApiError as error:
            if not self._request.is_plan:
                raise
            change.warnings.append(error.message)

    def _everything(self, change: _Change) -> Row:
        """Returns the values of a change with those secrets that are new."""
        assert change.wanted is not None
        return change.wanted.everything(change.kind, only=change.secrets)

    def _late_sources(self, kind: Kind) -> set[str]:
        fields = kind.body().fields if kind.late else {}
        return {str(fields[name].source) for name in kind.late}

    def _warn(self, change: _Change) -> None:
        """Says what whoever reads the plan should know."""
        assert change.wanted is not None
        if change.row is not None and change.row["managed_by"] not in {
            None,
            self._request.managed_by,
        }:
            change.warnings.append(f"It is managed by {change.row['managed_by']} until now.")
        for name in change.wanted.literal:
            change.warnings.append(f"{name} is in the file in clear. Write it as a secret's name.")
        for name in change.wanted.unset:
            if not values.has_secret(change.kind, change.row, name):
                change.warnings.append(f"{name} has no value yet.")

    def _check_origins(self, after: dict[str, dict[UUID, Row]]) -> None:
        """Raises Conflict if a secret that was written goes to an origin to which none went before. A plan warns."""
        known = self._request.accept_origins | {
            origin_of(row[secret.target])
            for kind in kinds()
            for secret in kind.secrets.values()
            if secret.target
            for row in self._before[kind.name].values()
            if row[secret.sealed.column] is not None and row[secret.target]
        }
        for change in self._changes:
            for name in change.secrets:
                assert change.id is not None
                row, secret = after[change.kind.name][change.id], change.kind.secrets[name]
                if not secret.target or row[secret.sealed.column] is None:
                    continue
                origin = origin_of(row[secret.target])
                if origin in known:
                    continue
                sentence = (
                    f"{name} would go to {origin}, where no secret goes yet: accept this origin."
                )
                if not self._request.is_plan:
                    raise Conflict(f"{change.name}: {sentence}", code=ErrorCode.NEW_ORIGIN)
                change.warnings.append(sentence)

    def _told(self, change: _Change, after: dict[str, dict[UUID, Row]]) -> Json:
        assert change.id is not None
        new = after[change.kind.name].get(change.id) if change.resource else None
        old_fields, new_fields = (
            self._fields(change.kind, change.row),
            self._fields(change.kind, new),
        )
        names = [*new_fields, *(name for name in old_fields if name not in new_fields)]
        diff: Json = {
            name: [old_fields.get(name), new_fields.get(name)]
            for name in names
            if values.canonical(old_fields.get(name)) != values.canonical(new_fields.get(name))
        }
        for name in change.secrets:
            had = values.has_secret(change.kind, change.row, name)
            has = values.has_secret(change.kind, new, name)
            diff[name] = [_SET if had else None, _SET if has else None]
        if change.resource is None:
            action, diff = "delete", {}
        elif change.row is None:
            action = "create"
        else:
            action = "update" if diff else "none"
        if not self._role.includes(change.kind.readers):
            diff = {}
        return {
            "kind": change.kind.name,
            "key": change.key,
            "action": action,
            "diff": diff,
            "warnings": change.warnings,
            **(change.kind.remarks(change.row, new) if new and action != "none" else {}),
        }

    def _fields(self, kind: Kind, row: Row | None) -> Json:
        """Returns what a diff compares: a row's fields as files have them, and whose it is."""
        if row is None:
            return {}
        keys = {(of, str(id_)): name for (of, name), id_ in self._ids.items()}
        label = {"managedBy": row["managed_by"]} if row["managed_by"] else {}
        return {**with_names(kind, values.shown(kind, row), keys), **label}


def _plain(kind: Kind, row: Row) -> Json:
    """Returns a row as JSON can have it. Of what is sealed, a digest will do."""
    sealed = {column for secret in kind.secrets.values() for column in secret.columns}
    plain = {name: value for name, value in row.items() if name not in sealed}
    for name, secret in kind.secrets.items():
        box = row[secret.sealed.column]
        if box is not None and not secret.is_renewed and not kind.hides(row, name):
            plain[secret.sealed.column] = hashlib.sha256(bytes(box)).hexdigest()
    return plain
