"""The base of every model's admin: a list of rows, a page about each row, and support actions.

Staff can't add, change or delete rows here. They can only use the support actions, which call services.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.text import capfirst
from django.views.generic import RedirectView
from unfold.admin import ModelAdmin

from pipedai.admin.change_list import KeysetChangeList, Scope
from pipedai.admin.panels import Panel, panels_for, panels_of_others
from pipedai.admin.support import SupportAction, actions_for, staff_actor
from pipedai.admin.values import list_of, page_of
from pipedai.api.errors import ApiError

_also_found_by: dict[type[Model], list[tuple[str, Callable[[str], Q]]]] = {}


def also_find_by(model: type[Model], words: str, condition: Callable[[str], Q]) -> None:
    """Makes the search of a model's list also find the rows for which `condition(term)` is true. `words` tells people
    what the search compares.

    An app calls it to make its data searchable in the list of another app, which must not import it.
    """
    _also_found_by.setdefault(model, []).append((words, condition))


class StaffModelAdmin(ModelAdmin):
    """Shows one model to staff. A subclass names the columns of the list and the panels of a row's page."""

    # The columns that the list's query loads. A name such as `worker__name` loads a column of a joined row. No other
    # columns are loaded.
    list_reads: ClassVar[Sequence[str]] = ()
    # The database indexes that serve the list while filters are active. If no index fits the filters, the list is
    # ordered by `newest_first`.
    scopes: ClassVar[Sequence[Scope]] = ()
    newest_first: ClassVar[Sequence[str]] = ("id",)
    # The text columns that the search reads, and what people call them. The search also finds a row by its id, which
    # need not be named here.
    searched_text: ClassVar[Mapping[str, str]] = {}
    # What the search finds by a whole e-mail address (see `found_by_address`), in words; empty if it finds nothing.
    searched_address: ClassVar[str] = ""
    # How many rows a search by text, or a filter without an index, may read for one page; None for the usual number
    # (`change_list.LOOKS_THROUGH`). Tables that grow with customers and not with their runs can afford more.
    looks_through: ClassVar[int | None] = None
    # The columns that hold encrypted values and hashes of tokens. The admin never loads them, not even for a row's own
    # page.
    never_read: ClassVar[Sequence[str]] = ()
    # The foreign keys whose rows are loaded together with a row for the page about that row.
    story_joins: ClassVar[Sequence[str]] = ()
    support: ClassVar[tuple[SupportAction, ...]] = ()
    icon: ClassVar[str] = "table_rows"
    # Whether the pages of users, members and workspaces link to this list for each environment.
    is_shortcut: ClassVar[bool] = False
    # The sentence that the list shows if the table has no rows: what has not happened yet.
    when_empty: ClassVar[str]

    # Django links the first column of a list to the row's page. A list whose first column is `link_to(…)` sets this to
    # None, because a link must not stand in a link.
    list_display_links: Any = ()
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

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Always false: only the API creates rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Always false: only support actions change rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Always false: the admin deletes no row."""
        return False

    def story(self, row: Any) -> Sequence[Panel]:
        """Returns the panels of the row's page."""
        raise NotImplementedError

    def story_asked(self, row: Any, sent: Mapping[str, str]) -> Sequence[Panel]:
        """Returns the panels of the row's page for a request with these query parameters."""
        return self.story(row)

    def looked_at(self, row: Any, request: HttpRequest) -> None:
        """Is called before the row's page is made, for models of which some reads are audited."""

    def title_of(self, row: Any) -> str:
        """Returns the name of the row for the title of its page."""
        return str(row.pk)

    # --- The list page of a model

    def scope_of(self, sent: Mapping[str, str]) -> Scope:
        """Returns the index in `scopes` that covers most of the active filters, or newest-first order if none fits."""
        known = [scope for scope in self.scopes if sent.keys() >= set(scope.filters)]
        nothing = Scope((), self.newest_first)
        return max((nothing, *known), key=lambda scope: len(scope.filters))

    def parts_of(self, rows: QuerySet[Any], sent: Mapping[str, str]) -> Sequence[QuerySet[Any]]:
        """Returns querysets that share no row and together have these rows of a list that is filtered by `sent`.

        An index returns the rows of each in the order of the list. Most lists need one queryset only.
        """
        return [rows]

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        """A text beside the search box that names what it finds."""
        wholes = ["Whole id", *([self.searched_address] if self.searched_address else [])]
        parts = [*self.searched_text.values(), *(words for words, _ in self._found_by_others())]
        return ", ".join([*wholes, *([f"part of {_either(parts)}"] if parts else [])])

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Returns the columns that the search reads. Django shows the search box only if there is at least one."""
        return ("id", *self.searched_text)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Returns the rows that the term names exactly, or else the rows that contain the term."""
        term = search_term.strip()
        if not term:
            return queryset, False
        exact = self.find_exactly(queryset, term)
        if exact is not None:
            return exact, False
        found = Q()
        for column in self.searched_text:
            found |= Q(**{f"{column}__icontains": term})
        for _, condition in self._found_by_others():
            found |= condition(term)
        return (queryset.filter(found) if found else queryset.none()), False

    def _found_by_others(self) -> list[tuple[str, Callable[[str], Q]]]:
        return _also_found_by.get(self.model, [])

    def find_exactly(self, rows: QuerySet[Any], term: str) -> QuerySet[Any] | None:
        """Returns the list's rows whose id the term is, or that belong to the user whose e-mail address the term is.
        Indexes find both. Returns None if the term is neither an id nor an address.
        """
        try:
            return self.find_by_id(rows, UUID(term))
        except ValueError:
            found = self.found_by_address(term) if self.searched_address and "@" in term else None
            return None if found is None else rows.filter(found)

    def found_by_address(self, address: str) -> Q | None:
        """Returns the condition for the rows that belong to the user with this e-mail address, or None if no user has
        it. A subclass with `searched_address` overrides this method.
        """
        return None

    def find_by_id(self, rows: QuerySet[Any], row_id: UUID) -> QuerySet[Any]:
        """Returns a queryset of the list's rows, limited to the row with this id."""
        return rows.filter(id=row_id)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Returns the list's rows with only the columns that the list reads."""
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.only(*self.list_reads) if self.list_reads else rows

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Returns the class that divides the list into keyset pages."""
        return KeysetChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        title = capfirst(str(self.opts.verbose_name_plural))
        return super().changelist_view(request, {**(extra_context or {}), "title": title})

    # --- The page about one row

    def get_urls(self) -> list[URLPattern]:
        """Returns the URLs of the list, of each row's page, and of each support action."""
        opts, wrap = self.opts, self.admin_site.admin_view
        name = f"{opts.app_label}_{opts.model_name}"
        return [
            path("", wrap(self.changelist_view), name=f"{name}_changelist"),
            path("<uuid:row_id>/", wrap(self.row_view), name=f"{name}_change"),
            # Django's own admin has the page about a row at the address <id>/change/. Old links still use that address,
            # so it is redirected to the page's address here.
            path(
                "<uuid:row_id>/change/",
                RedirectView.as_view(pattern_name=f"{self.admin_site.name}:{name}_change"),
            ),
            path("<uuid:row_id>/<slug:action>/", wrap(self.support_view), name=f"{name}_support"),
        ]

    def find(self, row_id: UUID) -> Model | None:
        """Returns the row with this id, or None if there is none."""
        return self.story_rows().filter(pk=row_id).first()

    def story_rows(self) -> QuerySet[Any]:
        """Returns the rows with the columns and joins that the page about a row and the support actions need."""
        rows: QuerySet[Any] = self.model._default_manager.all()
        if self.story_joins:
            rows = rows.select_related(*self.story_joins)
        return rows.defer(*self.never_read)

    def row_view(self, request: HttpRequest, row_id: UUID) -> HttpResponse:
        """Answers GET …/<id>/ with the page about one row."""
        row = self._find_or_leave(request, row_id)
        if isinstance(row, HttpResponse):
            return row
        self.looked_at(row, request)
        first, *others = self.story_asked(row, request.GET.dict())
        return self._page(
            request,
            row,
            "staff/row.html",
            panels=[first, *panels_for(row), *others, *panels_of_others(row)],
            support=[
                (action, f"{page_of(self.model, row_id)}{action.name}/")
                for action in actions_for(self.support, row)
            ],
        )

    def support_view(self, request: HttpRequest, row_id: UUID, action: str) -> HttpResponse:
        """Answers GET …/<id>/<action>/ with a page that asks for confirmation, and performs the action on POST. If what
        was posted does not fit the action's form, the page comes again and says why.
        """
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


def _either(words: Sequence[str]) -> str:
    """Joins words to an enumeration, such as "name, workspace or host name"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
