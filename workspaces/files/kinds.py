"""The kinds of rows that files may describe. Each app registers its own, because only it knows how they are changed."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import BigIntegerField, F, Func, QuerySet, Sum, TextField
from rest_framework.fields import empty

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.api.serializers import Body
from pipedai.crypto import CannotOpen
from workspaces.encryption import keys
from workspaces.resources import Resource
from workspaces.roles import Role
from workspaces.tenant_columns import FileColumns, SealedField

Row = dict[str, Any]
# SQL conditions on the rows that a rehearsal copies: all rows of the environment, or none.
OF_ENVIRONMENT, NONE = "environment_id = %(environment_id)s", "false"
# The most bytes that the long columns of an environment may have together: four times the body of an apply.
MOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A field whose value is never shown. `read` turns the decrypted bytes into the value. `target` is the column with
    the URL that the secret is for, or "" if there is none. If rows need the field, `stand_in` is the value that a plan
    uses for a new row while the secret has none yet.
    """

    sealed: SealedField
    read: Callable[[bytes], Any]
    target: str = ""
    # Whether the secret is sent to the target. A secret that only signs is not.
    is_sent: bool = True
    # The service removes the secret when one of these columns or earlier secrets changes.
    lost_with: tuple[str, ...] = ()
    stand_in: Any = None
    # Whether the service itself renews the value, as it does with tokens. A renewal then makes no plan stale.
    is_renewed: bool = False

    def opened(self, row: Row | None) -> Any:
        """Returns the secret that a row has; None if it has none, or it can't be opened."""
        column, prefix = self.sealed.column, self.sealed.key_column.removesuffix("key_id")
        if row is None or row[column] is None:
            return None
        key = keys.WrappedKey.of(row, prefix)
        try:
            return self.read(
                keys.unseal(self.sealed, row["environment_id"], row["id"], bytes(row[column]), key)
            )
        except CannotOpen:
            return None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that `opened` reads."""
        return (self.sealed.column, self.sealed.key_column, *self.needs())

    def needs(self) -> dict[str, F]:
        """Returns the annotations with which a query adds what `opened` needs of the data key."""
        prefix = self.sealed.key_column.removesuffix("key_id")
        return {
            f"{prefix}key_wrapped": F(f"{prefix}key__wrapped"),
            f"{prefix}master_key_id": F(f"{prefix}key__master_key_id"),
        }


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How files describe the rows of a resource, whose services make the changes."""

    resource: Resource[Any]
    # The serializer of the request that creates a row. A field that a file leaves out gets its default.
    body: type[Body]
    # Annotations for fields that are not columns of the model, such as a trigger's prompt.
    annotated: Mapping[str, Any] = field(default_factory=dict)
    # The columns and annotations that make rows long. They limit how much is read, because all rows of an environment
    # are read at once.
    long: tuple[str, ...] = ()
    # Further columns that `hides` needs.
    read_too: tuple[str, ...] = ()
    # Turns a row that was read into the form in which the body's fields return a request's values.
    finish: Callable[[Row], Row] = lambda row: row
    # Returns whether files leave out a field of a row, because the service wrote it.
    hides: Callable[[Row, str], bool] = lambda _row, _name: False
    # The lowest role that may read such rows.
    readers: Role = Role.VIEWER
    # Fields that files do not have.
    left_out: frozenset[str] = frozenset()
    # Fields in which files have the key of another row: the field's name, such as `pool`, and the row's kind.
    # `on.source` is the field `source` of each item of the list `on`.
    references: Mapping[str, str] = field(default_factory=dict)
    # Fields that have another name in files, by that name. In files `kind` already means the kind of row.
    renamed: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    # The values of a new row where the body has no default of its own, by the names of the sources.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # Fields that may name rows of the same kind. They are set after all rows have been made.
    late: frozenset[str] = frozenset()
    # Takes the locks that come before those of the rows. It gets the future values of new and existing rows.
    lock_before: Callable[[UUID, Sequence[Row], Sequence[Row]], None] = (
        lambda _environment_id, _new, _changed: None
    )
    # Caches rows that are locked, so that the services need not read each one.
    keep: Callable[[Sequence[UUID]], None] = lambda _ids: None
    # The tables that the services write or lock, each with the SQL condition of the rows that a rehearsal copies. It
    # may use `%(environment_id)s`, `%(ids)s` of the rows that change, and `%(gone)s` of those that will be deleted.
    writes: Mapping[str, str] = field(default_factory=dict)
    # Counts the rows in other environments that `create` counts too, because a rehearsal has no copies of them.
    count_elsewhere: Callable[[UUID], object] = lambda _environment_id: None
    # Returns further information about a made or changed row for the reader of the plan, from the row before and after.
    remarks: Callable[[Row | None, Row], dict[str, Any]] = lambda _before, _after: {}

    @property
    def name(self) -> str:
        """The word for the kind in files."""
        return self.resource.noun

    @property
    def model(self) -> type[FileColumns]:
        return self.resource.model

    def target_of(self, row: Row, secret: Secret) -> str | None:
        """Returns the URL that a row's secret is for; None if the row has none."""
        holder = self.holder_of_target(secret)
        url: str | None = holder.opened(row) if holder else row.get(secret.target)
        return url

    def holder_of_target(self, secret: Secret) -> Secret | None:
        """Returns the secret whose value is the target URL, as with a channel's; None if the URL is a plain column."""
        sealed = self.secrets.values()
        return next((each for each in sealed if each.sealed.column == secret.target), None)

    @cached_property
    def sources(self) -> dict[str, str]:
        """The sources of the body's fields, by their names in the API."""
        return {name: str(each.source) for name, each in self.body().fields.items()}

    @cached_property
    def late_sources(self) -> frozenset[str]:
        return frozenset(self.sources[name] for name in self.late)

    @cached_property
    def without_any(self) -> Row:
        """The values of a new row's secrets, late fields and left-out fields before they are set."""
        fields = self.body().fields
        names = {*self.secrets, *self.late, *self.left_out}
        defaults = {self.sources[name]: fields[name].default for name in names}
        return {name: value for name, value in defaults.items() if value is not empty}

    @cached_property
    def all_defaults(self) -> Row:
        """The defaults of fields that a file leaves out, by their names in the API; `empty` for required ones."""
        defaults: Row = {}
        for name, each in self.body().fields.items():
            default = self.defaults.get(self.sources[name], each.default)
            # A default is converted as the value of a request is, so that the two can be compared.
            defaults[name] = default if default in (None, empty) else each.run_validation(default)
        return defaults

    @cached_property
    def _annotated(self) -> QuerySet[Any]:
        """The query for all live rows of the service. Building it takes longer than reading a few rows."""
        annotations = dict(self.annotated)
        for secret in self.secrets.values():
            annotations |= secret.needs()
        rows: QuerySet[Any] = self.resource.live.annotate(**annotations)
        return rows

    @cached_property
    def _values(self) -> QuerySet[Any]:
        """The same query for the rows as dicts."""
        columns = {column.attname for column in self.model._meta.concrete_fields}
        read = {"id", "environment_id", *self.read_too, *self.annotated}
        read |= set(self.sources.values()) & columns
        read.update(*(secret.columns for secret in self.secrets.values()))
        return self._annotated.order_by("created_at", "id").values(*sorted(read))

    def rows(self, environment_id: UUID, ids: Collection[UUID] | None = None) -> list[Row]:
        """Returns the live rows as dicts, with the sources of the body's fields and the columns of secrets as keys: all
        rows, or those with these ids. Raises Conflict if all take more memory than a request may.
        """
        rows = self._values.filter(environment_id=environment_id)
        if ids is not None:
            rows = rows.filter(id__in=ids)
        elif self.long:
            text = Func(*self.long, function="concat", output_field=TextField())
            size = Func(text, function="octet_length", output_field=BigIntegerField())
            every = self._annotated.filter(environment_id=environment_id)
            if (every.aggregate(size=Sum(size))["size"] or 0) > MOST_BYTES:
                raise Conflict(
                    f"The environment's {self.name}s take more than {MOST_BYTES // 1024**2} MiB: too much for files.",
                    code=ErrorCode.TOO_MUCH_FOR_FILES,
                )
        return [self.finish(row) for row in rows]


def lock_rows(rows: QuerySet[Any]) -> None:
    """Locks rows in the order of their ids."""
    list(rows.order_by("id").select_for_update(no_key=True).values_list("id"))


# The order in which rows are made. A kind comes after the kinds that it refers to.
ORDER = ("pool", "connection", "source", "trigger", "budget", "channel")
_kinds: dict[str, Kind] = {}
# For each word for rows that files name but do not describe, such as `worker`: the function that returns the ids of an
# environment's rows by their names.
_lookups: dict[str, Callable[[UUID], Mapping[str, UUID]]] = {}


def register_kind(kind: Kind) -> None:
    assert kind.name in ORDER, kind.name
    _kinds[kind.name] = kind


def register_lookup(name: str, ids: Callable[[UUID], Mapping[str, UUID]]) -> None:
    _lookups[name] = ids


def kinds() -> list[Kind]:
    """Returns the registered kinds in ORDER."""
    return [_kinds[name] for name in ORDER if name in _kinds]


def ids_by_name(
    environment_id: UUID, rows: Mapping[str, Iterable[Row]]
) -> dict[tuple[str, str], UUID]:
    """Returns the ids of all rows that files can name, by the kind of row and the name. `rows` has the environment's
    rows by their kind, whose names are their keys.
    """
    ids = {(kind, row["key"]): row["id"] for kind, those in rows.items() for row in those}
    for kind, look_up in _lookups.items():
        ids |= {(kind, name): id_ for name, id_ in look_up(environment_id).items()}
    return {name: id_ for name, id_ in ids.items() if name[1]}
