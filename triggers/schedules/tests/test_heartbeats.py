"""A scheduler writes a heartbeat row, and deletes it when it stops."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command

from pipedai.sql import execute
from testing.processes.forks import forked, kill
from testing.processes.scheduler_process import scheduling
from triggers.heartbeats import KEEP_SECONDS, Heartbeat
from triggers.models import SchedulerHeartbeat

_AGE = (
    "UPDATE scheduler_heartbeat SET beat_at = beat_at - make_interval(secs => %(seconds)s)"
    " WHERE id = %(id)s"
)


@pytest.mark.django_db
def test_a_beat_leaves_one_row_that_says_which_process_it_is() -> None:
    heartbeat = Heartbeat()
    assert heartbeat.beat() == 0
    row = SchedulerHeartbeat.objects.get()
    assert (row.id, row.host, row.pid) == (heartbeat.id, socket.gethostname(), os.getpid())
    execute(_AGE, {"id": row.id, "seconds": 60})
    heartbeat.beat()
    again = SchedulerHeartbeat.objects.get()
    assert again.started_at == row.started_at
    assert again.beat_at >= row.beat_at


@pytest.mark.django_db
@pytest.mark.parametrize(("age", "kept"), [(KEEP_SECONDS - 60, True), (KEEP_SECONDS + 1, False)])
def test_the_rows_of_the_long_dead_are_removed(age: int, kept: bool) -> None:
    dead = Heartbeat()
    dead.beat()
    execute(_AGE, {"id": dead.id, "seconds": age})
    Heartbeat().beat()
    assert SchedulerHeartbeat.objects.filter(id=dead.id).exists() is kept


def test_a_stopped_scheduler_takes_its_row_with_it_and_a_killed_one_leaves_it(
    own_database: str, tmp_path: Path
) -> None:
    log = tmp_path / "scheduler.log"
    with scheduling(own_database, log=log, LOG_FORMAT="json") as stopped:
        killed = forked(lambda: call_command("runscheduler"))
        try:
            _wait(lambda: _pids() == {stopped.pid, killed}, log)
        finally:
            kill(killed)
        stopped.send_signal(signal.SIGTERM)
        # A scheduler that takes longer than 4 s to stop exits with 1, so this one stopped in time.
        assert stopped.wait(60) == 0, log.read_text()
        assert _pids() == {killed}
    assert '"event": "scheduler.stopped"' in log.read_text()


def _pids() -> set[int]:
    return set(SchedulerHeartbeat.objects.values_list("pid", flat=True))


def _wait(until: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
