"""The endpoint that tells hosts which versions of their programs are the newest."""

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.permissions import IsPublic
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet

_RELEASE = answer(
    "Release",
    "The newest version of a program, and who says so.",
    latest=serializers.CharField(),
    source=serializers.CharField(),
)


class ReleaseViewSet(ApiViewSet):
    """The newest versions of the programs on a host that this service knows."""

    tag = "Hosts"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    @Operation(
        id="getLatestReleases",
        summary="Get the newest versions of what runs on hosts",
        answers={
            200: answer(
                "Releases",
                "The newest versions of what runs on hosts.",
                pipedaiWorker=_RELEASE(),
                pipedaiOrchestrator=_RELEASE(),
            )
        },
    )
    def retrieve(self, request: Request) -> Response:
        """Answers GET /releases/latest with the versions that the settings name."""
        latest = {
            "pipedaiWorker": settings.LATEST_WORKER_VERSION,
            "pipedaiOrchestrator": settings.LATEST_ORCHESTRATOR_VERSION,
        }
        return Response(
            {name: {"latest": version, "source": "settings"} for name, version in latest.items()}
        )
