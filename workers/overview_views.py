"""The endpoint of the dashboard's figures."""

from uuid import UUID

from django.db.models import Q
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.principal import principal_of
from pipedai.api.schema.operation import Operation, answer, query
from pipedai.replica.reading import read_for
from triggers.models import Run
from triggers.runs.overview import run_figures
from workers import queries
from workers.filters import OverviewFilters
from workspaces.access import TenantViewSet
from workspaces.permissions import IsViewer


class OverviewViewSet(TenantViewSet):
    """The figures of an environment's dashboard."""

    tag = "Overview"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/dashboard/overview",
        id="getOverview",
        summary="Get the figures of a dashboard",
        parameters=(
            query(
                "timezone",
                {"type": "string", "maxLength": 64, "default": "UTC"},
                description="The IANA name of the zone in which the day and the month begin.",
            ),
        ),
        answers={
            200: answer(
                "Overview",
                "The figures of a dashboard.",
                onlineWorkers=serializers.IntegerField(),
                todaysRuns=serializers.IntegerField(),
                successRatePct=serializers.FloatField(allow_null=True),
                monthTokenSpendUsd=serializers.FloatField(),
            )
        },
        errors={400: "A bad `timezone`."},
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Response:
        timezone = OverviewFilters.read(Run.objects.none(), request).values["timezone"]
        figures = read_for(
            principal_of(request).id,
            lambda: run_figures(environment_id=environment_id, timezone=timezone),
        )
        # These are read from the primary, because a replica that is some seconds behind would show workers as offline.
        workers = queries.workers().filter(environment_id=environment_id)
        rate = figures["success_rate"]
        return Response(
            {
                "onlineWorkers": workers.filter(Q(online=True)).count(),
                "todaysRuns": figures["todays_runs"],
                "successRatePct": None if rate is None else float(rate),
                "monthTokenSpendUsd": float(figures["month_cost_usd"]),
            }
        )
