"""The columns and constraints that tables of tenants share: the environment, keys to other tables, sealed values, and
what files need to describe a row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.events import is_together
from pipedai.ids import new_id
from pipedai.table_rules import check, has, lacks, unique


def environment_key(related_name: str = "+", **kwargs: Any) -> Any:
    """Returns the key to the environment that owns a row. It has no index, because other indexes begin with it."""
    return models.ForeignKey(
        "workspaces.Environment",
        on_delete=models.PROTECT,
        related_name=related_name,
        db_index=False,
        **kwargs,
    )


def tenant_key(to: str, *, related_name: str = "+", **kwargs: Any) -> Any:
    """Returns a key to another table of tenants. A migration must add its constraint on `(environment_id, id)` in SQL
    (`pipedai.table_rules`), because Django's foreign keys have one column.
    """
    return models.ForeignKey(
        to,
        on_delete=models.PROTECT,
        related_name=related_name,
        db_constraint=False,
        db_index=False,
        **kwargs,
    )


def in_environment(table: str) -> models.UniqueConstraint:
    """Returns the unique constraint of a table that keys of other tables to `(environment_id, id)` refer to."""
    return unique(f"{table}_in_environment", ["environment", "id"])


def has_its_key(table: str, column: str) -> models.CheckConstraint:
    """Returns the constraint that a sealed value and its data key are both there, or both missing."""
    key = f"{column}_key"
    return check(f"{table}_{column}_has_a_key", lacks(column, key) | has(column, key))


class TenantRow(models.Model):
    """A row of one environment. It never moves to another one."""

    # A UUIDv7. A service that seals a value for the row, or makes a row that refers to it, makes the id before the row.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = environment_key()

    class Meta:
        abstract = True


@dataclass(frozen=True, slots=True)
class SealedField:
    """A column with sealed values, and the column with their data keys. The table also has `id` and
    `environment_id`. The names of the table and column are part of the encryption, so renaming them would make
    stored values unreadable.
    """

    table: str
    column: str
    key_column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"

    def into(self, statement: str) -> str:
        return statement.format(table=self.table, column=self.column, key_column=self.key_column)


_registered: dict[str, SealedField] = {}


def sealed_column(table: str, column: str, key_column: str) -> SealedField:
    """Declares a column with sealed values, beside the model that has it."""
    field = SealedField(table, column, key_column)
    _registered[str(field)] = field
    return field


def sealed_fields() -> tuple[SealedField, ...]:
    return tuple(_registered.values())


MAX_KEY = 64
MAX_LABEL = 200
KEY_PATTERN = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_CONSTRAINT = "_has_own_key"


class FileColumns(TenantRow):
    """The columns of all rows that files may describe."""

    # The name that people gave the row: 1 to 200 characters. Only those of pools are unique.
    name = models.CharField(max_length=200)
    # The row's key in files, unique in the environment; NULL if it has none. Users choose it.
    key = models.CharField(max_length=MAX_KEY, null=True)
    # The label of the files that describe the row, which `apply` writes; NULL if no files do.
    managed_by = models.CharField(max_length=MAX_LABEL, null=True)
    # When the row was inserted, by the database's clock.
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


def own_key(table: str, *, live: Q | None = None) -> models.UniqueConstraint:
    """Returns the constraint that no two live rows of an environment have the same key."""
    return unique(f"{table}{_CONSTRAINT}", ["environment", "key"], where=has("key") & (live or Q()))


@contextmanager
def keeping_keys() -> Iterator[None]:
    """Wraps the statements that write a row. Raises Conflict if another live row of the environment has its key.
    Changes made together need no savepoint, because they are also undone together.
    """
    try:
        with transaction.atomic(savepoint=not is_together()):
            yield
    except IntegrityError as error:
        diagnosis = getattr(error.__cause__, "diag", None)
        if not str(getattr(diagnosis, "constraint_name", "")).endswith(_CONSTRAINT):
            raise
        raise Conflict(
            "Another row of this kind has the key in this environment.", code=ErrorCode.KEY_TAKEN
        ) from None
