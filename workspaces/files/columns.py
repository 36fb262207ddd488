"""What makes a row one that files can describe: a key that is its own, and the label of whose files describe it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from rest_framework import serializers

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.api.fields import NameField, TextField
from pipedai.events import is_together
from pipedai.table_rules import has, unique
from workspaces.tenant_columns import TenantRow

MAX_KEY = 64
MAX_LABEL = 200
KEY_PATTERN = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_CONSTRAINT = "_has_own_key"


class FileColumns(TenantRow):
    """What all rows have that files may describe."""

    # The name that people gave the row: 1 to 200 characters. Only those of pools are unique.
    name = models.CharField(max_length=200)
    # The row's key in files, unique in the environment; NULL if it has none. Users choose it.
    key = models.CharField(max_length=MAX_KEY, null=True)
    # The label of the files that describe the row, which `apply` writes; NULL if none do.
    managed_by = models.CharField(max_length=MAX_LABEL, null=True)
    # When the row was inserted, by the database's clock.
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


def own_key(table: str, *, live: Q | None = None) -> models.UniqueConstraint:
    """Returns the constraint by which no two live rows of an environment have the same key."""
    return unique(f"{table}{_CONSTRAINT}", ["environment", "key"], where=has("key") & (live or Q()))


class KeyField(TextField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=MAX_KEY,
            trim_whitespace=False,
            allow_null=True,
            default=None,
            **kwargs,
        )

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not re.fullmatch(KEY_PATTERN, value):
            raise serializers.ValidationError(
                "Must be lower-case letters, digits, dots, hyphens and underscores, and begin and end with a letter or"
                " digit."
            )
        return value


class LabelField(NameField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            source="managed_by",
            max_length=MAX_LABEL,
            allow_null=True,
            default=None,
            **kwargs,
        )


@contextmanager
def keeping_keys() -> Iterator[None]:
    """Wraps what writes a row. Raises Conflict if another live row of the environment has its key. Changes made
    together are undone together, so that they need no savepoint each.
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
