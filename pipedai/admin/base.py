"""The base of every model's admin: Django's ModelAdmin, read only. Support actions alone change rows."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.apps import apps
from django.contrib import messages
from django.contrib.admin import ModelAdmin, ShowFacets, display
from django.contrib.admin.utils import get_fields_from_path, lookup_spawns_duplicates
from django.contrib.auth import get_user_model
from django.db.models import BinaryField, ForeignKey, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.functional import cached_property
from django.utils.text import capfirst, get_text_list

from pipedai.admin.columns import Panel, column, is_column, never_read, reading, value_of
from pipedai.admin.lists import BoundedList, DatesFilter, related
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction, staff_actor
from pipedai.admin.values import list_of, page_of, spoken
from pipedai.api.errors import ApiError
from pipedai.ids import ids_beginning_with
from pipedai.replica.reading import read_for

# The end of an id, as lists show it: `…c6689400`. No index has it, so it is looked for like a part of a text.
_END_OF_ID = re.compile("…?([0-9A-Fa-f]{8,12})")
# How many rows a list reads of a table that grows with customers and not with their runs: users, environments, workers,
# triggers. A search by text tests so many rows in 150 ms.
OF_CUSTOMERS = 50_000


class StaffModelAdmin(ModelAdmin):  # type: ignore[type-arg]
    """Shows one model to staff. A subclass declares `list_display`, `list_filter` and `search_fields`, as Django knows
    them; a row's page has all columns besides. A foreign key in `list_filter` filters by the id of the other row.
    """

    # The columns that staff must not see although they are not bytes. No page loads them.
    hidden: ClassVar[Sequence[str]] = ()
    # Columns of joined rows that a row's page shows as well.
    also_shown: ClassVar[Sequence[str]] = ()
    # The columns that the methods in `list_display` read, besides those that the list shows.
    reads: ClassVar[Sequence[str]] = ()
    annotations: ClassVar[Mapping[str, Any]] = {}
    # The models to whose rows columns refer that are no foreign keys.
    refers: ClassVar[Mapping[str, Any]] = {}
    # The column with the name of a row, for the title of its page and for links to it. Without one they show its id.
    named_by: ClassVar[str] = ""
    panels: ClassVar[Sequence[Callable[[Any, HttpRequest], Panel | None]]] = ()
    support: ClassVar[tuple[SupportAction, ...]] = ()
    # The filters that a database index serves together, and the column in whose order it has their rows. Without such
    # filters the list is in the order of `newest_by`.
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
        self.list_filter = [*map(self._filter, self.list_filter), DatesFilter]  # type: ignore[misc]

    def _filter(self, each: Any) -> Any:
        field = self.opts.get_field(each) if isinstance(each, str) else None
        return related(field.name, field.related_model) if isinstance(field, ForeignKey) else each

    def _never(self, request: HttpRequest, *_: Any, **__: Any) -> bool:
        return False

    has_add_permission = has_change_permission = has_delete_permission = _never

    # --- The list page of a model

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return BoundedList

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Reads the list from the read replica if it is fit."""
        return read_for(
            request.user.pk, lambda: super(StaffModelAdmin, self).get_changelist_instance(request)
        )  # type: ignore[arg-type]

    @cached_property
    def _list_columns(self) -> list[Any]:
        return [
            column(self.model, each, in_list=True) if is_column(self.model, each) else each
            for each in self.list_display
        ]  # fmt: skip

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return self._list_columns

    def list_rows(self) -> QuerySet[Any]:
        listed = [each for each in self.list_display if is_column(self.model, str(each))]
        return self.rows("id", self.newest_by, *self.indexes.values(), *map(str, listed))

    def rows(self, *columns: str) -> QuerySet[Any]:
        rows: QuerySet[Any] = self.model._default_manager.annotate(**self.annotations)
        return reading(rows, (*columns, *self.reads))

    # --- The search: by the beginning of an id or a whole address through an index, or by parts of texts

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        parts = [
            spoken(each.replace("__", " "))
            for each in self.search_fields
            if each not in self._addresses
        ]
        found = ["First or last 8 characters of an id"]
        found += ["e-mail address of a user"] if self._users else []
        return ", ".join(found + ([f"part of {get_text_list(parts, 'or')}"] if parts else []))

    @cached_property
    def _users(self) -> list[str]:
        """The paths to the users whose addresses the search finds."""
        fields = {each: get_fields_from_path(self.model, each)[-1] for each in self.search_fields}
        mine = [
            each
            for each, field in fields.items()
            if field is get_user_model()._meta.get_field("email")
        ]
        return [each.removesuffix("email").removesuffix("__") or "pk" for each in mine]

    @cached_property
    def _addresses(self) -> set[str]:
        """The paths to the addresses of several users, which are found whole only, because a part costs too much."""
        return {
            f"{each}__email" for each in self._users if lookup_spawns_duplicates(self.opts, each)
        }

    def get_search_fields(self, request: HttpRequest) -> Sequence[str]:
        return ("id", *self.search_fields)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or self.find_exactly(queryset, term) is not None:
            return queryset, False
        found = Q(pk__in=())
        if end := _END_OF_ID.fullmatch(term):
            found |= Q(id__endswith=end[1].lower())
        for each in {*self.search_fields} - self._addresses:
            found |= self._having(Q(**{f"{each}__icontains": term}), each)
        return queryset.filter(found), False

    def find_exactly(self, rows: QuerySet[Any], term: str) -> QuerySet[Any] | None:
        """Returns the rows whose ids begin so, or those of the user with this address, which indexes find in a table of
        any size. None if the term is neither. A term such as 20261129 means ids only if there are some.
        """
        if (ids := ids_beginning_with(term)) is not None:
            found = self.find_by_ids(rows, *ids)
            return found if ids[0] == ids[1] or found.exists() else None
        if "@" not in term or not self._users:
            return None
        users: Any = get_user_model()
        try:
            user = users.objects.get_by_natural_key(term)
        except users.DoesNotExist:
            return None
        conditions = [self._having(Q(**{each: user.pk}), each) for each in self._users]
        return rows.filter(Q(*conditions, _connector=Q.OR))

    def find_by_ids(self, rows: QuerySet[Any], first: UUID, last: UUID) -> QuerySet[Any]:
        return rows.filter(id__range=(first, last))

    def _having(self, condition: Q, path: str) -> Q:
        """Returns the condition, inside a query of its own if a row would otherwise be found several times."""
        if not lookup_spawns_duplicates(self.opts, path):
            return condition
        return Q(pk__in=self.model._default_manager.filter(condition).values("pk"))

    # --- The page about one row

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        own = (each.name for each in self.opts.concrete_fields)
        has = {f"has_{name}": Q(**{f"{name}__isnull": False}) for name in self._secrets}
        return self.rows(*own, *self.also_shown).annotate(**has)

    @cached_property
    def _secrets(self) -> list[str]:
        """The columns of bytes that may be empty. A page says whether they have a value, without reading it."""
        return [
            each.name
            for each in self.opts.concrete_fields
            if isinstance(each, BinaryField) and each.null
        ]

    @cached_property
    def _page_columns(self) -> list[Any]:
        methods = [each for each in self.list_display if not is_column(self.model, str(each))]
        own = [
            each.name
            for each in self.opts.concrete_fields
            if each.name not in never_read(self.model)
        ]
        has = (_whether(f"has_{name}") for name in self._secrets)
        return [
            *methods,
            *(column(self.model, each, in_list=False) for each in [*own, *self.also_shown]),
            *has,
        ]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._page_columns

    get_readonly_fields = get_fields

    def render_change_form(
        self, request: HttpRequest, context: Any, add: bool = False, change: bool = False, form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:  # fmt: skip
        actions = [action for action in self.support if action.applies(obj)]
        panels = [each for panel in self.panels if (each := panel(obj, request))]
        context |= {
            "title": self._title(obj),
            "subtitle": None,
            "panels": [*panels, Panel("See also", links=self._lists_about(obj))],
            "support": [(each, self._support_url(obj, each)) for each in actions],
        }
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _title(self, row: Any) -> str:
        return f"{capfirst(str(self.opts.verbose_name))} {value_of(row, self.named_by or 'pk')}"

    def _lists_about(self, row: Any) -> list[tuple[str, str]]:
        """Returns the lists that can be filtered by this row."""
        found = []
        for model, admin in site._registry.items():
            for each in admin.list_filter:
                if self.model in getattr(each, "others", ()):
                    is_plain = each.parameter_name in (self.opts.model_name, "subject")
                    also = "" if is_plain else f" ({each.title})"
                    name = capfirst(str(model._meta.verbose_name_plural))
                    found.append((f"{name}{also}", list_of(model, **{each.parameter_name: row.pk})))
        return found

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """Leads to the audit log about the row, since Django's own log is not written."""
        row: Any = self.get_object(request, object_id)
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        environment = {"environment": row.environment_id} if hasattr(row, "environment_id") else {}
        return HttpResponseRedirect(
            list_of(apps.get_model("audit.AuditEntry"), target=row.pk, **environment)
        )

    # --- Support actions

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.support_view)
        return [
            path("<uuid:row_id>/do/<slug:action>/", view, name=self._support_name),
            *super().get_urls(),
        ]

    @property
    def _support_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_support"

    def _support_url(self, row: Any, action: SupportAction) -> str:
        return reverse(f"admin:{self._support_name}", args=[row.pk, action.name])

    def support_view(self, request: HttpRequest, row_id: UUID, action: str) -> HttpResponse:
        """Asks for confirmation, and on POST performs the action. A form with errors is shown again."""
        row: Any = self.get_object(request, str(row_id))
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, str(row_id))
        back = HttpResponseRedirect(page_of(self.model, row_id))
        chosen = {each.name: each for each in self.support}.get(action)
        if chosen is None or not chosen.applies(row):
            messages.warning(request, f"This can't be done to the {self.opts.verbose_name} now.")
            return back
        posted = request.POST if request.method == "POST" else None
        form = chosen.form(row, posted) if chosen.form else None
        if posted is None or (form and not form.is_valid()):
            asked = {
                "title": self._title(row),
                "action": chosen,
                "form": form,
                "here": back.url,
                "opts": self.opts,
            }
            return TemplateResponse(
                request, "staff/confirm.html", {**self.admin_site.each_context(request), **asked}
            )
        try:
            chosen.perform(row, staff_actor(request), **(form.cleaned_data if form else {}))
        except ApiError as error:
            messages.error(request, error.message)
        else:
            messages.success(request, chosen.done)
        return back


def _whether(name: str) -> Any:
    return display(description=capfirst(spoken(name)))(
        lambda row: "yes" if getattr(row, name) else "no"
    )
