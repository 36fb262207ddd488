"""The kinds of rows that files may describe. Each app registers its own, because only it knows how they are changed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import BigIntegerField, F, Func, QuerySet, Sum
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
# Conditions of the rows that a rehearsal needs: those of the environment, or none.
OF_ENVIRONMENT, NONE = "environment_id = %(environment_id)s", "false"
# What long texts of an environment may take: four times as much as the body of an apply.
MOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A field whose value nobody reads. `read` makes the value of what was sealed. `target` is the column with the URL
    to which the secret goes, or for which it is; "" if there is none. Of a field that rows need, `stand_in` is a value
    with which a plan makes a row whose secret has no value yet.
    """

    sealed: SealedField
    read: Callable[[bytes], Any]
    target: str = ""
    # Whether the target gets to know the secret. One that signs stays here.
    is_sent: bool = True
    # Columns and earlier secrets with whose change the service removes it.
    lost_with: tuple[str, ...] = ()
    stand_in: Any = None
    # Whether the service itself renews what is sealed, as it does with tokens. Then no plan becomes stale by that.
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
        """What of a row `opened` reads."""
        return (self.sealed.column, self.sealed.key_column, *self.needs())

    def needs(self) -> dict[str, F]:
        """Returns what `opened` needs of the row's data key, as annotations."""
        prefix = self.sealed.key_column.removesuffix("key_id")
        return {
            f"{prefix}key_wrapped": F(f"{prefix}key__wrapped"),
            f"{prefix}master_key_id": F(f"{prefix}key__master_key_id"),
        }


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How files describe the rows of a resource, whose services make the changes."""

    resource: Resource[Any]
    # The body of the request that creates a row. A field that a file leaves out has its default.
    body: type[Body]
    # What of the rows is not in the model's own columns, such as a trigger's prompt.
    annotated: Mapping[str, Any] = field(default_factory=dict)
    # One that makes rows long: all of an environment's are read at once.
    long: str = ""
    # Columns that `hides` needs besides.
    read_too: tuple[str, ...] = ()
    # Makes of a row that is read what the body's fields make of a request.
    finish: Callable[[Row], Row] = lambda row: row
    # Tells whether files say nothing of a field of a row, because the service has written it.
    hides: Callable[[Row, str], bool] = lambda _row, _name: False
    # Who may read such rows.
    readers: Role = Role.VIEWER
    # Fields that are no part of files.
    left_out: frozenset[str] = frozenset()
    # Where files have the key of another row: the field there, such as `pool`, and the kind. `on.source` is the field
    # `source` of each item of the list `on`.
    references: Mapping[str, str] = field(default_factory=dict)
    # Fields that have another name in files, by that name: a resource's own `kind` is the kind of row.
    renamed: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    # What a new row has where the body has no default of its own, by the names of the sources.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # Fields that may name rows of the same kind. They are set once all rows are there.
    late: frozenset[str] = frozenset()
    # Takes the locks that come before those of the rows, for the values that new rows and present ones are about to
    # get.
    lock_before: Callable[[UUID, Sequence[Row], Sequence[Row]], None] = (
        lambda _environment_id, _new, _changed: None
    )
    # Reads rows that are locked, so that the services need not read each.
    keep: Callable[[Sequence[UUID]], None] = lambda _ids: None
    # The tables that the services write or lock, each with the condition of the rows that a rehearsal needs of it. It
    # may name `%(environment_id)s`, `%(ids)s` of the rows that change, and `%(gone)s` of those that are to be deleted.
    writes: Mapping[str, str] = field(default_factory=dict)
    # Counts what `create` counts in other environments, whose rows a rehearsal has not.
    count_elsewhere: Callable[[UUID], object] = lambda _environment_id: None
    # Returns more about a row that was made or changed, for whoever reads the plan: from the row before, and after.
    remarks: Callable[[Row | None, Row], dict[str, Any]] = lambda _before, _after: {}

    @property
    def name(self) -> str:
        """The word in files."""
        return self.resource.noun

    @property
    def model(self) -> type[FileColumns]:
        return self.resource.model

    def target_of(self, row: Row, secret: Secret) -> str | None:
        """Returns the URL for which a row's secret is; None if the row has none."""
        holder = self.holder_of_target(secret)
        url: str | None = holder.opened(row) if holder else row.get(secret.target)
        return url

    def holder_of_target(self, secret: Secret) -> Secret | None:
        """Returns the secret that the URL is itself, as a channel's; None for one that all may read."""
        sealed = self.secrets.values()
        return next((each for each in sealed if each.sealed.column == secret.target), None)

    @cached_property
    def sources(self) -> dict[str, str]:
        """What the body's fields become, by their names in the API."""
        return {name: str(each.source) for name, each in self.body().fields.items()}

    @cached_property
    def late_sources(self) -> frozenset[str]:
        return frozenset(self.sources[name] for name in self.late)

    @cached_property
    def without_any(self) -> Row:
        """The values of a new row's secrets and other fields apart, before they have any."""
        fields = self.body().fields
        names = {*self.secrets, *self.late, *self.left_out}
        defaults = {self.sources[name]: fields[name].default for name in names}
        return {name: value for name, value in defaults.items() if value is not empty}

    @cached_property
    def all_defaults(self) -> Row:
        """What fields have that a file leaves out, by their names in the API; `empty` if it may not leave them out."""
        defaults: Row = {}
        for name, each in self.body().fields.items():
            default = self.defaults.get(self.sources[name], each.default)
            # Also a default takes the type that a value in a request gets.
            defaults[name] = default if default in (None, empty) else each.run_validation(default)
        return defaults

    def rows(self, environment_id: UUID, ids: Collection[UUID] | None = None) -> list[Row]:
        """Returns the live rows as dicts, by the sources of the body's fields and the columns of secrets: all, or those
        with these ids. Raises Conflict if all take more memory than a request may.
        """
        columns = {column.attname for column in self.model._meta.concrete_fields}
        sources = set(self.sources.values())
        annotated = dict(self.annotated)
        read = {"id", "environment_id", *self.read_too, *self.annotated} | (sources & columns)
        for secret in self.secrets.values():
            annotated |= secret.needs()
            read |= set(secret.columns)
        rows: QuerySet[Any] = self._live(environment_id).annotate(**annotated)
        if ids is not None:
            rows = rows.filter(id__in=ids)
        elif self.long:
            size = Func(self.long, function="octet_length", output_field=BigIntegerField())
            if (rows.aggregate(size=Sum(size))["size"] or 0) > MOST_BYTES:
                raise Conflict(
                    f"The environment's {self.long}s take more than {MOST_BYTES // 1024**2} MiB: too much for files.",
                    code=ErrorCode.TOO_MUCH_FOR_FILES,
                )
        return [self.finish(row) for row in rows.order_by("created_at", "id").values(*sorted(read))]

    def lock(
        self,
        environment_id: UUID,
        ids: Sequence[UUID],
        *,
        new: Sequence[Row],
        changed: Sequence[Row],
    ) -> None:
        """Locks rows that are changed or deleted in the order of their ids, after what comes before them. `changed` has
        what changes of these, and `new` what new rows have.
        """
        self.lock_before(environment_id, new, changed)
        lock_rows(self._live(environment_id).filter(id__in=ids))

    def _live(self, environment_id: UUID) -> QuerySet[Any]:
        return self.resource.live.filter(environment_id=environment_id)


def lock_rows(rows: QuerySet[Any]) -> None:
    """Locks rows in the order of their ids."""
    list(rows.order_by("id").select_for_update(no_key=True).values_list("id"))


@dataclass(frozen=True, slots=True)
class Lookup:
    """Rows that files name but don't describe, such as workers by their hostname."""

    name: str
    # Returns the ids of an environment's rows by their names.
    ids: Callable[[UUID], dict[str, UUID]]


# In the order in which rows are made: what others refer to comes first.
ORDER = ("pool", "connection", "source", "trigger", "budget", "channel")
_kinds: dict[str, Kind] = {}
_lookups: dict[str, Lookup] = {}


def register_kind(kind: Kind) -> None:
    assert kind.name in ORDER, kind.name
    _kinds[kind.name] = kind


def register_lookup(lookup: Lookup) -> None:
    _lookups[lookup.name] = lookup


def kinds() -> list[Kind]:
    """Returns the registered kinds in ORDER."""
    return [_kinds[name] for name in ORDER if name in _kinds]


def lookups() -> list[Lookup]:
    return list(_lookups.values())
