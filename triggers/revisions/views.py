"""The endpoints of a trigger's revisions: list them, and restore one."""

from uuid import UUID

from django.db.models import F
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.pagination import HeavyPaginator
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import NoBody, read_body
from triggers import tenancy
from triggers.models import TriggerRevision
from triggers.revisions.serializers import RevisionSerializer, revisions_shown
from triggers.revisions.services import restore_revision
from triggers.serializers import TriggerSerializer
from triggers.views import TriggerViewSet, octets_of
from workspaces.access import IsAdmin, IsViewer, TenantViewSet


class RevisionPaginator(HeavyPaginator):
    """Makes pages of revisions, whose size is also limited in bytes."""

    weight = octets_of(F("prompt"), F("output_schema"))


class TriggerRevisionViewSet(TenantViewSet):
    """The revisions of a trigger."""

    row = tenancy.LIVE_TRIGGERS
    tag = "Triggers"
    permissions = {"list": IsViewer, "restore": IsAdmin}
    pagination_class = RevisionPaginator

    @Operation(
        "GET /triggers/{triggerId}/revisions",
        id="listRevisions",
        summary="List a trigger's revisions",
        items=RevisionSerializer,
    )
    def list(self, request: Request, trigger_id: UUID) -> Response:
        """Answers with the revisions that are kept, the trigger's present one first."""
        rows = TriggerRevision.objects.filter(trigger_id=trigger_id)
        return self.page_shown(request, rows, revisions_shown)

    @Operation(
        "POST /triggers/{triggerId}/revisions/{revisionId}/restore",
        id="restoreRevision",
        summary="Restore a revision of a trigger",
        body=NoBody,
        answers={200: TriggerSerializer},
    )
    def restore(self, request: Request, trigger_id: UUID, revision_id: UUID) -> Response:
        """Makes a new revision that is equal to an earlier one."""
        read_body(NoBody, request)
        restore_revision(trigger_id=trigger_id, revision_id=revision_id, actor=actor_of(request))
        return Response(TriggerViewSet.one(trigger_id))
