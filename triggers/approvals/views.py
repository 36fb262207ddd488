"""The endpoints of approvals: list and read them, and decide about one."""

import json
import unicodedata
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import F
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.sessions import CookieJWTAuthentication
from pipedai.api.fields import TextField
from pipedai.api.filters import ApiFilterSet, WordsFilter
from pipedai.api.principal import UserPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import RowSerializer, StrictBody, Values, sources_of
from triggers import tenancy
from triggers.approvals.rules import APPROVER_ROLES, DECISIONS
from triggers.approvals.services import decide_approval
from triggers.models import Approval
from triggers.runs.serializers import ToolCallSerializer
from triggers.states import ApprovalStatus
from workspaces.access import Access, IsOperator, IsViewer, TenantViewSet
from workspaces.roles import Role
from workspaces.serializers import ActorSerializer, actors_shown

MAX_REASON = 1000
# The most calls before the question that are shown.
_MOST_CALLS = 50
# Characters that look like nothing or like a letter, although they are in none of the categories below.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(n) for n in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
_UNSEEN = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"))


class DecisionBody(StrictBody):
    decision = serializers.ChoiceField(choices=DECISIONS)
    reason = TextField(max_length=MAX_REASON, allow_null=True, default=None)


class ApprovalSerializer(RowSerializer):
    """What a run asks a person for, and the decision."""

    of = Approval
    shows = (
        "id environmentId triggerId triggerName runId status tool argumentsHash toolSchemaHash"
        " approverRole createdAt expiresAt closedAt decidedBy reason spentAt mayDecide"
    )
    triggerName = serializers.CharField(source="trigger__name")
    argumentsHash = serializers.CharField(source="arguments_hash", allow_null=True)
    approverRole = serializers.ChoiceField(source="role", choices=APPROVER_ROLES)
    decidedBy = ActorSerializer(source="decider", allow_null=True)
    mayDecide = serializers.BooleanField(source="may_decide")


# The columns of approvals that lists read.
_COLUMNS = sorted(
    sources_of(ApprovalSerializer) - {"decider", "may_decide"} | {"barred", "decided_by"}
)


class ApprovalDetailSerializer(ApprovalSerializer):
    """An approval with what the call is to do, and the calls that the run made before."""

    arguments = serializers.CharField(source="arguments_text", allow_null=True)
    toolCalls = ToolCallSerializer(source="calls", many=True)


class ApprovalFilters(ApiFilterSet):
    status = WordsFilter(field_name="status", choices=ApprovalStatus.values)


def _shown(
    request: Request, access: Access, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Adds to each row who decided, and whether the caller may decide. Callers without a role of approvers get no hash
    of the arguments, because the hash would let them guess the arguments. It takes one query at most.
    """
    principal = principal_of(request)
    user_id = principal.id if isinstance(principal, UserPrincipal) else None
    roles = [role for role in APPROVER_ROLES if access.role.includes(Role(role))]
    deciders = actors_shown(("user", row["decided_by"]) for row in rows if row["decided_by"])
    return [
        {
            **row,
            "arguments_hash": row["arguments_hash"] if roles else None,
            "decider": deciders.get(("user", row["decided_by"])),
            "may_decide": row["status"] == ApprovalStatus.PENDING
            and user_id is not None
            and row["role"] in roles
            and user_id not in row["barred"],
        }
        for row in rows
    ]


def seen(arguments: Any) -> str:
    """Returns JSON as indented text, in which each character that a reader could not see, or that would move the text
    around it, is an escape of JSON, such as `\\u202e`.
    """
    text = json.dumps(arguments, indent=2, ensure_ascii=False)
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in " \n":
        return character
    if character in _BLANKS or unicodedata.category(character) in _UNSEEN:
        return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"
    return character


class ApprovalViewSet(TenantViewSet):
    row = tenancy.ALL_APPROVALS
    tag = "Approvals"
    permissions = {"list": IsViewer, "retrieve": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/approvals",
        id="listApprovals",
        summary="List approvals",
        items=ApprovalSerializer,
        filters=ApprovalFilters,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = Approval.objects.filter(environment_id=environment_id).values(*_COLUMNS)
        filtered = ApprovalFilters.read(rows, request).qs
        return self.page_shown(
            request,
            filtered,
            lambda page: ApprovalSerializer(_shown(request, self.access, page), many=True).data,
        )

    @Operation(
        "GET /approvals/{approvalId}",
        id="getApproval",
        summary="Get an approval",
        answers={200: ApprovalDetailSerializer},
    )
    def retrieve(self, request: Request, approval_id: UUID) -> Any:
        return _detail(request, self.access, approval_id)


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
    def decide(self, request: Request, approval_id: UUID, body: Values) -> Any:
        decide_approval(
            approval_id=approval_id,
            approve=body["decision"] == "approve",
            reason=body["reason"],
            actor=actor_of(request),
        )
        return _detail(request, self.access, approval_id)


def _detail(request: Request, access: Access, approval_id: UUID) -> dict[str, Any]:
    rows = Approval.objects.values(
        *_COLUMNS, "arguments", "calls_before", "run__result__tool_calls"
    )
    row = rows.get(id=approval_id, run__environment_id=F("environment_id"))
    (shown,) = _shown(request, access, [row])
    calls = (row["run__result__tool_calls"] or [])[: row["calls_before"] or 0]
    shows_arguments = access.role.includes(Role.OPERATOR)
    return {
        **shown,
        "arguments_text": seen(row["arguments"]) if shows_arguments else None,
        "calls": calls[-_MOST_CALLS:],
    }
