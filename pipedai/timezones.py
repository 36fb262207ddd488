"""Says which names are time zones, and by which edition of the IANA database."""

from functools import lru_cache
from typing import Final
from zoneinfo import available_timezones

import tzdata

# The edition, such as `2026f`, that all processes of this version have (see pipedai/__init__.py).
EDITION: Final[str] = tzdata.IANA_VERSION
# It is in the database for clocks that were never set.
_NO_ZONE = "Factory"


class BadTimezone(ValueError):  # noqa: N818
    """The error for a name that is not a time zone."""


def check_timezone(name: str) -> None:
    if name not in _zone_names():
        raise BadTimezone("Not a time zone of the IANA database, such as Europe/Berlin.")


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones() - {_NO_ZONE})
