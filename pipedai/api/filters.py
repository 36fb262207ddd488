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

# PostgreSQL plans for each part and each month of the audit log, at first each time: for 20, some 15 ms.
_MOST_PARTS = 20


class TimeField(forms.Field):
    """An ISO 8601 time; without an offset it is UTC."""

    def to_python(self, value: Any) -> datetime | None:
        """The moment, None for nothing."""
        if value in self.empty_values:
            return None
        try:
            moment = parse_datetime(value)
            if moment is not None:
                # In UTC: PostgreSQL takes no offset beyond 16 hours.
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
    """Keeps rows by one word of a few."""

    @property
    def described(self) -> dict[str, Any]:
        """One of the words."""
        return {"schema": {"type": "string", "enum": [word for word, _ in self.extra["choices"]]}}


class TimeFilter(ApiFilter):
    """Compares with a moment."""

    field_class = TimeField
    described = {"schema": {"type": "string", "format": "date-time"}}


class EndFilter(TimeFilter):
    """`to`: keeps rows from before a moment, on a list in the order of that time."""

    parent: Any  # its filter set; django-filter sets it

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(lookup_expr="lt", **kwargs)

    def filter(self, qs: QuerySet[Any], value: datetime | None) -> QuerySet[Any]:
        """All rows on a page that has a cursor: it lies before the moment, since it is bound to these filters. If told
        both, PostgreSQL may begin at the moment, and walk from there to the cursor. Of several moments the last one
        counts, but to a cursor their order is nothing.
        """
        sent = self.parent.data
        is_bound = "cursor" in sent and len(sent.getlist("to")) < 2
        return qs if is_bound else super().filter(qs, value)


class WordsField(forms.Field):
    """Some of a few words; the parameter may repeat, or hold them comma-separated."""

    def __init__(self, *, choices: list[str], **kwargs: Any) -> None:
        self.choices = choices
        super().__init__(widget=_RepeatedInput, **kwargs)

    def to_python(self, value: Any) -> list[str]:
        """The words, without repeats."""
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
        """All rows if no word was given."""
        return qs.filter(**{f"{self.field_name}__in": value}) if value else qs


class ApiFilterSet(django_filters.FilterSet):
    """A list's filters, under their names in the API."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The parameters it reads; a cursor is bound to them."""
        return tuple(cls.base_filters)

    @classmethod
    def read(cls, queryset: QuerySet[Any], request: Request) -> Self:
        """The filters of a request: `qs` are the filtered rows, `values` what was asked for, by name.

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
        """The filtered rows, apart by the words that were asked for: an index orders those of one word, but not those
        of several. No row is in two of them.
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
        """The valid value of each parameter; None or empty for one that was not sent."""
        return dict(self.form.cleaned_data)
