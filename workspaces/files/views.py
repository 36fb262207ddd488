"""The endpoints of files: planning changes, applying them, and exporting what exists."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation, answer, query
from pipedai.api.serializers import Values
from pipedai.api.throttling import Rate, Throttle, TooManyRequests, admit, by_caller
from pipedai.server.memory_budget import RequestLimit, note_read
from workspaces.access import Access, IsAdmin, IsViewer, TenantViewSet
from workspaces.files import changes, planning, values
from workspaces.files.serializers import ApplyBody, ChangeSerializer, PlanBody, UnkeyedSerializer

# Each holds all rows of an environment in memory and may compute for two seconds, while no other thread does. So a
# process has at most one plan, one apply and one export of a workspace under way, and computes two of these at a time.
_UNDER_WAY = RequestLimit(1)
_COMPUTING = BoundedSemaphore(2)
_PLANS = Throttle(Rate("plan", limit=12, seconds=60), by_caller)
_PLAN = answer(
    "Plan",
    "What files change, and a digest of them and of all rows that they touch.",
    digest=serializers.CharField(),
    changes=ChangeSerializer(many=True),
)
_EXAMPLE = {
    "managedBy": "acme/agents",
    "resources": [{"kind": "pool", "key": "builders", "name": "Builders"}],
}


class FileViewSet(TenantViewSet):
    tag = "Files"
    throttles = {"plan": (_PLANS,)}
    permissions = {"plan": IsViewer, "apply": IsAdmin, "export": IsViewer}

    @Operation(
        "POST /environments/{environmentId}/plan",
        id="planFiles",
        summary="Plan what files change",
        body=PlanBody,
        example=_EXAMPLE,
        answers={200: _PLAN},
    )
    def plan(self, request: Request, environment_id: UUID, body: Values) -> Any:
        note_read(request)
        with _admitted("plan", self.access, request):
            return planning.plan(
                environment_id=environment_id,
                request=changes.Request(**body),
                actor=actor_of(request),
                role=self.access.role,
            )

    @Operation(
        "POST /environments/{environmentId}/apply",
        id="applyFiles",
        summary="Apply files",
        body=ApplyBody,
        example={**_EXAMPLE, "digest": "0" * 64},
        answers={200: _PLAN},
    )
    def apply(self, request: Request, environment_id: UUID, body: Values) -> Any:
        with _admitted("apply", self.access, request):
            return planning.apply(
                environment_id=environment_id,
                request=changes.Request(**body),
                actor=actor_of(request),
            )

    @Operation(
        "GET /environments/{environmentId}/export",
        id="exportFiles",
        summary="Export what files would say",
        parameters=(
            query(
                "managedBy",
                {"type": "string"},
                description="Without the rows that files with another label describe.",
            ),
        ),
        answers={
            200: answer(
                "Export",
                "Resources that plan to no change, and the rows that have no key.",
                resources=serializers.ListField(
                    child=serializers.DictField(child=serializers.JSONField())
                ),
                withoutKey=UnkeyedSerializer(many=True),
            )
        },
    )
    def export(self, request: Request, environment_id: UUID) -> Any:
        label, role = request.query_params.get("managedBy"), self.access.role
        with _admitted("export", self.access, request):
            return values.export(environment_id=environment_id, managed_by=label, role=role)


@contextmanager
def _admitted(what: str, access: Access, request: Request) -> Iterator[None]:
    """Wraps the work of a request. Raises TooManyRequests if the workspace or the process has too much under way."""
    sentence = f"Another {what} of the workspace is under way. Try again when it is done."
    admit(_UNDER_WAY, (what, access.workspace_id), request, sentence)
    if not _COMPUTING.acquire(blocking=False):
        raise TooManyRequests(
            "The plans and exports of others are under way. Try again in a moment.",
            headers={"Retry-After": "1"},
        )
    try:
        yield
    finally:
        _COMPUTING.release()
