"""Works out what resources change, by changing it: a plan calls the services of apply, and rolls everything back."""

import hashlib
from collections import Counter
from dataclasses import replace
from uuid import UUID, uuid4

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict
from pipedai.api.outside_urls import origin_of
from pipedai.api.renderers import compact_json
from pipedai.events import Actor, Event, emit
from workspaces.files import values
from workspaces.files.changes import Change, plain, told
from workspaces.files.kinds import Kind, Row, kinds, lookups
from workspaces.files.names import named_rows, with_ids
from workspaces.files.requests import Json, Request, check_resources, named
from workspaces.locks import hold_role, lock_environment
from workspaces.roles import Role


def plan(*, environment_id: UUID, request: Request, actor: Actor, role: Role) -> Json:
    """Returns what apply would change, and the digest that it wants. Changes and sends nothing. For who may not apply,
    no secret is compared, since that would let guesses be tried. Raises as `apply` does.
    """
    planner = actor
    if not role.includes(Role.ADMIN):
        # The services want an admin. What the system does here is rolled back.
        request, planner = replace(request, secrets={}), Actor("system")
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
        names = {(of, str(id_)): name for (of, name), id_ in self._ids.items()}
        return [
            told(change, self._row_of(change, after), names, self._role)
            for change in (*self._changes, *gone)
        ]

    def _lock(self, kind: Kind, changes: list[Change]) -> None:
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

    def _change(self, resource: Json) -> Change:
        kind = next(kind for kind in kinds() if kind.name == resource["kind"])
        id_ = self._ids.get((kind.name, resource["key"]))
        row = self._before[kind.name][id_] if id_ else None
        return Change(kind, resource["key"], resource, row, id=id_)

    def _left_over(self) -> list[Change]:
        """Returns the rows that the files had once: those with the label, and without a resource."""
        wanted = {(change.kind.name, change.key) for change in self._changes}
        return [
            Change(kind, row["key"], None, row, id=id_)
            for kind in kinds()
            for id_, row in self._before[kind.name].items()
            if row["managed_by"] == self._request.managed_by
            and row["key"]
            and (kind.name, row["key"]) not in wanted
        ]

    def _digest(self) -> str:
        """Returns a digest of the resources, of all rows that they touch as these are now, and of the ids of those that
        they name: another machine may have a hostname by now.
        """
        rows = [
            plain(change.kind, change.row) if change.row else None
            for change in (*self._changes, *self._gone)
        ]
        ids = [
            self._ids.get(name)
            for change in self._changes
            for name in named_rows(change.kind, change.resource or {})
        ]
        said = compact_json([self._request.managed_by, self._request.resources, rows, ids])
        return hashlib.sha256(said.encode()).hexdigest()

    def _read(self, change: Change) -> None:
        assert change.resource is not None
        fields = {name: value for name, value in change.resource.items() if name != "kind"}
        with named(change.name, change.kind):
            with_label = {**fields, "managedBy": self._request.managed_by}
            plain = with_ids(change.kind, with_label, self._ids)
            change.wanted = values.read(
                change.kind,
                plain,
                self._request.secrets,
                change.row,
                is_plan=self._request.is_plan,
            )

    def _empty_late(self, change: Change) -> None:
        """Empties the fields that name rows of the same kind if they change, so that no order of changes leads over a
        circle, or to a row that another one still names.
        """
        if change.row is None or change.id is None:
            return
        empty = {name: change.kind.without_any[name] for name in change.kind.late_sources}
        wanted = change.wanted.values if change.wanted else empty
        stale = {
            name: value
            for name, value in empty.items()
            if values.canonical(change.row[name])
            not in {values.canonical(value), values.canonical(wanted[name])}
        }
        if stale:
            with named(change.name, change.kind):
                change.kind.update(change.id, values=stale, actor=self._actor)

    def _save(self, change: Change) -> None:
        """Makes or changes the row, without the fields that may name rows which are not there yet."""
        self._read(change)
        if change.is_wanted:
            return
        self._warn(change)
        late = change.kind.late_sources
        everything = self._everything(change)
        with named(change.name, change.kind):
            if change.id is None:
                without = change.kind.without_any
                first = {**without, **everything, **{name: without[name] for name in late}}
                change.id = change.kind.create(
                    environment_id=self._environment_id, values=first, actor=self._actor
                )
                self._ids[change.kind.name, change.key] = change.id
            else:
                first = {name: value for name, value in everything.items() if name not in late}
                change.kind.update(change.id, values=first, actor=self._actor)

    def _save_late(self, change: Change) -> None:
        late = change.kind.late_sources
        if not late:
            return
        self._read(change)
        assert change.wanted is not None
        assert change.id is not None
        if change.is_wanted:
            return
        last = {name: value for name, value in change.wanted.values.items() if name in late}
        with named(change.name, change.kind):
            change.kind.update(change.id, values=last, actor=self._actor)

    def _delete(self, change: Change) -> None:
        """Deletes a row. A plan warns of a refusal."""
        assert change.id is not None
        try:
            with named(change.name, change.kind):
                change.kind.delete(change.id, actor=self._actor)
        except ApiError as error:
            if not self._request.is_plan:
                raise
            change.warnings.append(error.message)

    def _everything(self, change: Change) -> Row:
        """Returns the values of a change with those secrets that are new."""
        assert change.wanted is not None
        return change.wanted.everything(change.kind, only=change.secrets)

    def _warn(self, change: Change) -> None:
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

    def _row_of(self, change: Change, after: dict[str, dict[UUID, Row]]) -> Row | None:
        """Returns the row of a resource as it is after all changes; None for what is to be deleted."""
        assert change.id is not None
        return after[change.kind.name].get(change.id) if change.resource else None

    def _check_origins(self, after: dict[str, dict[UUID, Row]]) -> None:
        """Raises Conflict if a secret that was written goes to an origin to which none went before. A plan warns."""
        known = {*self._request.accept_origins} | {
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
