"""What a time on the clock face means in a zone whose clocks change: it may come once, twice or never."""

from datetime import UTC, datetime, timedelta, tzinfo

_MINUTE = timedelta(minutes=1)
# No zone changes its clocks twice within this time (Morocco's Ramadan, about a month, is the shortest).
_STEP = timedelta(days=7)


def exists(wall: datetime, zone: tzinfo) -> bool:
    """False for a time in the gap when clocks go forward."""
    moment = wall.replace(tzinfo=zone)
    return moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == wall


def comes_twice(wall: datetime, zone: tzinfo) -> bool:
    """True for a time that is repeated when clocks go back."""
    first, second = (_offset(wall.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    return first > second


def first_moment(wall: datetime, zone: tzinfo) -> datetime:
    """When the clocks first show `wall`, or would: a time in the gap is at the gap's end. In UTC."""
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if exists(wall, zone):
        return moment
    # Reckoned with the offset before the gap, a time in it lies behind the change.
    change = first_change(zone, moment - timedelta(days=1), moment)
    assert change is not None
    return change


def first_change(zone: tzinfo, after: datetime, until: datetime) -> datetime | None:
    """The first instant in (after, until] with another UTC offset than the one before it, in UTC; None without."""
    low = after
    while low < until:
        high = min(low + _STEP, until)
        if offset_at(high, zone) != offset_at(low, zone):
            return _bisect(zone, low, high)
        low = high
    return None


def offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    """The zone's UTC offset at a moment."""
    return _offset(moment.astimezone(zone))


def _bisect(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """Changes lie on whole minutes."""
    before = offset_at(low, zone)
    minutes = [0, int((high - low) / _MINUTE)]
    while minutes[1] - minutes[0] > 1:
        middle = sum(minutes) // 2
        minutes[offset_at(low + middle * _MINUTE, zone) != before] = middle
    return low + minutes[1] * _MINUTE


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    assert offset is not None
    return offset
