"""Static files, served by the web process itself (SPEC §10).

In production `manage.py collectstatic` puts them into STATIC_ROOT, compressed and under names that tell of their
content, which may be cached for ever. Where that was not done they come straight from the packages, under their plain
names.
"""

# mypy: disallow-untyped-calls=False

from collections.abc import Callable
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage


class Storage(CompressedManifestStaticFilesStorage):
    """Makes the names under which the files are collected, and their URLs."""

    def url(self, name: str, force: bool = False) -> str:  # type: ignore[override]
        """The URL of a file, by its collected name if there is one."""
        if settings.STATIC_COLLECTED:
            return str(super().url(name, force))
        return str(StaticFilesStorage.url(self, name))


class _Files(WhiteNoiseMiddleware):
    def add_files(self, root: Any, prefix: Any = None) -> None:
        if settings.STATIC_COLLECTED:  # else there may be no such directory, or an old one
            super().add_files(root, prefix)


@cache  # looking for files takes long enough that each test's client must not do it anew
def _files() -> _Files:
    return _Files()


def serve_static_files(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """The middleware: answers what is a static file, and passes on what is not."""
    files = _files()

    def serve(request: HttpRequest) -> HttpResponseBase:
        found = files.files.get(request.path_info)
        if found is None:
            return get_response(request)
        answer: HttpResponseBase = files.serve(found, request)
        return answer

    return serve
