"""Says which names are time zones."""

from functools import lru_cache
from zoneinfo import available_timezones

# Names in the zone database that are no time zones of a place. The first two depend on the machine, and `Factory`
# stands for a clock that was never set.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})


class BadTimezone(ValueError):  # noqa: N818
    """The error for a name that is not a time zone."""


def check_timezone(name: str) -> None:
    if name not in _zone_names():
        raise BadTimezone("Not a time zone of the IANA database, such as Europe/Berlin.")


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES
