"""The audit-log endpoint."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from audit.models import AuditEntry
from audit.serializers import AuditEntrySerializer, AuditFilters, with_actors
from pipedai.api.pagination import KeysetPaginator, usual
from pipedai.api.schema.operation import Operation
from pipedai.replica.reading import from_replica
from workspaces.access import IsAdmin, TenantViewSet


class AuditPaginator(KeysetPaginator):
    sorts = False


class AuditLogViewSet(TenantViewSet):
    tag = "Audit log"
    permissions = {"list": IsAdmin}
    pagination_class = AuditPaginator

    @Operation(
        "GET /environments/{environmentId}/audit-log",
        id="listAuditLog",
        summary="List the audit log",
        items=AuditEntrySerializer,
        filters=AuditFilters,
    )
    @from_replica
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = AuditEntry.objects.filter(environment_id=usual(environment_id))
        filters = AuditFilters.read(rows, request)
        return self.page_shown(
            request,
            filters.parts,
            lambda entries: AuditEntrySerializer(with_actors(entries), many=True).data,
        )
