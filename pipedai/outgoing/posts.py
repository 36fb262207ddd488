"""A message that is sent by POST, and the host that it goes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipedai.api.outside_urls import MAX_HOST


@dataclass(frozen=True, slots=True)
class Post:
    """A request by POST. Its URL, headers and body may hold secrets, so they are not in its `repr`."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


def host_of(url: str) -> str:
    """Returns the host in a URL, by which senders limit requests. Returns an empty text if the URL has none or is
    invalid.

    It raises nothing, because a URL that was accepted under older rules must not keep a run from ending. The attempt to
    send to the URL will fail instead.
    """
    try:
        return (urlsplit(url).hostname or "")[:MAX_HOST]
    except ValueError:
        return ""
