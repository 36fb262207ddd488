"""The filters of the API's lists. A bad value is a field error; an unknown parameter is ignored."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from math import prod
from typing import Any, Self
from uuid import UUID

import django_filters
from django import forms
from django.apps import apps
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from rest_framework.request import Request

from pipedai.api.errors import Invalid
from pipedai.api.pagination import usual
from pipedai.clocks import BadTimezone, check_timezone

# A list is split into at most this many queries. The audit log has a partition for each month, and PostgreSQL plans
# each query for every partition. Planning 20 queries takes about 15 ms.
_MOST_PARTS = 20

# A time of day, then a blank and an offset. A client that writes the offset's + as it is sends this, because a + in a
# query string means a blank.
_BLANK_FOR_PLUS = re.compile(r"\d{2}:\d{2}\S* \d{2}(:?\d{2})?$")


def utc() -> tzinfo:
    """Returns the zone of times without an offset, for requests that name no trigger, which has its own zone."""
    return UTC


class TimeField(forms.Field):
    """A time in ISO 8601. `zone` returns the time zone of a time without an offset, and is called only for one."""

    def __init__(self, *, zone: Callable[[], tzinfo] = utc, **kwargs: Any) -> None:
        self.zone = zone
        super().__init__(**kwargs)

    def to_python(self, value: Any) -> datetime | None:
        if value in self.empty_values:
            return None
        try:
            moment = parse_datetime(value)
            if moment is not None:
                # The time is converted to UTC, because PostgreSQL refuses offsets beyond 16 hours.
                whole = moment if moment.tzinfo else moment.replace(tzinfo=self.zone())
                return whole.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        sentence = "Must be an ISO 8601 time, such as 2026-11-24T15:30:00Z."
        if _BLANK_FOR_PLUS.search(value):
            sentence += " In a URL a + means a blank: write the + of the offset as %2B."
        raise forms.ValidationError(sentence)


class TrueFalseField(forms.Field):
    """A parameter that is `true` or `false`."""

    def to_python(self, value: Any) -> bool | None:
        if value in self.empty_values:
            return None
        if value not in ("true", "false"):
            raise forms.ValidationError("Must be true or false.")
        return bool(value == "true")


class _TimezoneField(forms.CharField):
    def clean(self, value: str | None) -> str:
        name = "UTC" if value is None else value
        try:
            check_timezone(name)
        except BadTimezone as error:
            raise forms.ValidationError(str(error)) from None
        return name


class ApiFilter(django_filters.Filter):
    @property
    def described(self) -> dict[str, Any]:
        """The parameter's `schema` in OpenAPI, and `style`, `explode` and `required` if they are not the default."""
        raise NotImplementedError(f"{type(self).__name__} has no `described`.")


class IdFilter(ApiFilter, django_filters.UUIDFilter):
    """The id of another row, of one of the models that `of` names, such as `workers.Worker`."""

    described = {"schema": {"type": "string", "format": "uuid"}}

    def __init__(self, *args: Any, of: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.of = of

    def names_row(self, environment_id: UUID, value: UUID | None) -> bool:
        """Returns whether the environment has the row. Nothing is checked without a value or without models in `of`."""
        models = map(apps.get_model, self.of)
        own = {"environment_id": environment_id, "id": value}
        is_any = not value or not self.of
        return is_any or any(each._default_manager.filter(**own).exists() for each in models)

    def filter(self, qs: QuerySet[Any], value: UUID | None) -> QuerySet[Any]:
        return super().filter(qs, usual(value) if value else None)


class WordFilter(ApiFilter, django_filters.ChoiceFilter):
    @property
    def described(self) -> dict[str, Any]:
        words = [word for word, _ in self.extra["choices"]]
        return {"schema": {"type": "string", "enum": words}, "required": self.extra["required"]}


class TrueFalseFilter(ApiFilter):
    field_class = TrueFalseField
    described = {"schema": {"type": "boolean"}}


class TimezoneFilter(ApiFilter):
    """A parameter with the IANA name of a time zone, by default UTC."""

    field_class = _TimezoneField
    described = {"schema": {"type": "string", "maxLength": 64, "default": "UTC"}}


class TextFilter(ApiFilter):
    """Filters rows by a text, which `lookup_expr` compares with the column. An empty text is no filter."""

    field_class = forms.CharField

    @property
    def described(self) -> dict[str, Any]:
        schema = {"type": "string", "maxLength": self.extra["max_length"]}
        return {"schema": schema, "required": self.extra["required"]}


class TimeFilter(ApiFilter):
    """Keeps the rows whose time is before or after the time in the parameter, as the filter's `lookup_expr` says."""

    field_class = TimeField
    described = {"schema": {"type": "string", "format": "date-time"}}


class EndFilter(TimeFilter):
    """A parameter such as `to`, which keeps the rows before a time. Usually the list is ordered by the same time."""

    parent: Any  # The filter set to which this filter belongs. django-filter sets it.

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(lookup_expr="lt", **kwargs)

    def filter(self, qs: QuerySet[Any], value: datetime | None) -> QuerySet[Any]:
        """Adds no condition if the list is ordered by this time, and the request has a cursor and this parameter once:
        rows after the cursor are before the time anyway. With both conditions PostgreSQL might read all rows between.
        """
        sent = self.parent.data
        name = next(name for name, each in self.parent.filters.items() if each is self)
        is_ordered = self.parent.time_field in (None, self.field_name)
        is_bound = is_ordered and "cursor" in sent and len(sent.getlist(name)) < 2
        return qs if is_bound else super().filter(qs, value)


class WordsField(forms.Field):
    """A parameter with several words. It may be repeated, or hold the words separated by commas."""

    def __init__(self, *, choices: list[str], **kwargs: Any) -> None:
        self.choices = choices
        super().__init__(widget=_RepeatedInput, **kwargs)

    def to_python(self, value: Any) -> list[str]:
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
    """Keeps the rows whose column holds one of the given words."""

    field_class = WordsField

    @property
    def described(self) -> dict[str, Any]:
        words = {"type": "string", "enum": list(self.extra["choices"])}
        return {"schema": {"type": "array", "items": words}, "style": "form", "explode": True}

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        return qs.filter(**{f"{self.field_name}__in": value}) if value else qs


class IncludeFilter(WordsFilter):
    """A parameter whose words name additional parts of the answer. It keeps all rows."""

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        return qs


class ApiFilterSet(django_filters.FilterSet):
    def as_they_are(self, rows: QuerySet[Any], _name: str, _value: str) -> QuerySet[Any]:
        """The `method` of a parameter that chooses no rows."""
        return rows

    @property
    def time_field(self) -> str | None:
        return None

    @classmethod
    def binding_names(cls) -> tuple[str, ...]:
        """Returns the parameters that a cursor depends on."""
        filters = cls.base_filters.items()
        return tuple(name for name, each in filters if not isinstance(each, IncludeFilter))

    @classmethod
    def read(
        cls,
        queryset: QuerySet[Any],
        request: Request,
        *,
        zone: Callable[[], tzinfo] = utc,
        environment_id: UUID | None = None,
    ) -> Self:
        """Applies the filters of a request, and returns the filter set.

        Its `qs` holds the filtered rows, and its `values` the parameters by name. Times without an offset are read in
        the time zone that `zone` returns. Raises Invalid with a field error for each bad parameter, and for the first
        id that is of no row of the environment, if that is given. The message is the same whether the row exists
        elsewhere or not, so that nobody learns which ids exist.
        """
        filters = cls(data=request.query_params, queryset=queryset)
        for each in filters.filters.values():
            if isinstance(each, TimeFilter):
                each.extra["zone"] = zone
        if not filters.is_valid():
            raise Invalid(
                {name: [str(m) for m in messages] for name, messages in filters.errors.items()}
            )
        for name, each in filters.filters.items():
            if not environment_id or not isinstance(each, IdFilter):
                continue
            if not each.names_row(environment_id, filters.values[name]):
                raise Invalid({name: ["No such id in this environment."]})
        return filters

    @property
    def parts(self) -> list[QuerySet[Any]]:
        """Returns one queryset for each word of a WordsFilter. An index has the rows of one word in order, but not the
        rows of several words, so the caller merges the querysets.
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
        return dict(self.form.cleaned_data)
