"""Adds the headers that every answer carries, whichever part of the server made it."""

API = "/api/v1"
# The hooks, to which senders of events post what their own server makes, under any type of content.
HOOKS = f"{API}/hooks/"
CONSOLE = "/console"
SERVER = b"pipedai"

RawHeaders = list[tuple[bytes, bytes]]

# The Content-Security-Policy of the API and of every path without a policy of its own. A browser may load nothing under
# it.
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
# Pages with forms and a style sheet, and no script.
_FORMS = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
# Pages with scripts as well, which may call the service.
_SCRIPTS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)
_POLICIES = {
    # The code in the URL's fragment is to be typed by a person, so no script runs that could read it.
    f"{CONSOLE}/pair": _FORMS,
    CONSOLE: _SCRIPTS,
    "/admin": _SCRIPTS,
    "/account/notices/stop": _FORMS,
    # The URL of the page to which authorization servers send the browser back has a code, which no script shall see.
    "/account/connections": _FORMS,
    # Swagger UI's style sheet holds its icons as data: URLs.
    "/api/docs": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_API_HEADERS = {b"cache-control": b"no-store"}
_CONSOLE_HEADERS = {**_API_HEADERS, b"referrer-policy": b"same-origin"}
_HSTS = {b"strict-transport-security": b"max-age=31536000"}


def is_api(path: str) -> bool:
    return _is_below(path, API)


def is_console(path: str) -> bool:
    return _is_below(path, CONSOLE)


def content_policy(path: str) -> str:
    return next(
        (policy for prefix, policy in _POLICIES.items() if _is_below(path, prefix)), _NO_PAGE
    )


def complete_headers(
    given: RawHeaders, *, request_id: str, path: str, production: bool
) -> RawHeaders:
    """Under the API's paths the service's headers replace the application's. Other pages keep their own."""
    ours = {
        b"x-content-type-options": b"nosniff",
        b"content-security-policy": content_policy(path).encode("latin-1"),
    } | (_HSTS if production else {})
    if is_console(path):
        ours |= _CONSOLE_HEADERS
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


# These paths answer whatever the request's Host says, because probes call a process by its address. HTTP/1.0 has no
# Host header at all, and HAProxy's checks are of that version unless it is told otherwise.
PROBES = frozenset({f"{API}/health", f"{API}/health/live", "/metrics"})
