"""The endpoints of budgets: list, make, read, change and delete them."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from triggers import tenancy
from triggers.budgets import services
from triggers.budgets.queries import budgets, with_sums
from triggers.budgets.serializers import BudgetBody, BudgetSerializer
from workspaces.access import TenantViewSet
from workspaces.permissions import IsAdmin, IsViewer

# The fields of a budget in the OpenAPI document's example of a request body.
_BUDGET = {
    "name": "Everything",
    "period": "month",
    "timezone": "Europe/Berlin",
    "limitUsd": "200",
    "whenReached": "hold",
}


def _shown(budget_id: UUID) -> Any:
    return BudgetSerializer(with_sums(budgets().get(id=budget_id))).data


class EnvironmentBudgetViewSet(TenantViewSet):
    tag = "Budgets"
    permissions = {"list": IsViewer, "create": IsAdmin}

    @Operation(
        "GET /environments/{environmentId}/budgets",
        id="listBudgets",
        summary="List budgets",
        items=BudgetSerializer,
        says={200: "A list of budgets."},
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = budgets().filter(environment_id=environment_id)
        return self.page(
            request, rows, BudgetSerializer, ready=lambda page: [with_sums(row) for row in page]
        )

    @Operation(
        "POST /environments/{environmentId}/budgets",
        id="createBudget",
        summary="Make a budget",
        body=BudgetBody,
        example=_BUDGET,
        answers={201: BudgetSerializer},
        says={201: "With the budget."},
        errors={409: "`key_taken` or `ceiling_reached`."},
        audit=("budget.created",),
    )
    def create(self, request: Request, environment_id: UUID) -> Response:
        budget_id = services.create_budget(
            environment_id=environment_id,
            actor=actor_of(request),
            values=read_body(BudgetBody, request),
        )
        return Response(_shown(budget_id), status=201)


class BudgetViewSet(TenantViewSet):
    row = tenancy.LIVE_BUDGETS
    tag = "Budgets"
    permissions = {"retrieve": IsViewer, "update": IsAdmin, "destroy": IsAdmin}

    @Operation(
        "GET /budgets/{budgetId}",
        id="getBudget",
        summary="Get a budget",
        answers={200: BudgetSerializer},
        says={200: "With the budget."},
    )
    def retrieve(self, request: Request, budget_id: UUID) -> Response:
        return Response(_shown(budget_id))

    @Operation(
        "PATCH /budgets/{budgetId}",
        id="updateBudget",
        summary="Change a budget",
        body=BudgetBody,
        partial=True,
        fields_as="POST /environments/{environmentId}/budgets",
        example={"limitUsd": "300"},
        answers={200: BudgetSerializer},
        says={200: "With the budget; what is as it was changes nothing."},
        errors={409: "`key_taken`."},
        audit=("budget.updated",),
    )
    def update(self, request: Request, budget_id: UUID) -> Response:
        services.update_budget(
            budget_id=budget_id,
            values=read_body(BudgetBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(_shown(budget_id))

    @Operation(
        "DELETE /budgets/{budgetId}",
        id="deleteBudget",
        summary="Delete a budget",
        answers={204: None},
        audit=("budget.deleted",),
    )
    def destroy(self, request: Request, budget_id: UUID) -> Response:
        """Deletes a budget, also while it has reserved something."""
        services.delete_budget(budget_id=budget_id, actor=actor_of(request))
        return Response(status=204)
