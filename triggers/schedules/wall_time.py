"""Converts between moments and the times that the clocks of a zone show, which may come once, twice or never.

A wall time is what a clock on the wall shows: a date and a time without a zone.
"""

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
    """A change of a time zone's clocks, forward or back. `moment` is the first moment of the new UTC offset, in UTC."""

    moment: datetime
    offset_before: timedelta
    offset_after: timedelta

    @property
    def goes_forward(self) -> bool:
        """Returns whether the clocks go forward and skip times (a gap). Otherwise they go back and repeat times."""
        return self.offset_before < self.offset_after

    @property
    def wall_before(self) -> datetime:
        """Returns what the clocks would show at `moment` without the change. If they go forward, it is the first
        skipped time.
        """
        return on_the_clock(self.moment, self.offset_before)

    @property
    def wall_after(self) -> datetime:
        """Returns what the clocks show at `moment`. If they go forward, it is the first time after the skipped ones."""
        return on_the_clock(self.moment, self.offset_after)


def change_around(wall: datetime, zone: tzinfo) -> Change | None:
    """Returns the clock change that skips or repeats `wall`, or None for a time that comes once.

    A skipped or repeated time has two UTC offsets, one for each value of `fold` (PEP 495): the offset before the change
    and that after it. The two offsets show in which minutes the moment of the change must be looked for.
    """
    before, after = _offset(wall.replace(tzinfo=zone)), _offset(wall.replace(tzinfo=zone, fold=1))
    if before == after:
        return None
    low, high = sorted((moment_of(wall, before), moment_of(wall, after)))
    return Change(_first_without(before, zone, low, high), before, after)


def changes(zone: tzinfo, after: datetime, until: datetime) -> Iterator[Change]:
    """Yields the clock changes of the zone in (after, until]. It reads the zone's offset some fifty times for each year
    between the two.
    """
    low, before = after, offset_at(after, zone)
    while low < until:
        high = min(low + _STEP, until)
        offset = offset_at(high, zone)
        if offset != before:
            yield Change(_first_without(before, zone, low, high), before, offset)
        low, before = high, offset


def first_shown(wall: datetime, zone: tzinfo) -> datetime:
    """Returns the moment in UTC when the clocks first show `wall`, which must not be a skipped time."""
    return wall.replace(tzinfo=zone).astimezone(UTC)


def not_yet_shown(moment: datetime, zone: tzinfo) -> datetime:
    """Returns the first wall time that the clocks have not shown by `moment`.

    This is the next minute. While the clocks repeat times, it is the first time after the repeated ones.
    """
    local = moment.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    change = change_around(wall, zone) if local.fold else None
    return wall + _MINUTE if change is None else change.wall_before


def offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    return _offset(moment.astimezone(zone))


def on_the_clock(moment: datetime, offset: timedelta) -> datetime:
    """Returns the wall time that clocks with this UTC offset show at a moment in UTC."""
    return moment.replace(tzinfo=None) + offset


def moment_of(wall: datetime, offset: timedelta) -> datetime:
    """Returns the moment in UTC when clocks with this UTC offset show `wall`."""
    return (wall - offset).replace(tzinfo=UTC)


def _first_without(offset: timedelta, zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """Returns the first moment in (low, high] whose UTC offset is not `offset`. At `low` it must be `offset`.

    zoneinfo has no list of clock changes, so bisection finds it. Changes lie on whole minutes.
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
