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
from workers.releases import Package, cli_package, worker_package

_LATEST = {"latest": serializers.CharField(), "source": serializers.CharField()}
_RELEASE = answer("Release", "The newest version of a program, and who says so.", **_LATEST)
_OWN_RELEASE = answer(
    "OwnRelease",
    "The version of a program of this service's own, and how to install it.",
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
        summary="Get the newest versions of the programs",
        answers={
            200: answer(
                "Releases",
                "The newest versions of what runs on hosts.",
                pipedaiWorker=_OWN_RELEASE(),
                pipedai=_OWN_RELEASE(),
                pipedaiOrchestrator=_RELEASE(),
            )
        },
    )
    def retrieve(self, request: Request) -> Response:
        """Answers with the versions of this build's own programs, and the orchestrator's in the settings."""
        return Response(
            {
                "pipedaiWorker": _own(worker_package()),
                "pipedai": _own(cli_package()),
                "pipedaiOrchestrator": {
                    "latest": settings.LATEST_ORCHESTRATOR_VERSION,
                    "source": "settings",
                },
            }
        )


def _own(package: Package) -> dict[str, str]:
    return {
        "latest": VERSION,
        "source": "build",
        "url": package.url,
        "sha256": package.sha256,
        "install": package.install_command,
    }


def _named(name: str) -> Package | None:
    packages = (worker_package(), cli_package())
    return next((package for package in packages if package.name == name), None)


def _etag(_request: HttpRequest, name: str) -> str | None:
    package = _named(name)
    return f'"{package.sha256}"' if package else None


@require_safe
@condition(etag_func=_etag)
def download(_request: HttpRequest, name: str) -> HttpResponse:
    """Answers GET /downloads/<name>, which is public, with a wheel of this release, else 404."""
    package = _named(name)
    if package is None:
        raise Http404
    response = HttpResponse(package.content, content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="{package.name}"'
    # A cache must ask again before each use. The install command names the digest of the newest wheel, so hosts would
    # refuse an older wheel from a cache.
    response["Cache-Control"] = "no-cache"
    return response
