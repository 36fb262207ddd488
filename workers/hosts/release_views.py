"""Tells hosts which versions of their programs are the newest, and serves the worker's package."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import condition, require_safe
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.version import VERSION
from workers.hosts.worker_package import worker_package

_LATEST = {"latest": serializers.CharField(), "source": serializers.CharField()}
_RELEASE = answer("Release", "The newest version of a program, and who says so.", **_LATEST)
_WORKER_RELEASE = answer(
    "WorkerRelease",
    "The version of this service's own worker, and how to install it.",
    **_LATEST,
    url=serializers.CharField(),
    sha256=serializers.CharField(),
    install=serializers.CharField(),
)


class ReleaseViewSet(ApiViewSet):
    """The endpoint that names the newest versions of a host's programs: the worker and the orchestrator."""

    tag = "Hosts"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    @Operation(
        "GET /releases/latest",
        id="getLatestReleases",
        summary="Get the newest versions of what runs on hosts",
        answers={
            200: answer(
                "Releases",
                "The newest versions of what runs on hosts.",
                pipedaiWorker=_WORKER_RELEASE(),
                pipedaiOrchestrator=_RELEASE(),
            )
        },
    )
    def retrieve(self, request: Request) -> Response:
        """Answers with the worker's version in this build, and the orchestrator's in the settings."""
        package = worker_package()
        return Response(
            {
                "pipedaiWorker": {
                    "latest": VERSION,
                    "source": "build",
                    "url": package.url,
                    "sha256": package.sha256,
                    "install": package.install_command,
                },
                "pipedaiOrchestrator": {
                    "latest": settings.LATEST_ORCHESTRATOR_VERSION,
                    "source": "settings",
                },
            }
        )


def _etag(_request: HttpRequest, name: str) -> str | None:
    package = worker_package()
    return f'"{package.sha256}"' if name == package.name else None


@require_safe
@condition(etag_func=_etag)
def download(_request: HttpRequest, name: str) -> HttpResponse:
    """Answers GET /downloads/<name>, which is public, with the wheel of this release's worker, else 404."""
    package = worker_package()
    if name != package.name:
        raise Http404
    response = HttpResponse(package.content, content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="{package.name}"'
    # A cache must ask again before each use. The install command names the digest of the newest wheel, so hosts would
    # refuse an older wheel from a cache.
    response["Cache-Control"] = "no-cache"
    return response
