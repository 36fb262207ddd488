"""Describes the audit log's endpoint for the OpenAPI schema."""

from audit.filters import AuditFilters
from audit.serializers import AuditEntrySerializer
from audit.views import AuditLogViewSet
from pipedai.api.schema.operation import Operation, describe

describe(
    AuditLogViewSet,
    "Audit log",
    list=Operation(
        id="listAuditLog",
        summary="List the audit log",
        items=AuditEntrySerializer,
        filters=AuditFilters,
        says={200: "A list of entries."},
    ),
)
