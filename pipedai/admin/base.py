"""The base of every model's admin: Django's ModelAdmin, read only. Only support actions change rows, each after a page
that asks for confirmation.

Lists stay fast in a ledger of millions of rows: a list reads only the newest rows that an index finds for its filters.
Staff see older rows by choosing their days.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, partial
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.apps import apps
from django.contrib import messages
from django.contrib.admin import ModelAdmin, ShowFacets, display
from django.contrib.admin.filters import ListFilter, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import lookup_spawns_duplicates
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.contrib.postgres.fields import ArrayField
from django.db.models import (
    BinaryField,
    BooleanField,
    DateTimeField,
    JSONField,
    Q,
    QuerySet,
    TextField,
)
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.text import capfirst, get_text_list

from pipedai.admin.columns import (
    Panel,
    column,
    is_column,
    never_read,
    reading,
    short_id,
    spoken,
    value_of,
)
from pipedai.admin.site import list_of, page_of, site
from pipedai.api.errors import ApiError
from pipedai.api.pagination import not_before
from pipedai.api.principal import actor_from
from pipedai.events import Actor
from pipedai.ids import first_id_at, ids_beginning_with
from pipedai.replica.reading import read_for


class BoundedList(ChangeList):
    """A list of at most `looks_through` rows, on which Django's filters, search, sorting, counts and pages work."""

    def get_filters(self, request: HttpRequest) -> Any:
        """Raises IncorrectLookupParameters for a parameter that is no filter of this list. Django itself would filter
        by any column, so that somebody could guess a password's hash bit by bit.
        """
        if any("\0" in value for sent in request.GET.lists() for value in sent[1]):
            raise IncorrectLookupParameters("PostgreSQL's text knows no NUL.")
        found = super().get_filters(request)
        if others := found[2]:
            raise IncorrectLookupParameters(f"No filters of this list: {', '.join(others)}")
        return found

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        admin: Any = self.model_admin
        rows = admin.list_rows()
        exact = admin.find_exactly(rows, self.query.strip())
        self.is_cut = False
        self.root_queryset = self._newest(request, rows) if exact is None else exact
        return super().get_queryset(request, exclude_parameters)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # The rows are read here, while the replica is asked, and not later by the template.
        self.result_list = list(self.result_list)

    def _newest(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Returns the newest rows of the index that fits the most of the active filters, in its order."""
        admin: Any = self.model_admin
        specs = (each for each in self.get_filters(request)[0] if each.used_parameters)
        active: dict[str, Any] = {_name(each): each for each in specs}
        names, key = served(admin, active)
        for name in names:
            rows = active[name].queryset(request, rows)
        if days := active.get(DatesFilter.title):
            rows = days.within(key, rows)
        keys = (key,) if key == "id" else (key, "id")
        rows = rows.order_by(*(f"-{each}" for each in keys))
        limit: int = admin.looks_through
        last = rows.values_list(*keys)[limit - 1 : limit].first()
        self.is_cut = last is not None
        return rows.filter(not_before(keys, last)) if last else rows


def _name(spec: Any) -> str:
    return str(getattr(spec, "parameter_name", "") or getattr(spec, "field_path", "") or spec.title)


def served(admin: Any, active: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Returns the active filters that one index of the table serves together, and the column that orders this index.
    Each table of tenants has an index of `environment` and `id`.
    """
    known = {**admin.indexes, (): admin.newest_by}
    for index in admin.opts.indexes:
        fields = [*index.fields, "id"]
        names = tuple(fields[: next(n for n, each in enumerate(fields) if each not in active)])
        key = fields[len(names)]
        is_whole = index.condition in (None, *(Q(**{f"{name}__isnull": False}) for name in names))
        if is_whole and (key == "id" or isinstance(admin.opts.get_field(key), DateTimeField)):
            known.setdefault(names, key)
    for field in admin.opts.concrete_fields:
        if field.is_relation and (field.db_index or field.name == "environment"):
            known.setdefault((field.name,), "id")
    return max(
        ((names, key) for names, key in known.items() if {*names} <= {*active}),
        key=lambda each: len(each[0]),
    )


class RelatedFilter(SimpleListFilter):
    """Keeps the rows that refer to one other row. Only links set it, because a menu of all rows would be endless."""

    # The models to whose rows the column refers. Their pages lead to the list.
    others: tuple[Any, ...]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(sent, short_id(sent))] if (sent := self.value()) else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            row_id = UUID(self.value()) if self.value() else None
        except ValueError:
            return queryset.none()
        return queryset.filter(**{f"{self.parameter_name}_id": row_id}) if row_id else queryset


def related(name: str, *others: Any) -> type[RelatedFilter]:
    """Returns a filter for the column `<name>_id`, which has ids of rows of these models."""
    attributes = {"parameter_name": name, "title": spoken(name), "others": others}
    return type(f"{name.title()}Filter", (RelatedFilter,), attributes)


class DatesFilter(ListFilter):
    """Keeps the rows of a range of days in UTC, by the column that orders the index. If this column is the id, the
    filter compares the time in the id.
    """

    template = "staff/dates_filter.html"
    title = "date"
    names = ("from", "to")

    def __init__(self, request: HttpRequest, params: dict[str, Any], *others: Any) -> None:
        super().__init__(request, params, *others)
        sent = {name: params.pop(name, [""])[-1] for name in self.names}
        self.used_parameters = {name: day for name, day in sent.items() if day}

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return list(self.names)

    def choices(self, changelist: Any) -> Iterator[Mapping[str, Any]]:
        kept = changelist.filter_params.items()
        yield {
            "sent": [(name, self.used_parameters.get(name, "")) for name in self.names],
            "kept": [
                (name, each) for name, sent in kept if name not in self.names for each in sent
            ],
            "limit": changelist.model_admin.looks_through if changelist.is_cut else 0,
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset

    def within(self, column: str, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Returns the rows of the chosen days by this column, or no rows if a day does not exist in the calendar."""
        as_value: Any = first_id_at if column == "id" else lambda moment: moment
        days = {"from": ("gte", timedelta(0)), "to": ("lt", timedelta(days=1))}
        try:
            for name, day in self.used_parameters.items():
                comparison, further = days[name]
                at = datetime.combine(date.fromisoformat(str(day)), time.min, UTC) + further
                rows = rows.filter(**{f"{column}__{comparison}": as_value(at)})
        except (ValueError, OverflowError):
            return rows.none()
        return rows


class InState(SimpleListFilter):
    """Keeps the rows that meet the condition of the chosen word. The word need not be the value of any column."""

    conditions: Mapping[str, Q]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, spoken(word)) for word in self.conditions]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        word = self.value()
        return queryset.filter(self.conditions.get(word, Q(pk__in=()))) if word else queryset


def in_state(name: str = "state", /, **conditions: Q) -> type[InState]:
    """Returns a filter for the parameter `name`. `conditions` has the condition of each word."""
    attributes = {"parameter_name": name, "title": spoken(name), "conditions": conditions}
    return type("StateFilter", (InState,), attributes)


def one_of(column: str, words: Iterable[str]) -> type[InState]:
    return in_state(column, **{word: Q(**{column: word}) for word in words})


@dataclass(frozen=True)
class SupportAction:
    """An action on one row. `perform` calls the API's service with the row, the staff user as actor, and the form's
    values as keyword arguments.
    """

    label: str
    # What the action will do, in one or two sentences. The page that asks for confirmation shows them.
    explanation: str
    perform: Callable[..., object]
    applies: Callable[[Any], bool] = bool
    # Makes the form on the page that asks for confirmation, from the row and the posted values, which are None at
    # first. It is None for an action that needs no values.
    form: Callable[[Any, Mapping[str, Any] | None], forms.Form] | None = None


def staff_actor(request: HttpRequest) -> Actor:
    return actor_from(request, "staff", request.user.pk)


# The end of an id, as lists show it: `…c6689400`. No index has the ends of ids, so the search tests each row.
_END_OF_ID = re.compile("…?([0-9A-Fa-f]{8,12})")
# The most rows that a list reads of a table that grows with customers and not with their runs: users, environments,
# workers, triggers. A search by text tests this many rows in 150 ms.
OF_CUSTOMERS = 50_000
# A list without `list_display` shows at most _MOST_COLUMNS columns, and none whose type is in _LONG.
_MOST_COLUMNS, _LONG = 9, (JSONField, TextField, ArrayField)


class StaffModelAdmin(ModelAdmin):  # type: ignore[type-arg]
    """Shows one model to staff: its list, and a page with all columns of a row. Lists can be filtered by columns with
    choices, by rows to which an index of the table leads, by days, and by what a subclass adds in `list_filter`.
    """

    # The columns, besides those of bytes, that staff must not see. No page loads them.
    hidden: ClassVar[Sequence[str]] = ()
    # Columns of joined rows that a row's page shows as well.
    also_shown: ClassVar[Sequence[str]] = ()
    # The columns that the methods in `list_display` read, besides those that the list shows.
    reads: ClassVar[Sequence[str]] = ()
    annotations: ClassVar[Mapping[str, Any]] = {}
    # The models to whose rows a column refers although it is no foreign key, by the column's name.
    refers: ClassVar[Mapping[str, Any]] = {}
    # The column with a row's name, which the title of its page and links to it show. If it is empty, they show the id.
    named_by: ClassVar[str] = ""
    # The paths from a row to users. The search finds the row by the whole e-mail address of such a user.
    found_by_user: ClassVar[Sequence[str]] = ()
    panels: ClassVar[Sequence[Callable[[Any, HttpRequest], Panel | None]]] = ()
    support: ClassVar[Mapping[str, SupportAction]] = {}
    # The filters that one index serves together, and the column that orders it, for an index that `served` can't find.
    indexes: ClassVar[Mapping[tuple[str, ...], str]] = {}
    newest_by: ClassVar[str] = "id"
    looks_through: ClassVar[int] = 2_000

    actions = None
    list_per_page = 50
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    change_form_template = "staff/row.html"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        fields: Any = self.opts.concrete_fields
        words = [each.name for each in fields if each.choices or isinstance(each, BooleanField)]
        keys = (each for each in fields if each.is_relation and served(self, {each.name})[0])
        rows = [related(each.name, each.related_model) for each in keys]
        # Bytes may be secret, so a page says only whether they have a value, and does not read them.
        empty = (each.name for each in fields if isinstance(each, BinaryField) and each.null)
        self._has = {f"has_{name}": Q(**{f"{name}__isnull": False}) for name in empty}
        self.list_filter = [*self.list_filter, *words, *rows, DatesFilter]  # type: ignore[misc]
        if "__str__" in self.list_display:
            short = (each.name for each in fields if not isinstance(each, _LONG))
            names = dict.fromkeys([self.named_by or "id", *short])
            shown = [each for each in names if each not in never_read(self.model)]
            self.list_display = shown[:_MOST_COLUMNS]

    def _never(self, request: HttpRequest, *_: Any, **__: Any) -> bool:
        return False

    has_add_permission = has_change_permission = has_delete_permission = _never

    # --- The list page of a model

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return BoundedList

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Reads the list from the read replica if the replica is up to date."""
        staff: Any = request.user
        return read_for(staff.pk, partial(super().get_changelist_instance, request))

    @cached_property
    def _listed(self) -> dict[str, Any]:
        names = (str(each) for each in self.list_display if is_column(self.model, str(each)))
        return {name: column(self.model, name, in_list=True) for name in names}

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return [self._listed.get(str(each), each) for each in self.list_display]

    def list_rows(self) -> QuerySet[Any]:
        return self.rows("id", *self._listed)

    def rows(self, *columns: str) -> QuerySet[Any]:
        rows: QuerySet[Any] = self.model._default_manager.annotate(**self.annotations)
        return reading(rows, (*columns, *self.reads))

    # --- The search: by the beginning of an id or a whole e-mail address through an index, or by parts of texts

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        parts = [spoken(each.replace("__", " ")) for each in self.search_fields]
        found = "First or last 8 characters of an id"
        found += ", a user's e-mail address" if self.found_by_user else ""
        return f"{found}, part of {get_text_list(parts, 'or')}" if parts else found

    def get_search_fields(self, request: HttpRequest) -> Any:
        return ("id", *self.search_fields)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or self.find_exactly(queryset, term) is not None:
            return queryset, False
        found = self._any(self.search_fields, "__icontains", term)
        if end := _END_OF_ID.fullmatch(term):
            found |= Q(id__endswith=end[1].lower())
        return queryset.filter(found), False

    def find_exactly(self, rows: QuerySet[Any], term: str) -> QuerySet[Any] | None:
        """Returns the rows whose ids begin with the term, or the rows of the user with this e-mail address. Indexes
        find both in a table of any size. Returns None for any other term, and for a part of an id that no row has.
        """
        if (ids := ids_beginning_with(term)) is not None:
            found = self.find_by_ids(rows, *ids)
            return found if ids[0] == ids[1] or found.exists() else None
        if "@" not in term or not self.found_by_user:
            return None
        users: Any = get_user_model()
        try:
            user = users.objects.get_by_natural_key(term)
        except users.DoesNotExist:
            return None
        return rows.filter(self._any(self.found_by_user, "", user.pk))

    def find_by_ids(self, rows: QuerySet[Any], first: UUID, last: UUID) -> QuerySet[Any]:
        return rows.filter(id__range=(first, last))

    def _any(self, paths: Sequence[str], lookup: str, value: Any) -> Q:
        """Returns the condition that one of the columns matches. If a join could find a row several times, the
        condition is a subquery.
        """
        found = Q(pk__in=())
        for each in paths:
            matches = Q(**{f"{each}{lookup}": value})
            if lookup_spawns_duplicates(self.opts, each):
                matches = Q(pk__in=self.model._default_manager.filter(matches).values("pk"))
            found |= matches
        return found

    # --- The page about one row

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        own = (each.name for each in self.opts.concrete_fields)
        rows: QuerySet[Any] = self.rows(*own, *self.also_shown).annotate(**self._has)
        return rows

    @cached_property
    def _page_columns(self) -> list[Any]:
        methods = [each for each in self.list_display if each not in self._listed]
        own = [each.name for each in self.opts.concrete_fields]
        names = [*(each for each in own if each not in never_read(self.model)), *self.also_shown]
        columns = [column(self.model, each, in_list=False) for each in names]
        return [*methods, *columns, *map(_whether, self._has)]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._page_columns

    get_readonly_fields = get_fields

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kw: Any) -> Any:
        row: Any = context["original"]
        panels = [each for panel in self.panels if (each := panel(row, request))]
        lists = []
        for model, admin in site._registry.items():
            filters: Any = admin.list_filter
            for each in filters:
                if self.model in getattr(each, "others", ()):
                    name = capfirst(str(model._meta.verbose_name_plural))
                    is_plain = each.title in (self.opts.model_name, "subject")
                    name += "" if is_plain else f" ({each.title})"
                    lists.append((name, list_of(model, **{each.parameter_name: row.pk})))
        context |= {
            "title": self._title(row),
            "subtitle": None,
            "panels": [*panels, Panel("See also", links=lists)],
            "support": [
                (action.label, reverse(f"admin:{self._support_name}", args=[row.pk, name]))
                for name, action in self.support.items()
                if action.applies(row)
            ],
        }
        return super().render_change_form(request, context, *args, **kw)

    def _title(self, row: Any) -> str:
        return f"{capfirst(str(self.opts.verbose_name))} {value_of(row, self.named_by or 'pk')}"

    def history_view(self, request: HttpRequest, object_id: str, *_: Any) -> HttpResponse:
        """Redirects to the audit log about the row, because Django's own log is not written."""
        row: Any = self.get_object(request, object_id)
        environment = getattr(row, "environment_id", None)
        filters = {"target": object_id} | ({"environment": environment} if environment else {})
        return HttpResponseRedirect(list_of(apps.get_model("audit.AuditEntry"), **filters))

    # --- Support actions

    @property
    def _support_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_support"

    def get_urls(self) -> list[Any]:
        view = site.admin_view(self.support_view)
        own = path("<uuid:row_id>/do/<slug:action>/", view, name=self._support_name)
        return [own, *super().get_urls()]

    def support_view(self, request: HttpRequest, row_id: UUID, action: str) -> HttpResponse:
        """Asks for confirmation, and on POST performs the action. A form with errors is shown again."""
        row: Any = self.get_object(request, str(row_id))
        back = HttpResponseRedirect(page_of(self.model, row_id))
        chosen = self.support.get(action)
        if row is None or chosen is None or not chosen.applies(row):
            messages.warning(request, f"This can't be done to the {self.opts.verbose_name} now.")
            return back
        posted = request.POST if request.method == "POST" else None
        form = chosen.form(row, posted) if chosen.form else None
        if posted is None or (form and not form.is_valid()):
            asked = {"title": self._title(row), "action": chosen, "form": form, "here": back.url}
            context = {**site.each_context(request), **asked}
            return TemplateResponse(request, "staff/confirm.html", context)
        try:
            chosen.perform(row, staff_actor(request), **(form.cleaned_data if form else {}))
        except ApiError as error:
            messages.error(request, error.message)
        else:
            messages.success(request, f"Done: {chosen.label}.")
        return back


def _whether(name: str) -> Any:
    described = display(description=capfirst(spoken(name)))
    return described(lambda row: "yes" if getattr(row, name) else "no")
