"""The health endpoints: they tell whether the process lives and whether the database answers (SPEC §5)."""

from django.db import DatabaseError
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Unavailable
from pipedai.api.permissions import IsPublic
from pipedai.api.views import ApiViewSet
from pipedai.sql import database_now


class HealthViewSet(ApiViewSet):
    """Load balancers, supervisors and the host client ask these endpoints."""

    authentication_classes = ()
    permissions = {"retrieve": IsPublic, "live": IsPublic}

    def retrieve(self, request: Request) -> Response:
        """GET /health"""
        try:
            database_now()
        except DatabaseError:
            raise Unavailable("The database does not answer.") from None
        return Response({"status": "ok"})

    def live(self, request: Request) -> Response:
        """GET /health/live"""
        return Response({"status": "ok"})
