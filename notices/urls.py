"""Routes of the notices app, below /api/v1/."""

from django.urls import path

from notices.views import EnvironmentIncidentViewSet, IncidentViewSet

urlpatterns = [
    path(
        "environments/<uuid:environment_id>/incidents",
        EnvironmentIncidentViewSet.as_view({"get": "list"}),
    ),
    path(
        "incidents/<uuid:incident_id>/acknowledge",
        IncidentViewSet.as_view({"post": "acknowledge"}),
    ),
]
