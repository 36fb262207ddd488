"""Declares what staff see of a row. A field is the name of a column, `("Name", "column")`, `("Name", kind)` with one of
the kinds below, or the name of a fact of the model's admin.

A name such as `trigger__timezone` is a column of a joined row. Queries load only what fields read.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.utils import get_fields_from_path
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Model, Q, QuerySet
from django.utils.text import capfirst

from pipedai.admin.site import site
from pipedai.admin.values import (
    data,
    ident,
    in_both_zones,
    link_to,
    moment,
    money,
    number,
    spoken,
    state,
    text,
    url,
    yes,
)
from pipedai.clocks import zone_of


@dataclass(frozen=True)
class Shown:
    """How something is shown of a row, and the columns that this reads. `leads`: it links to the row's page."""

    show: Callable[[Any], Any]
    reads: Sequence[str] = ()
    prepare: Callable[[QuerySet[Any]], QuerySet[Any]] = lambda rows: rows
    leads: bool = False


Declared = Sequence[str | tuple[str, str | Shown]]
Fields = dict[str, Shown]

# How a column is shown if the declaration does not say it: the first type that fits decides.
_BY_TYPE: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (models.BooleanField, yes),
    (models.DateTimeField, moment),
    (models.DecimalField, money),
    (models.IntegerField, number),
    (models.JSONField, data),
    (models.UUIDField, ident),
    (ArrayField, lambda items: text(", ".join(map(str, items or ())))),
    (models.Field, text),
)


def column(path: str, show: Callable[[Any], Any]) -> Shown:
    return Shown(lambda row: show(value_of(row, path)), (path,))


def of_row(show: Callable[[Any], Any], *reads: str, **adds: Any) -> Shown:
    """Shows what the function makes of the row. It needs the columns `reads` and the annotations `adds`."""
    return Shown(show, reads, lambda rows: rows.annotate(**adds))


def state_of(otherwise: str, **columns: str) -> Shown:
    """Shows as a state the first word whose column is set, or else `otherwise`."""

    def show(row: Any) -> Any:
        found = (word for word, path in columns.items() if value_of(row, path))
        return state(next(found, otherwise))

    return of_row(show, *columns.values())


def link(path: str, model: Any) -> Shown:
    return column(path, lambda row_id: link_to(model, row_id))


def itself(path: str = "") -> Shown:
    """Links to the row's own page. The text of the link is the column, or else the row's short id."""

    def show(row: Any) -> Any:
        shown = _of_column(type(row), path).show(row) if path else None
        return link_to(type(row), row.pk, shown)

    return Shown(show, (path,) if path else (), leads=True)


def both_zones(path: str, zone: str) -> Shown:
    """Shows a time in UTC and in the time zone that the column `zone` names."""
    return of_row(
        lambda row: in_both_zones(value_of(row, path), zone_of(value_of(row, zone))), path, zone
    )


def whether(path: str, no: str = "no") -> Shown:
    """Shows whether a column has a value, without reading it."""
    name = f"has_{path}"
    condition = Q(**{f"{path}__isnull": False})
    return of_row(lambda row: yes(getattr(row, name), no), path, **{name: condition})


def value_of(row: Any, path: str) -> Any:
    for name in path.split("__"):
        row = getattr(row, name, None)
    return row


def _of_column(model: type[Model], path: str) -> Shown:
    """A foreign key becomes a link with its row's name. A URL is shown without what may be secret in it."""
    found = get_fields_from_path(model, path)[-1]
    if isinstance(found, models.ForeignKey):
        other: Any = found.related_model
        admin: Any = site.get_model_admin(other)
        key, name = f"{path}_id", f"{path}__{admin.named_by}"
        if not admin.named_by:
            return link(key, other)
        return of_row(lambda row: link_to(other, value_of(row, key), value_of(row, name)), name)
    if path.endswith("url"):
        return column(path, url)
    return column(path, next(show for kind, show in _BY_TYPE if isinstance(found, kind)))


def fields_of(model: Any, declared: Declared, known: Mapping[str, Shown] | None = None) -> Fields:
    fields = {}
    for each in declared:
        if isinstance(each, str) and each[0].isupper():
            fields[each] = (known or {})[each]
            continue
        name, what = (_name_of(each), each) if isinstance(each, str) else each
        fields[name] = _of_column(model, what) if isinstance(what, str) else what
    return fields


def _name_of(path: str) -> str:
    return capfirst(spoken(path.rpartition("__")[2].removesuffix("_at")))


def reading(rows: QuerySet[Any], fields: Iterable[Shown], *also: str) -> QuerySet[Any]:
    """Returns the query with the joins and only the columns that the fields need, and those of `also`."""
    reads = {*also}
    for each in fields:
        reads |= {*each.reads}
        rows = each.prepare(rows)
    reads -= never_read(rows.model)
    joins = {path.rpartition("__")[0] for path in reads if "__" in path}
    return (rows.select_related(*sorted(joins)) if joins else rows).only(*sorted(reads))


def never_read(model: Any) -> set[str]:
    """Returns the columns that no page reads: all bytes (sealed values, digests), and what the admin names."""
    columns = model._meta.concrete_fields
    sealed = {each.name for each in columns if isinstance(each, models.BinaryField)}
    return sealed | {*getattr(site._registry.get(model), "never_read", ())}
