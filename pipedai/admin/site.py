"""Defines the admin site: its pages, its navigation and its start page."""

from typing import Any, Literal, get_args

from django.core.paginator import InvalidPage
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from unfold.sites import UnfoldAdminSite

from pipedai.admin.start_page import start_page
from pipedai.admin.values import list_of
from pipedai.version import VERSION

# The groups of the side bar, in their order, named after what staff look for.
Group = Literal[
    "Runs", "Triggers", "Machines", "Money", "People", "Webhooks and notices", "Service"
]


class StaffSite(UnfoldAdminSite):
    index_title = "Start"
    enable_nav_sidebar = True

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        request.current_app = self.name
        context = {**self.each_context(request), "title": self.index_title, **start_page()}
        return TemplateResponse(request, "staff/start.html", context)

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        try:
            return super().search(request, extra_context)
        except (ValueError, InvalidPage):
            raise Http404 from None

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "version": VERSION}


site = StaffSite()


def model_named(name: str) -> Any:
    names = {
        str(model._meta.verbose_name).lower().replace(" ", "-"): model for model in site._registry
    }
    return names.get(name)


def navigation(_: HttpRequest) -> list[dict[str, Any]]:
    start = {"title": "Start", "icon": "monitoring", "link": "/admin/"}
    groups: dict[str, list[dict[str, str]]] = {group: [] for group in get_args(Group)}
    admin: Any
    for model, admin in site._registry.items():
        title = capfirst(str(model._meta.verbose_name_plural))
        groups[admin.group].append({"title": title, "icon": admin.icon, "link": list_of(model)})
    shown = [{"title": title, "separator": True, "items": items} for title, items in groups.items()]
    return [{"title": "", "items": [start]}, *shown]
