"""Logs an alarm when a stored secret can't be decrypted: at most one every five minutes for each secret."""

import threading
import time
from collections import OrderedDict
from uuid import UUID

from django.dispatch import Signal

from pipedai.crypto import BrokenDataKey, CannotOpen, NoDataKey, UnknownMasterKey
from pipedai.logs import get_logger

log = get_logger(__name__)

# A process repeats the alarm about a value only after so many seconds, since workers may ask for the value every
# second.
REPEAT_SECONDS = 300.0
_PLACES_REMEMBERED = 10_000

# Each alarm sends this Django signal, by which the metrics count alarms.
alarmed = Signal()

_REASONS = {
    UnknownMasterKey: "its master key is not among MASTER_KEYS",
    BrokenDataKey: "the data key was tampered with, moved or cut, or its master key has changed",
    NoDataKey: "the environment has no data key in use",
    CannotOpen: "the value was tampered with, moved or cut",
}

_Place = tuple[UUID, str, UUID, str]


def reason_of(error: CannotOpen) -> str:
    return _REASONS[type(error)]


class Alarms:
    """Remembers which alarms this process has logged in the last five minutes, so that it does not repeat them."""

    def __init__(self) -> None:
        self._told: OrderedDict[_Place, float] = OrderedDict()
        self._lock = threading.Lock()

    def raise_alarm(
        self,
        error: CannotOpen,
        *,
        environment_id: UUID,
        table: str,
        row_id: UUID,
        field: str,
        wrapped_under: str | None,
        now: float | None = None,
    ) -> None:
        """`wrapped_under` is the master key of the value's data key, or None. `now` is of the monotonic clock."""
        now = time.monotonic() if now is None else now
        if not self._is_due((environment_id, table, row_id, field), now):
            return
        log.error(
            "secret.cannot_open",
            environment_id=str(environment_id),
            table=table,
            row_id=str(row_id),
            field=field,
            reason=reason_of(error),
            wrapped_under=wrapped_under,
        )
        alarmed.send(sender=Alarms)

    def _is_due(self, place: _Place, now: float) -> bool:
        with self._lock:
            last = self._told.get(place)
            if last is not None and now - last < REPEAT_SECONDS:
                return False
            self._told[place] = now
            self._told.move_to_end(place)
            if len(self._told) > _PLACES_REMEMBERED:
                self._told.popitem(last=False)
            return True


alarms = Alarms()
