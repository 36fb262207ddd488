"""Defines the admin site: its pages, its navigation and its start page."""

from typing import Any

from django.core.paginator import InvalidPage
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from unfold.sites import UnfoldAdminSite

from pipedai.admin.start_page import start_page
from pipedai.version import VERSION


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

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> Any:
        apps = super().get_app_list(request, app_label)
        order = list(dict.fromkeys(model._meta.app_label for model in self._registry))
        models = list(self._registry)
        for app in apps:
            app["models"].sort(key=lambda entry: models.index(entry["model"]))
        return sorted(apps, key=lambda app: order.index(app["app_label"]))


site = StaffSite()


def model_named(name: str) -> Any:
    names = {
        str(model._meta.verbose_name).lower().replace(" ", "-"): model for model in site._registry
    }
    return names.get(name)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Returns the entries of the side bar: the start page, then the lists of each app."""
    start = {"title": "Start", "icon": "monitoring", "link": "/admin/"}
    groups = [
        {
            "title": str(app["name"]),
            "separator": True,
            "items": [
                {
                    "title": str(entry["name"]),
                    "icon": getattr(site._registry[entry["model"]], "icon", "table_rows"),
                    "link": entry["admin_url"],
                }
                for entry in app["models"]
            ],
        }
        for app in site.get_app_list(request)
    ]
    return [{"title": "", "items": [start]}, *groups]
