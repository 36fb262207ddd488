"""Validates the URLs that customers ask us to call."""

import re
from urllib.parse import unquote, urlsplit

MAX_URL = 2048
# The longest name that the DNS allows (RFC 1035 §2.3.4).
MAX_HOST = 253
# The forbidden host code points of the WHATWG's URL standard. No resolver accepts them in a name, and HTTP clients
# disagree about where a host that contains them ends.
_NEVER_IN_HOSTS = re.compile(r"[\x00-\x20\x7f#/<>?@\[\\\]^|]")


def check_url(url: str, *, https_only: bool = False) -> str | None:
    """Returns None for an absolute http(s) URL with a host and without userinfo, else a sentence on what is wrong."""
    try:
        parts = urlsplit(url)
        # Reading `port` raises ValueError if it is no number.
        host, port = parts.hostname, parts.port
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
    return re.split("[?#]", url, maxsplit=1)[0]


def is_elsewhere(old: str, new: str | None) -> bool:
    """Whether the new URL is of another server. If so, a secret that was given for the old URL must not stay: otherwise
    a person who may change the URL, but does not know the secret, could send it to a server of their own.
    """
    return new is None or not same_origin(old, new)


def same_origin(one: str, other: str) -> bool:
    return origin_of(one) == origin_of(other)


def server_of(url: str) -> str:
    """Returns the host of a URL, with its port unless the port is 80 or 443."""
    return re.sub(r":(80|443)$", "", urlsplit(url).netloc.lower())


def origin_of(url: str) -> str:
    """Returns scheme, host and port of a checked URL; the port only if it is not the scheme's own."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    own = {"https": 443, "http": 80}.get(parts.scheme)
    port = "" if parts.port in {None, own} else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"
