"""Routes of the audit app, below /api/v1/."""

from django.urls import path

from audit.views import AuditLogViewSet

urlpatterns = [
    path("environments/<uuid:environment_id>/audit-log", AuditLogViewSet.as_view({"get": "list"})),
]
