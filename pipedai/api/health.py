"""The health endpoints: they tell whether the process lives and whether the database takes writes (SPEC §5, §22)."""

from django.db import DatabaseError, InterfaceError
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unavailable
from pipedai.api.permissions import IsPublic
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet
from pipedai.replica.reading import state_of_replica
from pipedai.replica.routing import is_on
from pipedai.sql import database_now, takes_writes
from pipedai.version import VERSION

HEALTHY = ("ok",)
# The states of the read replica, which `pipedai.replica.reading` explains.
REPLICA_STATES = ("ok", "behind", "unreachable")
_HEALTH = answer(
    "Health",
    "Alive.",
    status=serializers.ChoiceField(choices=HEALTHY),
    version=serializers.CharField(),
    replica=serializers.ChoiceField(choices=REPLICA_STATES, required=False),
)
_SHOWN = '`{ "status": "ok", "version": "…" }`'
# The body of the healthy answer. pipedai.server.lanes has a copy for /health/live, which the event loop answers without
# Django.
_ANSWER = {"status": "ok", "version": VERSION}


class HealthViewSet(ApiViewSet):
    """Endpoints that tell whether the service works. Load balancers, supervisors and the host client call them."""

    tag = "Service"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic, "live": IsPublic}

    @Operation(
        "GET /health",
        id="getHealth",
        summary="Does the process answer, and does its database take writes?",
        answers={200: _HEALTH},
        says={200: f"{_SHOWN} when the process answers and its database takes writes."},
        errors={503: ""},
    )
    def retrieve(self, request: Request) -> Response:
        """Answers 200 if the database takes writes, else 503.

        A database that can only be read counts as down, because nearly every call writes. A read replica that is away
        does not, because the primary answers in its place; the answer says so.
        """
        try:
            writable = takes_writes()
        except (DatabaseError, InterfaceError):
            raise _unavailable("The database does not answer.") from None
        if not writable:
            raise _unavailable("The database is read-only.")
        if is_on():
            return Response({**_ANSWER, "replica": state_of_replica(database_now())})
        return Response(_ANSWER)

    @Operation(
        "GET /health/live",
        id="getLiveness",
        summary="Does the process answer?",
        answers={200: _HEALTH},
        says={
            200: (
                f"{_SHOWN} when the process answers; neither the database nor a thread is "
                "asked, so it is answered also while all threads are busy."
            ),
        },
    )
    def live(self, request: Request) -> Response:
        """Answers always 200, because a process that answers is alive."""
        return Response(_ANSWER)


def _unavailable(sentence: str) -> Unavailable:
    return Unavailable(sentence, code=ErrorCode.DATABASE_UNAVAILABLE)
