"""The words in which a model says what its table refuses, and by which indexes its rows are found."""

from collections.abc import Sequence
from typing import Any

from django.db.models import CheckConstraint, Index, Q, UniqueConstraint


def has(*columns: str, **more: Any) -> Q:
    """Returns the condition that none of the columns is NULL, and that `more` holds, as in a Q."""
    return Q(**{f"{column}__isnull": False for column in columns}, **more)


def lacks(*columns: str, **more: Any) -> Q:
    """Returns the condition that all of the columns are NULL, and that `more` holds, as in a Q."""
    return Q(**{f"{column}__isnull": True for column in columns}, **more)


def check(name: str, condition: Q) -> CheckConstraint:
    return CheckConstraint(condition=condition, name=name)


def unique(name: str, columns: Sequence[str], *, where: Q | None = None) -> UniqueConstraint:
    return UniqueConstraint(fields=columns, name=name, condition=where)


def index(
    name: str,
    columns: Sequence[str],
    *,
    where: Q | None = None,
    include: Sequence[str] | None = None,
) -> Index:
    return Index(fields=columns, name=name, condition=where, include=include)
