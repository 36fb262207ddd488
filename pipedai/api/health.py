"""The health endpoints: they tell whether the process lives and whether the database answers (SPEC §5)."""

from django.db import DatabaseError
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Unavailable
from pipedai.api.permissions import IsPublic
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet
from pipedai.sql import database_now

HEALTHY = ("ok",)
_HEALTH = answer("Health", "Alive.", status=serializers.ChoiceField(choices=HEALTHY))


class HealthViewSet(ApiViewSet):
    """Endpoints that tell whether the service works. Load balancers, supervisors and the host client call them."""

    tag = "Service"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic, "live": IsPublic}

    @Operation(
        id="getHealth",
        summary="Do the process and its database answer?",
        answers={200: _HEALTH},
        says={200: '`{ "status": "ok" }` when the process and its database answer.'},
        errors={503: ""},
    )
    def retrieve(self, request: Request) -> Response:
        """Answers GET /health: 200 if the database answers, else 503."""
        try:
            database_now()
        except DatabaseError:
            raise Unavailable("The database does not answer.") from None
        return Response({"status": "ok"})

    @Operation(
        id="getLiveness",
        summary="Does the process answer?",
        answers={200: _HEALTH},
        says={
            200: (
                '`{ "status": "ok" }` when the process answers; neither the database nor a thread is '
                "asked, so it is answered also while all threads are busy."
            ),
        },
    )
    def live(self, request: Request) -> Response:
        """Answers GET /health/live: always 200, because a process that answers is alive."""
        return Response({"status": "ok"})
