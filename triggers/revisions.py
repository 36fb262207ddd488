"""The endpoints of a trigger's revisions: list them, and restore one."""

from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import F
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import or_not_found
from pipedai.api.pagination import HeavyPaginator
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import NoBody, RowSerializer
from pipedai.events import Actor
from triggers import tenancy
from triggers.events.clauses import LookBody
from triggers.listing import with_runs_of_revisions
from triggers.models import REVISED, TriggerRevision
from triggers.serializers import (
    RecentRunSerializer,
    TriggerSerializer,
    triggers,
    with_last_runs,
)
from triggers.services import TRIGGERS
from triggers.views import octets_of
from workspaces.access import IsAdmin, IsViewer, TenantViewSet
from workspaces.resource_views import RecentFilters
from workspaces.serializers import ActorSerializer, actors_shown


def restore_revision(*, trigger_id: UUID, revision_id: UUID, actor: Actor) -> None:
    """Gives a trigger what one of its revisions has, as a new revision. It changes nothing if the trigger has that
    already, so a call may be repeated.

    Raises NotFound, also for a revision of another trigger, Invalid, and whatever `hold_role` raises.
    """
    # The row is read before the trigger is locked, because it never changes.
    rows = TriggerRevision.objects.filter(id=revision_id, trigger_id=trigger_id)
    values = or_not_found(rows.values(*REVISED).first())
    TRIGGERS.update(trigger_id, values=dict(values), actor=actor, restored_id=revision_id)


class RevisionSerializer(RowSerializer):
    """What a trigger gives, or gave, its runs to do, and who made it."""

    of = TriggerRevision
    shows = "id createdAt createdBy prompt model outputSchema before carry"
    createdBy = ActorSerializer(allow_null=True)
    before = LookBody(allow_null=True)


class ListedRevisionSerializer(RevisionSerializer):
    """A revision with `recent`, which is there if it was asked for with `include=recent`."""

    recent = RecentRunSerializer(many=True, required=False)


def revisions_shown(rows: list[TriggerRevision], *, recent: bool) -> Any:
    """Returns revisions as the API shows them. It takes the queries of `actors_shown`, and one for `recent` runs."""
    makers = [(row.created_by_type, row.created_by_id) for row in rows]
    named = actors_shown((kind, actor_id) for kind, actor_id in makers if kind)
    shown = [
        {**vars(row), "created_by": named[kind, actor_id] if kind else None}
        for row, (kind, actor_id) in zip(rows, makers, strict=True)
    ]
    if recent:
        return ListedRevisionSerializer(with_runs_of_revisions(shown), many=True).data
    return RevisionSerializer(shown, many=True).data


class RevisionPaginator(HeavyPaginator):
    """Makes pages of revisions, whose size is also limited in bytes."""

    weight = octets_of(F("prompt"), F("output_schema"), F("before"))


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
        items=ListedRevisionSerializer,
        filters=RecentFilters,
    )
    def list(self, request: Request, trigger_id: UUID) -> Response:
        read = RecentFilters.read(TriggerRevision.objects.filter(trigger_id=trigger_id), request)
        shown = partial(revisions_shown, recent="recent" in read.values["include"])
        return self.page_shown(request, read.qs, shown)

    @Operation(
        "POST /triggers/{triggerId}/revisions/{revisionId}/restore",
        id="restoreRevision",
        summary="Restore a revision of a trigger",
        body=NoBody,
        answers={200: TriggerSerializer},
    )
    def restore(self, request: Request, trigger_id: UUID, revision_id: UUID) -> Any:
        restore_revision(trigger_id=trigger_id, revision_id=revision_id, actor=actor_of(request))
        return with_last_runs([triggers().get(id=trigger_id)])[0]
