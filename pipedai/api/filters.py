"""Filters of lists, by django-filter: a malformed value is a field error, an unknown parameter is ignored (SPEC §2)."""

from datetime import UTC, datetime
from math import prod
from typing import Any, Self

import django_filters
from django import forms
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from rest_framework.request import Request

from pipedai.api.errors import Invalid

# PostgreSQL plans every part for every month of the audit log. Planning 20 parts takes about 15 ms.
_MOST_PARTS = 20


class TimeField(forms.Field):
    """An ISO 8601 time; without an offset it is UTC."""

    def to_python(self, value: Any) -> datetime | None:
        """Returns the time, or None if none was sent."""
        if value in self.empty_values:
            return None
        try:
            moment = parse_datetime(value)
            if moment is not None:
                # We convert the time to UTC, because PostgreSQL refuses offsets beyond 16 hours.
                return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            pass
        raise forms.ValidationError("Must be an ISO 8601 time, such as 2026-11-24T15:30:00Z.")


class ApiFilter(django_filters.Filter):
    """A filter that tells how its query parameter looks in the OpenAPI schema."""

    @property
    def described(self) -> dict[str, Any]:
        """The parameter's `schema`, and `style` and `explode` where they differ from the default."""
        raise NotImplementedError(f"{type(self).__name__} has no `described`.")


class IdFilter(ApiFilter, django_filters.UUIDFilter):
    """Keeps rows with this id in a field."""

    described = {"schema": {"type": "string", "format": "uuid"}}


class WordFilter(ApiFilter, django_filters.ChoiceFilter):
    """Filters rows by a parameter whose value must be one of a fixed set of words, such as a status."""

    @property
    def described(self) -> dict[str, Any]:
        """One of the words."""
        return {"schema": {"type": "string", "enum": [word for word, _ in self.extra["choices"]]}}


class TimeFilter(ApiFilter):
    """Compares with a moment."""

    field_class = TimeField
    described = {"schema": {"type": "string", "format": "date-time"}}


class EndFilter(TimeFilter):
    """The `to` parameter: keeps the rows before a time, on a list that is ordered by that time."""

    parent: Any  # django-filter sets this to the filter set.

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(lookup_expr="lt", **kwargs)

    def filter(self, qs: QuerySet[Any], value: datetime | None) -> QuerySet[Any]:
        """Adds no condition when the request has a cursor and a single `to`.

        The cursor is bound to the filters, so it already lies before that time. If PostgreSQL got both conditions, it
        might begin at the time and read every row down to the cursor. With several `to` parameters the last one counts,
        but the cursor does not depend on their order, so the condition stays.
        """
        sent = self.parent.data
        is_bound = "cursor" in sent and len(sent.getlist("to")) < 2
        return qs if is_bound else super().filter(qs, value)


class WordsField(forms.Field):
    """A choice of several words. The parameter may be repeated, or hold the words separated by commas."""

    def __init__(self, *, choices: list[str], **kwargs: Any) -> None:
        self.choices = choices
        super().__init__(widget=_RepeatedInput, **kwargs)

    def to_python(self, value: Any) -> list[str]:
        """Returns each word once. An unknown word is a field error."""
        words = [word.strip() for item in value or () for word in item.split(",") if word.strip()]
        if unknown := [word for word in words if word not in self.choices]:
            raise forms.ValidationError(
                f"{unknown[0][:40]!r} is none of: {', '.join(self.choices)}."
            )
        return list(dict.fromkeys(words))


class _RepeatedInput(forms.SelectMultiple):
    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        return data.getlist(name)


class WordsFilter(ApiFilter):
    """Keeps rows whose field is one of the given words."""

    field_class = WordsField

    @property
    def described(self) -> dict[str, Any]:
        """Some of the words; the parameter may repeat."""
        words = {"type": "string", "enum": list(self.extra["choices"])}
        return {"schema": {"type": "array", "items": words}, "style": "form", "explode": True}

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        """Keeps all rows if the request names no word."""
        return qs.filter(**{f"{self.field_name}__in": value}) if value else qs


class ApiFilterSet(django_filters.FilterSet):
    """A list's filters, under their names in the API."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Returns the names of the parameters that the filter set reads. A cursor is bound to their values."""
        return tuple(cls.base_filters)

    @classmethod
    def read(cls, queryset: QuerySet[Any], request: Request) -> Self:
        """Reads the filters of a request. `qs` of the result has the filtered rows, `values` the parameters by name.

        Raises Invalid with the bad parameters as fields.
        """
        filters = cls(data=request.query_params, queryset=queryset)
        if not filters.is_valid():
            raise Invalid(
                {name: [str(m) for m in messages] for name, messages in filters.errors.items()}
            )
        return filters

    @property
    def parts(self) -> list[QuerySet[Any]]:
        """Returns one queryset for each word that the request asks for. No row is in two of them.

        An index can give the rows of one word in order, but not the rows of several words.
        """
        sent = self.values
        apart = {
            name: [[word] for word in sent[name]]
            for name, each in self.filters.items()
            if isinstance(each, WordsFilter) and sent[name]
        }
        if prod(map(len, apart.values())) > _MOST_PARTS:
            return [self.qs]
        parts: list[Any] = [self.queryset]
        for name, each in self.filters.items():
            values = apart.get(name, [sent[name]])
            parts = [each.filter(part, value) for part in parts for value in values]
        return parts

    @property
    def values(self) -> dict[str, Any]:
        """Returns the valid value of each parameter, which is None or empty if the parameter was not sent."""
        return dict(self.form.cleaned_data)
