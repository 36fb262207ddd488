"""The service's URLs: everything that clients call is below /api/v1/."""

from django.urls import include, path

from pipedai.api.health import HealthViewSet
from pipedai.api.openapi import OpenApiViewSet
from pipedai.docs_page import docs_page

handler400 = "pipedai.api.exceptions.bad_request"
handler404 = "pipedai.api.exceptions.not_found"
handler500 = "pipedai.api.exceptions.server_error"

urlpatterns = [
    path("api/v1/health", HealthViewSet.as_view({"get": "retrieve"})),
    path("api/v1/health/live", HealthViewSet.as_view({"get": "live"})),
    path("api/v1/openapi.json", OpenApiViewSet.as_view({"get": "retrieve"})),
    path("api/docs", docs_page),
    path("api/v1/", include("accounts.urls")),
    path("api/v1/", include("workspaces.urls")),
    path("api/v1/", include("triggers.urls")),
    path("api/v1/", include("workers.urls")),
    path("api/v1/", include("audit.urls")),
]
