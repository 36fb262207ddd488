"""Finds the beginning and the end of the day or month of a budget, in the budget's time zone."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from pipedai.clocks import zone_of
from triggers.models import Budget


def period_around(moment: datetime, period: str, timezone: str) -> tuple[datetime, datetime]:
    """Returns the beginning and the end of the day or month of `moment`, as UTC. A day begins when the zone's clocks
    first show its midnight, or skip it, so it has 23 to 25 hours. A zone that is unknown counts as UTC.
    """
    zone = zone_of(timezone)
    day = moment.astimezone(zone).date()
    first = day.replace(day=1) if period == Budget.Period.MONTH else day
    following = _following(first, period)
    if moment >= midnight(following, zone):
        # The clocks went back over midnight, and so show the former date once more after the new day has begun.
        first, following = following, _following(following, period)
    return midnight(first, zone), midnight(following, zone)


def _following(first: date, period: str) -> date:
    if period == Budget.Period.MONTH:
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=1)


def midnight(day: date, zone: tzinfo) -> datetime:
    """Returns when the zone's clocks first show the midnight with which the day begins, or skip it, as UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
