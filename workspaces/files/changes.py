"""The body of plan and apply, one change and how the answer shows it, and the checks on where secrets go."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from rest_framework.exceptions import ValidationError

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, Invalid
from pipedai.api.exceptions import as_invalid
from pipedai.api.outside_urls import origin_of
from pipedai.api.renderers import compact_json
from workspaces.files import values
from workspaces.files.kinds import Kind, Row, Secret, kinds
from workspaces.files.values import Names, Wanted, with_names
from workspaces.roles import Role
from workspaces.tenant_columns import MAX_KEY

Json = dict[str, Any]
# A plan shows this in place of a secret.
_SET = "set"


# It has no `repr`, because resources may have secrets too.
@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """The body of plan and apply. Only apply has `digest` and `prune`."""

    managed_by: str
    resources: Sequence[Json]
    secrets: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    prune: bool = False
    accept_origins: Sequence[str] = ()

    @property
    def is_plan(self) -> bool:
        return self.digest is None


def check_resources(resources: Sequence[Json]) -> None:
    """Raises Invalid for a resource of an unknown kind, without a key, or given twice."""
    known = {kind.name for kind in kinds()}
    seen: set[tuple[str, str]] = set()
    errors: dict[str, list[str]] = {}
    for index, resource in enumerate(resources):
        kind, key = resource.get("kind"), resource.get("key")
        if not isinstance(kind, str) or kind not in known:
            errors[f"resources.{index}.kind"] = [f"Must be one of {', '.join(sorted(known))}."]
        elif not isinstance(key, str) or not key:
            errors[f"resources.{index}.key"] = ["This field is required."]
        elif (kind, key) in seen:
            errors[f"resources.{index}.key"] = [
                f"There is another {kind} with the key {key[:MAX_KEY]}."
            ]
        else:
            seen.add((kind, key))
    if errors:
        raise Invalid(errors)


@dataclass(slots=True, repr=False)
class Change:
    """A resource with its row, if that exists, or a row that no resource describes any more. A row that will be created
    already has its id, so that other rows can refer to it. `values` are the row's new values, including new secrets.
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
        # The name stands before each wrong field, so it is cut: a key may be as long as the request.
        return f"{self.kind.name} {self.key[:MAX_KEY]}"

    def compare(self, *, with_secrets: bool) -> None:
        """Works out the row's new values. Unless secrets are compared, each secret that has a value counts as new."""
        assert self.wanted is not None
        kind, wanted = self.kind, self.wanted
        self.secrets = values.changed_secrets(kind, self.row, wanted, compared=with_secrets)
        self.values = values.changed_values(self.row, wanted)
        self.values |= {kind.sources[name]: wanted.secrets[name] for name in self.secrets}

    @property
    def late(self) -> Row:
        """Returns the values that may name rows of the same kind, without empty ones."""
        before = self.row or self.kind.without_any
        return {
            name: value
            for name, value in self.values.items()
            if name in self.kind.late_sources and not values.same(before[name], value)
        }


def told(change: Change, new: Row | None, names: Names, role: Role) -> Json:
    """Returns the change of a row as the API shows it. A caller who may not read such rows gets `update` for each
    existing row, no diff and no warnings, because these would confirm a guess.
    """
    old_fields, new_fields = (_fields(change.kind, row, names) for row in (change.row, new))
    diff: Json = {
        name: [old_fields.get(name), new_fields.get(name)]
        for name in new_fields | old_fields
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
        "warnings": change.warnings if may_read else [],
        **(change.kind.remarks(change.row, new) if new and action != "none" else {}),
    }


def plain(kind: Kind, row: Row) -> Json:
    """Returns a row as JSON. A sealed value becomes a digest, which is enough to compare it."""
    sealed = {column for secret in kind.secrets.values() for column in secret.columns}
    plain = {name: value for name, value in row.items() if name not in sealed}
    for name, secret in kind.secrets.items():
        box = row[secret.sealed.column]
        if box is not None and not secret.is_renewed and not kind.hides(row, name):
            plain[secret.sealed.column] = hashlib.sha256(bytes(box)).hexdigest()
    return plain


def check_origins(
    before: Mapping[str, Mapping[UUID, Row]],
    changes: Sequence[Change],
    after: Mapping[UUID, Row],
    request: Request,
) -> None:
    """Raises Conflict if a secret would go to an origin that does not have it yet, or would be lost because its row
    moves to another origin and the request has no value for it. A plan only warns of both. An apply that accepts the
    origin only warns of lost secrets.
    """
    work = _Origins(before, request)
    for change in changes:
        kind, row = change.kind, after.get(change.id)
        if row is None or change.wanted is None:
            continue
        for name, secret in kind.secrets.items():
            target = kind.target_of(row, secret)
            if values.has_secret(kind, row, name):
                if name in change.secrets and secret.is_sent and target:
                    work.check_new(change, name, secret, target)
            elif name in change.wanted.unset and values.has_secret(kind, change.row, name):
                # The resource names the secret without a value, which means that the row's is to stay.
                work.check_lost(change, name, secret, target)


@contextmanager
def named(change: Change) -> Iterator[None]:
    """Puts the name of a resource, such as `trigger nightly`, before its errors, with the fields' names in files."""
    name, short = change.name, {long: short for short, long in change.kind.renamed.items()}
    try:
        yield
    except (ValidationError, Invalid) as error:
        wrong = error if isinstance(error, Invalid) else as_invalid(error)
        fields = {f"{name}.{short.get(field, field)}": said for field, said in wrong.fields.items()}
        raise Invalid(fields, form=[f"{name}: {message}" for message in wrong.form]) from None
    except ApiError as error:
        error.message = f"{name}: {error.message}"
        raise


def _fields(kind: Kind, row: Row | None, names: Names) -> Json:
    """Returns the fields that a diff compares: those of a row as files have them, with the label of its files."""
    if row is None:
        return {}
    label = {"managedBy": row["managed_by"]} if row["managed_by"] else {}
    return {**with_names(kind, values.shown(kind, row), names), **label}


class _Origins:
    def __init__(self, before: Mapping[str, Mapping[UUID, Row]], request: Request) -> None:
        self._before = before
        self._request = request
        # The origins that already get each secret, as JSON. It is made on first use, because it opens all secrets.
        self._known: set[tuple[str, str]] | None = None

    def check_new(self, change: Change, name: str, secret: Secret, target: str) -> None:
        """Checks a secret with a new value. It may replace a secret that went to the same origin."""
        assert change.wanted is not None
        origin = origin_of(target)
        if origin in self._request.accept_origins:
            return
        if values.has_secret(change.kind, change.row, name):
            assert change.row is not None
            if (old := change.kind.target_of(change.row, secret)) and origin_of(old) == origin:
                return
        if (compact_json(change.wanted.secrets[name]), origin) in self._goes_to():
            return
        self._refuse(
            change,
            f"{name} would go to {target}, and goes to no place of {origin} yet: accept this origin.",
        )

    def check_lost(self, change: Change, name: str, secret: Secret, target: str | None) -> None:
        if target is None:
            change.warnings.append(f"The stored {name} is lost, as it is for another server.")
            return
        origin = origin_of(target)
        place = origin if change.kind.holder_of_target(secret) else target
        if origin in self._request.accept_origins:
            change.warnings.append(
                f"The stored {name} is lost, as it is not for {place}, and it has no value here."
            )
            return
        self._refuse(
            change,
            f"The stored {name} would be lost, as it is not for {place}: give its value, or accept the origin {origin}"
            " without it.",
        )

    def _refuse(self, change: Change, sentence: str) -> None:
        if not self._request.is_plan:
            raise Conflict(f"{change.name}: {sentence}", code=ErrorCode.NEW_ORIGIN)
        change.warnings.append(sentence)

    def _goes_to(self) -> set[tuple[str, str]]:
        if self._known is None:
            self._known = {
                (compact_json(secret.opened(row)), origin_of(target))
                for kind in kinds()
                for secret in kind.secrets.values()
                if secret.is_sent
                for row in self._before[kind.name].values()
                if row[secret.sealed.column] is not None and (target := kind.target_of(row, secret))
            }
        return self._known
