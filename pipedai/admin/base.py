"""The base of every model's admin: a list, a page about each row, and support actions, which alone can change rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ShowFacets, display
from django.core.checks import Error
from django.core.exceptions import PermissionDenied
from django.db.models import ForeignKey, Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.functional import cached_property
from django.utils.text import capfirst

from pipedai.admin.change_list import KeysetChangeList, Scope
from pipedai.admin.fields import Declared, Fields, fields_of, never_read, reading, value_of
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel, added_to, drawn
from pipedai.admin.search import SearchedModelAdmin
from pipedai.admin.site import Group
from pipedai.admin.support import SupportAction, staff_actor
from pipedai.admin.values import list_of, page_of
from pipedai.api.errors import ApiError


class StaffModelAdmin(SearchedModelAdmin):
    """Shows one model to staff. A subclass declares the columns of the list and the panels of a row's page."""

    # The fields of the list. If the first one is `itself()`, it is the link to the row's page.
    columns: ClassVar[Declared]
    # The facts that a row's page tells. Lists and tables name those that they show as well.
    facts: ClassVar[Declared]
    # The panels above the facts, and those below them.
    answers: ClassVar[Sequence[Panel]] = ()
    panels: ClassVar[Sequence[Panel]] = ()
    # The column with the name of a row, for the title of its page and for links to it. Without one they show its id.
    named_by: ClassVar[str] = ""
    # Columns that staff must not see although they are neither encrypted values nor digests. The admin never loads
    # them.
    never_read: ClassVar[Sequence[str]] = ()
    # The columns that a row's page leaves out on purpose. `check` refuses a column that is neither here nor shown.
    left_out: ClassVar[Sequence[str]] = ()
    # The columns that the panels show, and those of joined rows that they need.
    panels_read: ClassVar[Sequence[str]] = ()
    # The database indexes that serve the list while filters are active. If no index fits the filters, the list is
    # ordered by `newest_first`.
    scopes: ClassVar[Sequence[Scope]] = ()
    newest_first: ClassVar[Sequence[str]] = ("id",)
    # How many rows a search by text, or a filter without an index, may read for one page; None for the usual number
    # (`change_list.LOOKS_THROUGH`). Tables that grow with customers and not with their runs can afford more.
    looks_through: ClassVar[int | None] = None
    support: ClassVar[tuple[SupportAction, ...]] = ()
    icon: ClassVar[str] = "table_rows"
    # The group of the side bar with the link to the list.
    group: ClassVar[Group]
    # Whether the pages of users, members and workspaces link to this list for each environment.
    is_shortcut: ClassVar[bool] = False
    # The sentence that the list shows if the table has no rows: what has not happened yet.
    when_empty: ClassVar[str]

    actions = None
    sortable_by = ()
    ordering: ClassVar[Any] = ("-id",)
    list_per_page = 50
    show_full_result_count = False
    # Django's facets show a number of rows beside each choice of a filter. They are off, because each number would need
    # a count of the whole table.
    show_facets = ShowFacets.NEVER
    list_fullwidth = True
    change_list_template = "staff/change_list.html"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # A foreign key among the filters becomes a filter by the id of the other row.
        self.list_filter = [self._filter(each) for each in self.list_filter]  # type: ignore[misc]
        self.related_filters = {getattr(each, "name", "") for each in self.list_filter}

    def _filter(self, each: Any) -> Any:
        field = self.opts.get_field(each) if isinstance(each, str) else None
        return related(field.name, field.related_model) if isinstance(field, ForeignKey) else each

    def _never(self, request: HttpRequest, *_: Any, **__: Any) -> bool:
        return False

    has_add_permission = has_change_permission = has_delete_permission = _never

    def check(self, **kwargs: Any) -> list[Any]:
        """Returns Django's errors, and one for each column that is in neither `facts` nor `left_out`."""
        read = {path for each in self.named_facts.values() for path in each.reads}
        shown = {path.partition("__")[0] for path in (*read, *self.panels_read)}
        shown |= never_read(self.model)
        hidden = {
            each.name
            for each in self.model._meta.concrete_fields
            if not {each.name, each.attname} & shown
        }
        file = f"{type(self).__module__.replace('.', '/')}.py"
        told = "must be either shown, in `facts`, or named in `left_out`, and not both"
        return [
            *super().check(**kwargs),
            *(
                Error(f"{self.model._meta.label}.{name} {told}: see {file}.", id="staff.E001")
                for name in sorted(hidden ^ {*self.left_out})
            ),
        ]

    @cached_property
    def named_facts(self) -> Fields:
        return fields_of(self.model, self.facts)

    @cached_property
    def _list_fields(self) -> Fields:
        return fields_of(self.model, self.columns, self.named_facts)

    def title_of(self, row: Any) -> str:
        return str(value_of(row, self.named_by or "pk"))

    # --- The list page of a model

    def scope_of(self, sent: Mapping[str, str]) -> Scope:
        known = [scope for scope in self.scopes if sent.keys() >= set(scope.filters)]
        nothing = Scope((), self.newest_first)
        return max((nothing, *known), key=lambda scope: len(scope.filters))

    def parts_of(self, rows: QuerySet[Any], sent: Mapping[str, str]) -> Sequence[QuerySet[Any]]:
        """Returns querysets that share no row and make up `rows`, each in an order that an index has."""
        return [rows]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        keys = {key for scope in self.scopes for key in scope.keys} | {*self.newest_first}
        return reading(super().get_queryset(request), self._list_fields.values(), *keys)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return [_column(name, each.show) for name, each in self._list_fields.items()]

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        first = next(iter(self._list_fields.values()))
        return None if first.leads else list_display[:1]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return KeysetChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        title = capfirst(str(self.opts.verbose_name_plural))
        return super().changelist_view(request, {**(extra_context or {}), "title": title})

    # --- The page about one row

    def get_urls(self) -> list[URLPattern]:
        opts, wrap = self.opts, self.admin_site.admin_view
        name = f"{opts.app_label}_{opts.model_name}"
        return [
            path("", wrap(self.changelist_view), name=f"{name}_changelist"),
            path("<uuid:row_id>/", wrap(self.row_view), name=f"{name}_change"),
            path("<uuid:row_id>/<slug:action>/", wrap(self.support_view), name=f"{name}_support"),
        ]

    def find(self, row_id: UUID) -> Model | None:
        return self.page_rows().filter(pk=row_id).first()

    def page_rows(self) -> QuerySet[Any]:
        own = (each.attname for each in self.model._meta.concrete_fields)
        rows: QuerySet[Any] = self.model._default_manager.all()
        return reading(rows, self.named_facts.values(), *own, *self.panels_read)

    def row_view(self, request: HttpRequest, row_id: UUID) -> HttpResponse:
        row = self._find_or_leave(request, row_id)
        if isinstance(row, HttpResponse):
            return row
        told = [(name, each.show(row)) for name, each in self.named_facts.items()]
        facts = Facts(capfirst(str(self.opts.verbose_name)), told)
        panels = [*added_to(self.model), *self.panels, *added_to(Model)]
        actions = [action for action in self.support if action.applies(row)]
        return self._page(
            request,
            row,
            "staff/row.html",
            panels=[*drawn(row, request, self.answers), facts, *drawn(row, request, panels)],
            support=[(each, f"{page_of(self.model, row_id)}{each.name}/") for each in actions],
        )

    def support_view(self, request: HttpRequest, row_id: UUID, action: str) -> HttpResponse:
        """Asks for confirmation, and on POST performs the action. A form with errors is shown again."""
        row = self._find_or_leave(request, row_id)
        if isinstance(row, HttpResponse):
            return row
        back = HttpResponseRedirect(page_of(self.model, row_id))
        chosen = {each.name: each for each in self.support}.get(action)
        if chosen is None or not chosen.applies(row):
            messages.warning(request, f"This can't be done to the {self.opts.verbose_name} now.")
            return back
        posted = request.POST if request.method == "POST" else None
        form = chosen.form(row, posted) if chosen.form else None
        if posted is None or (form and not form.is_valid()):
            return self._page(request, row, "staff/confirm.html", action=chosen, form=form)
        try:
            chosen.perform(row, staff_actor(request), **(form.cleaned_data if form else {}))
        except ApiError as error:
            messages.error(request, error.message)
        else:
            messages.success(request, chosen.done)
        return back

    def _find_or_leave(self, request: HttpRequest, row_id: UUID) -> Model | HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self.find(row_id)
        if row is None:
            messages.warning(request, f"There is no {self.opts.verbose_name} {row_id}.")
            return HttpResponseRedirect(list_of(self.model))
        return row

    def _page(
        self, request: HttpRequest, row: Model, template: str, **context: Any
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        known = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "row": row,
            "title": f"{capfirst(str(self.opts.verbose_name))} {self.title_of(row)}",
            "here": page_of(self.model, row.pk),
        }
        return TemplateResponse(request, template, {**known, **context})


def _column(name: str, show: Callable[[Any], Any]) -> Any:
    return display(description=name)(lambda row: show(row))
