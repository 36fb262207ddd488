"""Serves static files from the web process, in production those of `manage.py collectstatic`.

Their names contain a hash, so that browsers may cache them for ever.
"""

# mypy: disallow-untyped-calls=False

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage


class Storage(CompressedManifestStaticFilesStorage):
    def url(self, name: str, force: bool = False) -> str:  # type: ignore[override]
        if settings.STATIC_COLLECTED:
            return str(super().url(name, force))
        return str(StaticFilesStorage.url(self, name))


class _Files(WhiteNoiseMiddleware):
    def add_files(self, root: Any, prefix: Any = None) -> None:
        # Without this check, WhiteNoise would read STATIC_ROOT, which may be missing or out of date in development.
        if settings.STATIC_COLLECTED:
            super().add_files(root, prefix)


# The cache helps tests: finding all files is slow, and each test's client would do it again.
@cache
def _files() -> _Files:
    return _Files()


def serve_static_files(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    files = copy(_files())
    files.get_response = get_response
    return files
