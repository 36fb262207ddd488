"""What a time on the clock face means in a zone whose clocks change: it may come once, twice or never."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MINUTE = timedelta(minutes=1)
# No zone changes its clocks twice within this time (Morocco's Ramadan, about a month, is the shortest).
_STEP = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Change:
    """Clocks are put forward or back. `moment` is the first with the new UTC offset, in UTC."""

    moment: datetime
    offset_before: timedelta
    offset_after: timedelta

    @property
    def goes_forward(self) -> bool:
        """Whether it leaves times out (a gap); otherwise it repeats some."""
        return self.offset_before < self.offset_after

    @property
    def wall_before(self) -> datetime:
        """What the clocks would show at `moment` without the change: a gap's first time."""
        return on_the_clock(self.moment, self.offset_before)

    @property
    def wall_after(self) -> datetime:
        """What the clocks show at `moment`: the first time after a gap."""
        return on_the_clock(self.moment, self.offset_after)


def change_around(wall: datetime, zone: tzinfo) -> Change | None:
    """The change that leaves `wall` out or repeats it; None for a time that comes once.

    A time in a gap, or one that is repeated, has another offset for each `fold` (PEP 495): that of the clocks before
    the change, and that after it. So nothing has to be searched but the minutes by which the clocks change.
    """
    before, after = _offset(wall.replace(tzinfo=zone)), _offset(wall.replace(tzinfo=zone, fold=1))
    if before == after:
        return None
    low, high = sorted((moment_of(wall, before), moment_of(wall, after)))
    return Change(_first_without(before, zone, low, high), before, after)


def changes(zone: tzinfo, after: datetime, until: datetime) -> Iterator[Change]:
    """The changes in (after, until]. It costs some fifty look-ups for each year between the two."""
    low, before = after, offset_at(after, zone)
    while low < until:
        high = min(low + _STEP, until)
        offset = offset_at(high, zone)
        if offset != before:
            yield Change(_first_without(before, zone, low, high), before, offset)
        low, before = high, offset


def first_shown(wall: datetime, zone: tzinfo) -> datetime:
    """When the clocks first show a time that does not lie in a gap, in UTC."""
    return wall.replace(tzinfo=zone).astimezone(UTC)


def not_yet_shown(moment: datetime, zone: tzinfo) -> datetime:
    """The first time that the clocks have not shown by `moment`: the next minute, but in a stretch that they show for
    the second time, the stretch's end.
    """
    local = moment.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    change = change_around(wall, zone) if local.fold else None
    return wall + _MINUTE if change is None else change.wall_before


def offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    """The zone's UTC offset at a moment."""
    return _offset(moment.astimezone(zone))


def on_the_clock(moment: datetime, offset: timedelta) -> datetime:
    """What clocks with this UTC offset show at a moment in UTC."""
    return moment.replace(tzinfo=None) + offset


def moment_of(wall: datetime, offset: timedelta) -> datetime:
    """When clocks with this UTC offset show `wall`, in UTC."""
    return (wall - offset).replace(tzinfo=UTC)


def _first_without(offset: timedelta, zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """The first moment in (low, high] without the offset that `low` has. zoneinfo does not tell its changes, so it is
    found by bisection; they lie on whole minutes.
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
