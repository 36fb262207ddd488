"""Validates URLs that customers give us to call (SPEC §5)."""

import re
from urllib.parse import unquote, urlsplit

MAX_URL = 2048
# No name in the DNS is longer (RFC 1035 §2.3.4).
MAX_HOST = 253
# No resolver takes these in a name (the forbidden host code points of the WHATWG's URL standard), and one client ends
# the host at them where another reads on.
_NEVER_IN_HOSTS = re.compile(r"[\x00-\x20\x7f#/<>?@\[\\\]^|]")


def check_url(url: str, *, https_only: bool = False) -> str | None:
    """None for an absolute http(s) URL with a host and without userinfo, else what is wrong with it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port  # a bad port raises when read
    except ValueError:
        return "Not a URL."
    schemes = ("https",) if https_only else ("http", "https")
    if parts.scheme not in schemes or not host:
        return f"Must be an {' or '.join(schemes)} URL with a host."
    if len(host) > MAX_HOST:
        return f"Its host must not be over {MAX_HOST} characters."
    if port == 0:
        return "Its port must not be 0."
    if "@" in parts.netloc:
        return "Must not hold a user name or password."
    if any(character.isspace() or not character.isprintable() for character in url):
        return "Must not hold spaces or control characters."
    if _NEVER_IN_HOSTS.search(unquote(host)) or "" in host.removesuffix(".").split("."):
        return "Its host is not valid."
    return None


def without_query(url: str) -> str:
    """The URL up to its query or fragment: keys are put in either."""
    return re.split("[?#]", url, maxsplit=1)[0]


def same_origin(one: str, other: str) -> bool:
    """Whether two valid URLs name the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    default_port = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or default_port
