"""The health endpoints: they tell whether the process lives and whether the database answers (SPEC §5)."""

from django.db import DatabaseError
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Unavailable
from pipedai.api.permissions import IsPublic
from pipedai.api.views import ApiViewSet
from pipedai.sql import database_now


class HealthViewSet(ApiViewSet):
    """Endpoints that tell whether the service works. Load balancers, supervisors and the host client call them."""

    authentication_classes = ()
    permissions = {"retrieve": IsPublic, "live": IsPublic}

    def retrieve(self, request: Request) -> Response:
        """Answers GET /health: 200 if the database answers, else 503."""
        try:
            database_now()
        except DatabaseError:
            raise Unavailable("The database does not answer.") from None
        return Response({"status": "ok"})

    def live(self, request: Request) -> Response:
        """Answers GET /health/live: always 200, because a process that answers is alive."""
        return Response({"status": "ok"})
