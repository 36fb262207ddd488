"""Leaves a row for each living scheduler process, by the database's clock (SPEC §7)."""

import os
import socket
from datetime import timedelta

from pipedai.ids import new_id
from pipedai.sql import execute
from triggers.models import SchedulerHeartbeat

BEAT_SECONDS = 5.0
# A scheduler is alive until it has missed four.
ALIVE_WITHIN = timedelta(seconds=4 * BEAT_SECONDS)
# Of a scheduler that was killed; one that is stopped takes its row with it.
KEEP_SECONDS = 3600

_BEAT = """
INSERT INTO scheduler_heartbeat (id, host, pid) VALUES (%(id)s, %(host)s, %(pid)s)
ON CONFLICT (id) DO UPDATE SET beat_at = statement_timestamp()
"""


class Heartbeat:
    """This process's row. It is made at the first beat."""

    every_seconds = BEAT_SECONDS

    def __init__(self) -> None:
        self.id = new_id()
        self._row = {"id": self.id, "host": socket.gethostname()[:255], "pid": os.getpid()}

    def beat(self) -> int:
        """Says that the process is alive, and removes the rows of those long dead. A job: 0 units of work."""
        execute(_BEAT, self._row)
        execute(
            "DELETE FROM scheduler_heartbeat"
            " WHERE beat_at < statement_timestamp() - make_interval(secs => %(seconds)s)",
            {"seconds": KEEP_SECONDS},
        )
        return 0

    def end(self) -> None:
        """Removes the row."""
        SchedulerHeartbeat.objects.filter(id=self.id).delete()
