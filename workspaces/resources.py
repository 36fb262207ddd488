"""Creates, changes and deletes the resources of an environment, such as pools and triggers, with their audit events.

A resource is a kind of row that has an endpoint, and that files may describe. `resource_views.py` has the endpoints.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import copy
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from pipedai.api.renderers import api_name, for_audit
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from workspaces.ceilings import check_ceiling
from workspaces.locks import hold_role, lock_environment, lock_row
from workspaces.roles import Role
from workspaces.tenant_columns import FileColumns, keeping_keys

M = TypeVar("M", bound=FileColumns)


class Resource(Generic[M]):
    """The frame of every change: the locks, the role, the ceiling, the audit event, and one transaction around them. A
    subclass names its model, and overrides the steps that differ for it.
    """

    # The word for a row in files, URLs and audit actions. The name of the ceiling is this word with an `s`.
    noun: ClassVar[str]
    model: type[M]
    # Whether rows of other tables refer to these rows. A deletion then waits for transactions that add a reference.
    is_referred_to: ClassVar[bool] = False
    # The columns that a change writes; None for all. A resource lists them if other code writes the remaining columns
    # without locking the row, because a change would undo what that code wrote.
    written: ClassVar[tuple[str, ...] | None] = None
    # The columns that a deletion sets to NULL, if deleted rows stay and are only marked.
    emptied: ClassVar[tuple[str, ...]] = ()
    # What the audit row of a creation shows besides the name: columns, by the names that the API has for them.
    described_by: ClassVar[Mapping[str, str]] = {}
    # Whether the audit row of a change shows long lists and objects in full, and does not shorten them.
    tells_all: ClassVar[bool] = False

    @cached_property
    def columns(self) -> frozenset[str]:
        """The names of the columns. That of a key to another row ends in `_id`."""
        return frozenset(field.attname for field in self.model._meta.concrete_fields)

    @property
    def is_marked(self) -> bool:
        """Whether a deleted row stays, with the time at which it was deleted."""
        return "deleted_at" in self.columns

    @property
    def live(self) -> QuerySet[M]:
        rows = self.model._default_manager.all()
        return rows.filter(Q(deleted_at__isnull=True)) if self.is_marked else rows

    @property
    def row(self) -> tuple[str, str]:
        """The attribute `row` of a viewset whose URL names a row. Deleted rows are not found."""
        rows = f"SELECT id, environment_id FROM {self.model._meta.db_table}"  # noqa: S608
        return f"{self.noun}_id", f"{rows} WHERE deleted_at IS NULL" if self.is_marked else rows

    def apply(self, row: M, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Sets the given values that differ from the row, which may be new. Returns the changes for the audit row, `{
        field: [old, new] }`. Raises Invalid for values that don't fit the row.
        """
        changes = {}
        for column, new in values.items():
            if new != (old := getattr(row, column)):
                changes[api_name(column)] = [self.shown(column, value) for value in (old, new)]
                setattr(row, column, new)
        return changes

    def shown(self, column: str, value: Any) -> Any:
        """Returns a value as the audit row of a change shows it."""
        return value if self.tells_all else for_audit(value)

    def follow_up(self, row: M, before: M | None, actor: Actor) -> None:
        """Runs after a row was created, changed or deleted, in the same transaction. `before` is the row as it was, or
        None if it is new.
        """

    def release(self, row: M) -> None:
        """Runs before a row is deleted, and removes what belongs to it. Raises Conflict if the row is still used."""

    def keeping(self) -> AbstractContextManager[None]:
        """Returns the transaction of a creation or change. Raises Conflict for a name or key that another row has."""
        return keeping_keys()

    def create(
        self, *, environment_id: UUID, values: dict[str, Any], actor: Actor, id_: UUID | None = None
    ) -> UUID:
        """Creates a row from the values of its body. Returns its id, which is `id_` if that is given. Raises NotFound,
        Invalid, CeilingReached, Conflict for a taken key, and the errors of `hold_role`.
        """
        row = self.model(id=id_ or new_id(), environment_id=environment_id)
        name = f"{self.noun}s"
        with self.keeping():
            lock_environment(environment_id)
            hold_role(actor, environment_id, Role.ADMIN)
            rows = self.live.filter(environment_id=environment_id)
            check_ceiling(name, name, environment_id=environment_id, rows=rows)
            self.apply(row, values, actor)
            row.save(force_insert=True)
            metadata = {name: getattr(row, column) for name, column in self.described_by.items()}
            self.emit("created", row, actor, {"name": row.name, **metadata})
            self.follow_up(row, None, actor)
        return row.id

    def update(
        self,
        row_id: UUID,
        *,
        values: dict[str, Any],
        actor: Actor,
        environment_id: UUID | None = None,
    ) -> None:
        """Sets the given values that differ from the row. A caller who knows the row's environment names it, which
        saves a query. Raises NotFound, Invalid, Conflict for a taken key, and the errors of `hold_role`.
        """
        with self.keeping():
            row = self.lock(row_id, actor, environment_id=environment_id)
            before = copy(row)
            changes = self.apply(row, values, actor)
            if not changes:
                return
            if "updated_at" in self.columns:
                vars(row)["updated_at"] = Now()
            row.save(force_update=True, update_fields=self.written)
            self.emit("updated", row, actor, changes)
            self.follow_up(row, before, actor)

    def delete(self, row_id: UUID, *, actor: Actor, environment_id: UUID | None = None) -> None:
        """Deletes a row, or marks it as deleted. Raises NotFound, Conflict for a row that is still used, and the errors
        of `hold_role`.
        """
        # A plan continues after a refused deletion. The savepoint undoes what this one did before the refusal.
        with transaction.atomic():
            no_key = not self.is_referred_to
            row = self.lock(row_id, actor, environment_id=environment_id, no_key=no_key)
            self.release(row)
            rows = self.model._default_manager.filter(id=row.id)
            if self.is_marked:
                rows.update(deleted_at=Now(), **dict.fromkeys(self.emptied))
            else:
                rows.delete()
            self.emit("deleted", row, actor, {"name": row.name})
            self.follow_up(row, row, actor)

    def lock(
        self,
        row_id: UUID,
        actor: Actor,
        *,
        environment_id: UUID | None = None,
        no_key: bool = True,
    ) -> M:
        """Locks a row until the transaction ends, and returns it. Raises NotFound, and the errors of `hold_role` for
        actors who are no admins.
        """
        rows = self.live.filter(id=row_id)
        return lock_row(rows, actor, environment_id=environment_id, no_key=no_key)

    def emit(self, action: str, row: M, actor: Actor, metadata: dict[str, Any]) -> None:
        name = f"{self.noun}.{action}"
        emit(Event(name, actor, row.environment_id, self.noun, row.id, metadata))
