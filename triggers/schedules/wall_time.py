"""Converts between moments and wall times, which the clocks of a zone show once, twice or never."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MINUTE = timedelta(minutes=1)
# The search for clock changes reads the zone's offset in steps of this length. No zone changes its clocks twice within
# one: the shortest known interval is about a month, in Morocco around Ramadan.
_STEP = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Change:
    moment: datetime
    offset_before: timedelta
    offset_after: timedelta

    @property
    def goes_forward(self) -> bool:
        return self.offset_before < self.offset_after

    @property
    def wall_before(self) -> datetime:
        """If the clocks go forward, it is the first skipped time."""
        return on_the_clock(self.moment, self.offset_before)

    @property
    def wall_after(self) -> datetime:
        return on_the_clock(self.moment, self.offset_after)


def change_around(wall: datetime, zone: tzinfo) -> Change | None:
    """Returns the clock change that skips or repeats `wall`, or None. Such a time has another offset for each value of
    `fold` (PEP 495), which shows where to look for the change.
    """
    before, after = _offset(wall.replace(tzinfo=zone)), _offset(wall.replace(tzinfo=zone, fold=1))
    if before == after:
        return None
    low, high = sorted((moment_of(wall, before), moment_of(wall, after)))
    return Change(_first_without(before, zone, low, high), before, after)


def changes(zone: tzinfo, after: datetime, until: datetime) -> Iterator[Change]:
    """Yields the changes in (after, until]. It reads the offset some fifty times a year."""
    low, before = after, offset_at(after, zone)
    while low < until:
        high = min(low + _STEP, until)
        offset = offset_at(high, zone)
        if offset != before:
            yield Change(_first_without(before, zone, low, high), before, offset)
        low, before = high, offset


def first_shown(wall: datetime, zone: tzinfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)


def not_yet_shown(moment: datetime, zone: tzinfo) -> datetime:
    """This is the next minute, or the first time after those that the clocks repeat."""
    local = moment.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    change = change_around(wall, zone) if local.fold else None
    return wall + _MINUTE if change is None else change.wall_before


def offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    return _offset(moment.astimezone(zone))


def on_the_clock(moment: datetime, offset: timedelta) -> datetime:
    return moment.replace(tzinfo=None) + offset


def moment_of(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)


def _first_without(offset: timedelta, zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """Returns the first moment in (low, high] whose UTC offset is not `offset`, by bisection, because zoneinfo has no
    list of changes. Changes lie on whole minutes.
    """
    minutes = range((high - low) // _MINUTE)
    changed = bisect_left(
        minutes, True, lo=1, key=lambda minute: offset_at(low + minute * _MINUTE, zone) != offset
    )
    return low + changed * _MINUTE


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    assert offset is not None
    return offset
