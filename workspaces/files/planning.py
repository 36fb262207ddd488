"""Works out what resources change by changing it: a plan runs the same services as apply, on copies of the rows."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db import OperationalError, connection, transaction
from psycopg.errors import QueryCanceled

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict
from pipedai.api.renderers import compact_json
from pipedai.events import Actor, Event, emit, together
from pipedai.ids import new_id
from pipedai.sql import execute, planned_for_values, use_own_copies
from workspaces.files import values
from workspaces.files.changes import (
    Change,
    Json,
    Request,
    check_origins,
    check_resources,
    named,
    plain,
    told,
)
from workspaces.files.kinds import Kind, Row, ids_by_name, kinds, lock_rows
from workspaces.files.values import named_rows, names_of, with_ids
from workspaces.locks import hold_role, lock_environment
from workspaces.roles import Role

# For how many seconds a plan or apply may keep the database busy, and compute in its thread.
MOST_SECONDS = 5.0
MOST_CPU_SECONDS = 2.0
_SET_TIMEOUT = "SELECT set_config('statement_timeout', %(milliseconds)s, true)"


def plan(*, environment_id: UUID, request: Request, actor: Actor, role: Role) -> Json:
    """Returns what apply would change, and the digest that apply requires. It changes and sends nothing, and holds no
    locks that others wait for. For a caller who may not apply, no secret is compared, because that would let them test
    guesses. Raises as `apply` does.
    """
    planner = actor
    if not role.includes(Role.ADMIN):
        # The services require an admin, so the system acts here. What it does is rolled back.
        request, planner = replace(request, secrets={}), Actor("system")
    with _snapshot(), limited_time(), together(is_rehearsal=True):
        work = _Work(environment_id, request, planner, role)
        work.read()
        work.compare()
        work.rehearse()
        changes = work.changes()
        transaction.set_rollback(True)
    return {"digest": work.digest, "changes": changes}


def apply(*, environment_id: UUID, request: Request, actor: Actor) -> Json:
    """Makes all changes, or none. Raises Conflict if the digest differs, because a row has changed since the plan, or
    if a secret would go to a new origin or be lost. Raises Invalid and all errors of the services, with the resource's
    name.
    """
    with transaction.atomic(), limited_time(), together():
        # Slow work is done before the first lock. The digest is checked again under the locks.
        work = _Work(environment_id, request, actor)
        _check_digest(work)
        work.read()
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        work.look()
        _check_digest(work)
        work.compare()
        changes = work.changes()
        counts = Counter(f"{change['action']}d" for change in changes if change["action"] != "none")
        said = {"managedBy": request.managed_by, "digest": work.digest, **counts}
        emit(Event("files.applied", actor, environment_id, "environment", environment_id, said))
        return {"digest": work.digest, "changes": changes}


@contextmanager
def _snapshot() -> Iterator[None]:
    """Wraps a plan. All of its reads see the same rows, unless a transaction is already open, as in a test."""
    is_outermost = not connection.in_atomic_block
    with planned_for_values(), transaction.atomic():
        if is_outermost:
            execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", {})
        yield


def _check_digest(work: "_Work") -> None:
    if work.digest != work.request.digest:
        raise Conflict(
            "The resources, or rows that they touch, have changed since the plan.",
            code=ErrorCode.PLAN_STALE,
        )


class _Work:
    """One plan or apply."""

    def __init__(
        self, environment_id: UUID, request: Request, actor: Actor, role: Role = Role.ADMIN
    ) -> None:
        self._began = time.thread_time()
        self._cpu = defaultdict[str, float](float)
        check_resources(request.resources)
        self.request = request
        self._role = role
        self._environment_id = environment_id
        self._actor = actor
        by_name = {kind.name: kind for kind in kinds()}
        self._changes = [
            Change(by_name[each["kind"]], each["key"], each, new_id()) for each in request.resources
        ]
        self._new_ids = {(each.kind.name, each.key): each.id for each in self._changes}
        self.look()

    def look(self) -> None:
        """Reads the existing rows."""
        self._before = {
            kind.name: {row["id"]: row for row in kind.rows(self._environment_id)}
            for kind in kinds()
        }
        rows = {name: those.values() for name, those in self._before.items()}
        self._ids = ids_by_name(self._environment_id, rows)
        for change in self._changes:
            name = (change.kind.name, change.key)
            change.id = self._ids.get(name, self._new_ids[name])
            change.row = self._before[change.kind.name].get(change.id)
        self._gone = self._left_over()
        self.digest = self._digest()

    def read(self) -> None:
        """Checks the fields of all resources. The check depends only on rows that the digest covers."""
        order = [kind.name for kind in kinds()]
        self._ordered = sorted(self._changes, key=lambda change: order.index(change.kind.name))
        ids = self._new_ids | self._ids
        bodies = {kind.name: kind.body() for kind in kinds()}
        for change in self._ordered:
            assert change.resource is not None
            fields = {name: value for name, value in change.resource.items() if name != "kind"}
            with self._at(change):
                with_label = {**fields, "managedBy": self.request.managed_by}
                change.wanted = values.read(
                    change.kind,
                    bodies[change.kind.name],
                    with_ids(change.kind, with_label, ids),
                    self.request.secrets,
                    change.row,
                    is_plan=self.request.is_plan,
                )

    def compare(self) -> None:
        """Finds out which rows must change. The locks, or the snapshot, keep the rows as it reads them."""
        for change in self._ordered:
            change.compare(with_secrets=self._role.includes(Role.ADMIN))
        self._changed = [change for change in self._ordered if change.row is None or change.values]

    def rehearse(self) -> None:
        """Runs the changes on copies of the rows that they change, count or refer to."""
        touched = [*self._changed, *self._gone]
        tables: dict[str, str] = {}
        for kind in {change.kind.name: change.kind for change in touched}.values():
            tables |= kind.writes
        for kind in {each.kind.name: each.kind for each in self._changed if not each.row}.values():
            kind.count_elsewhere(self._environment_id)
        params = {
            "environment_id": self._environment_id,
            "ids": [change.id for change in touched],
            "gone": [change.id for change in self._gone],
        }
        use_own_copies(tables, params)

    def changes(self) -> list[Json]:
        """Makes the changes, each after those that it refers to, and returns them as the API shows them."""
        gone = self._gone if self.request.is_plan or self.request.prune else []
        changed = self._changed
        for kind in kinds():
            self._lock(kind, [each for each in (*changed, *gone) if each.kind is kind])
        for change in (*changed, *gone):
            self._empty_late(change)
        for change in changed:
            self._save(change)
        for change in changed:
            self._update(change, change.late)
        for change in reversed(gone):
            self._delete(change)
        after = self._after()
        check_origins(self._before, self._changed, after, self.request)
        names = names_of(self._new_ids | self._ids)
        return [
            told(change, after.get(change.id, change.row), names, self._role)
            for change in self._changes
        ] + [told(change, None, names, self._role) for change in gone]

    def _lock(self, kind: Kind, changes: list[Change]) -> None:
        """Locks rows (in a rehearsal their copies) after the locks that come before them, and reads them."""
        if not changes:
            return
        new = [change.values for change in changes if change.row is None]
        present = {change.id: change.values for change in changes if change.row is not None}
        kind.lock_before(self._environment_id, new, list(present.values()))
        lock_rows(kind.resource.live.filter(id__in=present, environment_id=self._environment_id))
        if present:
            kind.keep(list(present))

    def _left_over(self) -> list[Change]:
        """Returns the rows that the files no longer describe: rows with the label and without a resource."""
        return [
            Change(kind, row["key"], None, id_, row)
            for kind in kinds()
            for id_, row in self._before[kind.name].items()
            if row["managed_by"] == self.request.managed_by
            and row["key"]
            and (kind.name, row["key"]) not in self._new_ids
        ]

    def _digest(self) -> str:
        """Returns a digest of the resources, of the present state of all rows that they touch, and of the ids of rows
        that they name, because a hostname may belong to another machine by now.
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
        # Each part is written alone, because no other thread computes while JSON is written.
        digest = hashlib.sha256()
        for part in (self.request.managed_by, *self.request.resources, *rows, ids):
            digest.update(compact_json(part).encode() + b"\n")
        return digest.hexdigest()

    def _empty_late(self, change: Change) -> None:
        """Empties the fields that name rows of the same kind if they change. Then the changes work in any order, even
        if rows refer to each other in a circle, or a row to be deleted is still named.
        """
        if change.row is None:
            return
        empty = {name: change.kind.without_any[name] for name in change.kind.late_sources}
        stale = {
            name: value
            for name, value in empty.items()
            if (change.resource is None or name in change.values)
            and not values.same(change.row[name], value)
        }
        self._update(change, stale)

    def _save(self, change: Change) -> None:
        """Creates or changes the row, without the fields that may name rows which do not exist yet."""
        self._warn(change)
        late = change.kind.late_sources
        first = {name: value for name, value in change.values.items() if name not in late}
        if change.row is not None:
            self._update(change, first)
            return
        with self._at(change):
            change.kind.resource.create(
                environment_id=self._environment_id,
                values={**change.kind.without_any, **first},
                actor=self._actor,
                id_=change.id,
            )

    def _update(self, change: Change, said: Row) -> None:
        if said:
            with self._at(change):
                change.kind.resource.update(
                    change.id, environment_id=self._environment_id, values=said, actor=self._actor
                )

    def _delete(self, change: Change) -> None:
        """Deletes a row. In a plan, a refusal becomes a warning."""
        try:
            with self._at(change):
                change.kind.resource.delete(
                    change.id, environment_id=self._environment_id, actor=self._actor
                )
        except ApiError as error:
            if not self.request.is_plan:
                raise
            change.warnings.append(error.message)

    @contextmanager
    def _at(self, change: Change) -> Iterator[None]:
        """Names the resource in errors, and counts what it costs. Raises Conflict if all have cost too much."""
        began = time.thread_time()
        with named(change):
            yield
        self._cpu[change.name] += time.thread_time() - began
        if time.thread_time() - self._began > MOST_CPU_SECONDS:
            name, seconds = max(self._cpu.items(), key=itemgetter(1))
            raise Conflict(
                f"It takes more than {MOST_CPU_SECONDS:g} seconds of computing: change less at once. The costliest is"
                f" {name}, with {1000 * seconds:,.0f} ms.",
                code=ErrorCode.TOO_MUCH_FOR_FILES,
            )

    def _warn(self, change: Change) -> None:
        """Adds warnings for the reader of the plan."""
        assert change.wanted is not None
        label = change.row and change.row["managed_by"]
        if label not in {None, self.request.managed_by}:
            change.warnings.append(f"It is managed by {label} until now.")
        for name in change.wanted.literal:
            change.warnings.append(f"{name} is in the file in clear. Write it as a secret's name.")
        for name in change.wanted.unset:
            if not values.has_secret(change.kind, change.row, name):
                change.warnings.append(f"{name} has no value yet.")

    def _after(self) -> dict[UUID, Row]:
        """Returns the present state of the rows that were made or changed."""
        return {
            row["id"]: row
            for kind in kinds()
            if (ids := [change.id for change in self._changed if change.kind is kind])
            for row in kind.rows(self._environment_id, ids)
        }


@contextmanager
def limited_time() -> Iterator[None]:
    """Limits the time of a transaction. Raises Conflict once its statements have taken MOST_SECONDS in all."""
    spent = 0.0

    def measure(
        run: Callable[..., Any], statement: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        nonlocal spent
        # The time that this thread itself computes is subtracted, because the limit is on the database's time.
        began, own = time.monotonic(), time.thread_time()
        try:
            return run(statement, params, many, context)
        except OperationalError as error:
            if isinstance(error.__cause__, QueryCanceled):
                raise _too_much() from None
            raise
        finally:
            spent += time.monotonic() - began - (time.thread_time() - own)
            if spent > MOST_SECONDS:
                raise _too_much()

    with connection.execute_wrapper(measure):
        execute(_SET_TIMEOUT, {"milliseconds": str(int(1000 * MOST_SECONDS))})
        yield


def _too_much() -> Conflict:
    return Conflict(
        f"It keeps the database busy for more than {MOST_SECONDS:g} seconds: change less at once.",
        code=ErrorCode.TOO_MUCH_FOR_FILES,
    )
