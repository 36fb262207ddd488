"""The headers that answers carry whoever made them (SPEC §2)."""

API = "/api/v1"
SERVER = b"pipedai"

RawHeaders = list[tuple[bytes, bytes]]

# What a browser may do with what lies under a path: the API, and whatever is not listed, is no page at all.
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
_POLICIES = {
    # Alpine compiles what the templates' attributes say, and pages begin with a <style>: docs/decisions/admin.md.
    "/admin": (
        "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self';"
        " font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    # Forms and a style sheet: no script at all.
    "/pair": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    # Swagger UI draws its icons from data: URLs in its style sheet.
    "/api/docs": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_API_HEADERS = {b"cache-control": b"no-store"}
_HSTS = {b"strict-transport-security": b"max-age=31536000"}


def is_api(path: str) -> bool:
    """Whether the path belongs to the JSON API."""
    return _is_below(path, API)


def content_policy(path: str) -> str:
    """The Content-Security-Policy of what is answered under this path."""
    return next(
        (policy for prefix, policy in _POLICIES.items() if _is_below(path, prefix)), _NO_PAGE
    )


def complete_headers(
    given: RawHeaders, *, request_id: str, path: str, production: bool
) -> RawHeaders:
    """The headers of an answer with ours added.

    Below the API ours replace what the application set; a page elsewhere keeps its own, and its caching is its own
    business.
    """
    ours = {
        b"x-content-type-options": b"nosniff",
        b"content-security-policy": content_policy(path).encode("latin-1"),
    } | (_HSTS if production else {})
    if is_api(path):
        ours |= _API_HEADERS
        kept = [(name, value) for name, value in given if name.lower() not in ours]
        added = ours
    else:
        kept = given
        names = {name.lower() for name, _ in given}
        added = {name: value for name, value in ours.items() if name not in names}
    always = {b"x-request-id": request_id.encode("latin-1"), b"server": SERVER}
    kept = [(name, value) for name, value in kept if name.lower() not in always]
    return [*kept, *added.items(), *always.items()]


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")
