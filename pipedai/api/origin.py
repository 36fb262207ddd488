"""Protects requests that a browser sends with our cookie against CSRF, by their origin (SPEC §3)."""

from urllib.parse import urlsplit

from django.conf import settings
from rest_framework.request import Request

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Forbidden

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def check_origin(request: Request) -> None:
    """Raises Forbidden if a page of another site made the browser send this request.

    A foreign `Origin` is always refused. `Origin: null` is accepted only with `Sec-Fetch-Site: same-origin`. Without an
    `Origin`, the header `Sec-Fetch-Site` decides. A request with neither header is accepted: it comes from a program
    that is not a browser, and no page can make such a program send anything.
    """
    origin = request.META.get("HTTP_ORIGIN")
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if origin is None:
        foreign = site in {"cross-site", "same-site"}
    elif origin == "null":
        foreign = site != "same-origin"
    else:
        foreign = origin not in settings.ALLOWED_ORIGINS and not _is_own(origin, request)
    if foreign:
        raise Forbidden(
            "This origin may not call the API with a session cookie.",
            code=ErrorCode.FOREIGN_ORIGIN,
        )


def _is_own(origin: str, request: Request) -> bool:
    own = urlsplit(settings.PUBLIC_URL)
    if origin == f"{own.scheme}://{own.netloc}":
        return True
    return origin == f"{'https' if request.is_secure() else 'http'}://{request.get_host()}"
