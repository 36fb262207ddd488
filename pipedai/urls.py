"""The service's URLs. All URLs of the API begin with /api/v1/."""

from importlib import import_module

from django.urls import include, path
from django.views.generic import RedirectView

from accounts.staff_views import StaffAccount, StaffLogin, StaffLogout
from notices.channels.views import stop_page
from pipedai.admin.site import site
from pipedai.api.service import ServiceRootViewSet, docs_page, document_page, start_page
from pipedai.api.views import paths_of
from workers.host_views import download
from workspaces.connections.pages import CallbackPage, client_document
from workspaces.files import file_schema

handler400 = "pipedai.api.exceptions.bad_request"
handler404 = "pipedai.api.exceptions.not_found"
handler500 = "pipedai.api.exceptions.server_error"

# The modules that have viewsets.
_VIEWS = (
    "workers.protocol.worker_views",
    "workers.protocol.run_views",
    "workers.protocol.run_events",
    "workers.views",
    "workers.search",
    "workers.pools.views",
    "workers.enrollment.views",
    "workers.host_views",
    "triggers.runs.views",
    "triggers.changes",
    "triggers.schedules.views",
    "triggers.views",
    "triggers.revisions",
    "triggers.explain.views",
    "triggers.webhooks.views",
    "triggers.events.views",
    "triggers.budgets.views",
    "triggers.approvals.views",
    "triggers.runs.stats",
    "triggers.run_events.views",
    "accounts.views",
    "accounts.single_sign_on_views",
    "workspaces.views",
    "workspaces.connections.views",
    "workspaces.files.views",
    "audit.views",
    "notices.channels.views",
    "notices.overview",
    "notices.views",
    "pipedai.api.service",
)

urlpatterns = [
    path("api/v1/", include(paths_of(*map(import_module, _VIEWS)))),
    path("api/v1", ServiceRootViewSet.as_view({"get": "retrieve"})),
    path("api/docs", docs_page),
    path("api/docs/", RedirectView.as_view(url="/api/docs")),
    path("api/docs/<path:name>", document_page),
    path("", start_page),
    path("console", RedirectView.as_view(url="/console/")),
    path("console/", include("console.urls")),
    path("account", RedirectView.as_view(url="/console/account")),
    path("login", RedirectView.as_view(url="/console/sign-in")),
    path("pair", RedirectView.as_view(url="/console/pair")),
    # Browsers keep the fragment of a URL through redirects, and with it the token of a mail.
    path("account/<str:page>", RedirectView.as_view(url="/console/account/%(page)s")),
    path("account/notices/stop", stop_page),
    path("account/connections/<uuid:connection_id>/callback", CallbackPage.as_view()),
    path("account/connections/<uuid:connection_id>/client.json", client_document),
    path(f"downloads/{file_schema.NAME}", file_schema.download),
    path("downloads/<str:name>", download),
    path("admin", RedirectView.as_view(url="/admin/")),
    # Our own pages for login, logout and the account replace Django's, which have no throttles and write no audit rows.
    path("admin/login/", StaffLogin.as_view()),
    path("admin/logout/", StaffLogout.as_view()),
    path("admin/account/", StaffAccount.as_view(), name="staff-account"),
    path("admin/password_change/", RedirectView.as_view(pattern_name="staff-account")),
    path("admin/", site.urls),
]
