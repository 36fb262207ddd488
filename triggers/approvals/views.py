"""The endpoints of approvals: list and read them, and decide about one."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.sessions import CookieJWTAuthentication
from pipedai.api.principal import UserPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from triggers import tenancy
from triggers.approval_rules import APPROVER_ROLES
from triggers.approvals.serializers import (
    COLUMNS,
    ApprovalDetailSerializer,
    ApprovalFilters,
    ApprovalSerializer,
    DecisionBody,
    approvals_shown,
    read_approval,
)
from triggers.approvals.services import decide_approval
from triggers.models import Approval
from workspaces.access import Access, IsOperator, IsViewer, TenantViewSet
from workspaces.roles import Role


def _shown(
    request: Request, access: Access, rows: list[dict[str, object]]
) -> list[dict[str, object]]:
    principal = principal_of(request)
    return approvals_shown(
        rows,
        may_decide=[role for role in APPROVER_ROLES if access.role.includes(Role(role))],
        user_id=principal.id if isinstance(principal, UserPrincipal) else None,
    )


class EnvironmentApprovalViewSet(TenantViewSet):
    tag = "Approvals"
    permissions = {"list": IsViewer}
    filter_names = ApprovalFilters.names()

    @Operation(
        "GET /environments/{environmentId}/approvals",
        id="listApprovals",
        summary="List approvals",
        items=ApprovalSerializer,
        filters=ApprovalFilters,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = Approval.objects.filter(environment_id=environment_id).values(*COLUMNS)
        filtered = ApprovalFilters.read(rows, request).qs
        return self.page_shown(
            request,
            filtered,
            lambda page: ApprovalSerializer(_shown(request, self.access, page), many=True).data,
        )


class ApprovalViewSet(TenantViewSet):
    row = tenancy.ALL_APPROVALS
    tag = "Approvals"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /approvals/{approvalId}",
        id="getApproval",
        summary="Get an approval",
        answers={200: ApprovalDetailSerializer},
    )
    def retrieve(self, request: Request, approval_id: UUID) -> Response:
        return Response(_detail(request, self.access, approval_id))


class ApprovalDecisionViewSet(TenantViewSet):
    """What only a person's session may do, and no API key, because an agent may hold one."""

    row = tenancy.ALL_APPROVALS
    tag = "Approvals"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"decide": IsOperator}

    @Operation(
        "POST /approvals/{approvalId}/decide",
        id="decideApproval",
        summary="Approve or reject a call",
        body=DecisionBody,
        example={"decision": "reject", "reason": "Not to this address."},
        answers={200: ApprovalDetailSerializer},
    )
    def decide(self, request: Request, approval_id: UUID) -> Response:
        body = read_body(DecisionBody, request)
        decide_approval(
            approval_id=approval_id,
            approve=body["decision"] == "approve",
            reason=body["reason"],
            actor=actor_of(request),
        )
        return Response(_detail(request, self.access, approval_id))


def _detail(request: Request, access: Access, approval_id: UUID) -> object:
    shows_arguments = access.role.includes(Role.OPERATOR)
    row = read_approval(approval_id, shows_arguments=shows_arguments)
    (shown,) = _shown(request, access, [row])
    return ApprovalDetailSerializer(shown).data
