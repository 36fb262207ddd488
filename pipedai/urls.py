"""The service's URLs: everything that clients call is below /api/v1/."""

from django.urls import include, path

handler400 = "pipedai.api.exceptions.bad_request"
handler404 = "pipedai.api.exceptions.not_found"
handler500 = "pipedai.api.exceptions.server_error"

urlpatterns = [
    path("api/v1/", include("accounts.urls")),
    path("api/v1/", include("workspaces.urls")),
    path("api/v1/", include("triggers.urls")),
    path("api/v1/", include("workers.urls")),
]
