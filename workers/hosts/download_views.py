"""Serves the worker's package to hosts."""

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import condition, require_safe

from workers.hosts.worker_package import worker_package


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
