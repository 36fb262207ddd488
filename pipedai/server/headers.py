"""The headers that answers carry whoever made them (SPEC §2)."""

API = "/api/v1"
SERVER = b"pipedai"

RawHeaders = list[tuple[bytes, bytes]]

_API_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
}
_HSTS = {b"strict-transport-security": b"max-age=31536000"}


def is_api(path: str) -> bool:
    """Whether the path belongs to the JSON API."""
    return path == API or path.startswith(f"{API}/")


def complete_headers(
    given: RawHeaders, *, request_id: str, api: bool, production: bool
) -> RawHeaders:
    """The headers of an answer with ours added.

    Below the API ours replace what the application set; a page elsewhere keeps its own and its
    caching and content policy are its own business.
    """
    ours = {b"x-content-type-options": b"nosniff"} | (_HSTS if production else {})
    if api:
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
