"""The viewsets of the audit app, whose endpoints are below /api/v1/."""

from audit.views import AuditLogViewSet
from pipedai.api.views import paths_of

urlpatterns = paths_of(
    AuditLogViewSet,
)
