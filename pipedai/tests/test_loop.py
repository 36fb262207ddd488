"""The loop of background jobs gives each its turns, and survives errors and an outage of the database."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from django.db import IntegrityError, OperationalError, connection
from structlog.testing import capture_logs

from pipedai import loop
from pipedai.loop import Job, run_jobs
from testing.processes.warm_start import SERVICE


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all pauses short, and keeps the loop from closing the test's connection."""
    monkeypatch.setattr(loop, "_PAUSE_AFTER_ERROR_SECONDS", 0.001)
    monkeypatch.setattr(loop, "_RECONNECT_SECONDS", 0.001)
    monkeypatch.setattr(loop, "close_old_connections", lambda: None)


class Script:
    """A job that returns the listed numbers and raises the listed errors, one in each turn, and then stops the loop."""

    def __init__(self, stop: threading.Event, *turns: int | Exception) -> None:
        self.turns = list(turns)
        self._stop = stop

    def __call__(self) -> int:
        turn = self.turns.pop(0)
        if not self.turns:
            self._stop.set()
        if isinstance(turn, Exception):
            raise turn
        return turn


def test_two_jobs_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        run_jobs([Job("twin", 1.0, int), Job("twin", 1.0, int)], threading.Event())


def test_a_job_with_more_to_do_goes_on_at_once_and_is_counted() -> None:
    stop = threading.Event()
    with capture_logs() as logged:
        done = run_jobs([Job("work", 1e-3, Script(stop, 5, 3, 0, 2))], stop)
    assert done == {"work": 10}
    assert [(line["units"], line["total"]) for line in logged] == [(5, 5), (3, 8), (2, 10)]
    assert {line["event"] for line in logged} == {"job.done"}


def test_a_job_without_end_lets_the_others_have_their_turns() -> None:
    stop = threading.Event()
    busy = Job("busy", 0.001, lambda: 1)
    run_jobs([busy, Job("other", 0.001, Script(stop, 1, 0, 1))], stop)


def test_a_job_that_goes_on_in_threads_is_asked_again_soon() -> None:
    """Otherwise it would be asked a second time only after an hour."""
    stop = threading.Event()
    sending = Job("send", 3600.0, Script(stop, 0, 0, 0), is_busy=lambda: True)
    run_jobs([sending], stop)


def test_a_job_rests_for_its_time_when_nothing_goes_on() -> None:
    idle = Job("send", 0.25, lambda: 0, is_busy=lambda: False)
    frequent = Job("often", 0.01, lambda: 0, is_busy=lambda: True)
    assert (idle.pause_seconds, frequent.pause_seconds) == (0.25, 0.01)


@pytest.mark.parametrize("error", [ValueError("no"), IntegrityError("no")], ids=["own", "database"])
def test_an_error_in_one_job_holds_up_none_of_the_others(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_answers", lambda: True)
    stop = threading.Event()

    def fail() -> int:
        raise error

    with capture_logs() as logged:
        run_jobs([Job("bad", 1e-3, fail), Job("good", 1e-3, Script(stop, 0, 0, 0))], stop)
    assert {(line["event"], line["job"], line["log_level"]) for line in logged} == {
        ("job.failed", "bad", "error")
    }


def test_a_job_that_fails_again_waits_longer_and_recovers() -> None:
    stop = threading.Event()
    script = Script(stop, *[ValueError("no")] * 12, 1, ValueError("no"))
    with capture_logs() as logged:
        run_jobs([Job("job", 0.001, script)], stop)
    pauses = [line["retry_seconds"] for line in logged if line["event"] == "job.failed"]
    assert [round(pause * 1000) for pause in pauses] == [*range(1, 11), 10, 10, 1]


def test_an_outage_of_the_database_is_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    answers = iter([False] * 20 + [True])
    monkeypatch.setattr(loop, "_answers", lambda: next(answers))
    monkeypatch.setattr(connection, "close", lambda: None)
    first = Script(threading.Event(), OperationalError("gone"), *[0] * 1000)
    with capture_logs() as logged:
        run_jobs([Job("first", 0.001, first), Job("second", 0.001, Script(stop, 0, 0))], stop)
    assert [line["event"] for line in logged] == ["database.away", "database.back"]
    assert len(first.turns) < 1000  # It was due all the time, and got more turns.


def test_a_loop_that_waits_for_the_database_stops_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = threading.Event()

    def never() -> bool:
        stop.set()
        return False

    monkeypatch.setattr(loop, "_answers", never)
    monkeypatch.setattr(connection, "close", lambda: None)
    run_jobs([Job("job", 0.001, Script(threading.Event(), OperationalError("gone"), 0))], stop)


def test_what_a_job_left_under_way_is_waited_for_at_the_end() -> None:
    stop = threading.Event()
    finished: list[str] = []
    jobs = [
        Job("pool", 0.001, Script(stop, 1), finish=lambda: finished.append("pool")),
        Job("plain", 0.001, lambda: 0),
    ]
    run_jobs(jobs, stop)
    assert finished == ["pool"]


def test_at_the_end_jobs_finish_beside_each_other() -> None:
    stop, met = threading.Event(), threading.Barrier(2, timeout=30)

    def meet() -> None:
        met.wait()

    run_jobs([Job(name, 0.001, Script(stop, 1), finish=meet) for name in ("a", "b")], stop)
    assert not met.broken


_HANGS = """
import django, threading, time
django.setup()
from pipedai import loop
stop = loop.stop_on_signals()
def hang():
    print("hanging", flush=True)
    {hang}
    return 0
loop.run_jobs([loop.Job("job", 60, hang)], stop)
print("clean", flush=True)
"""

# The main thread holds the lock of the event as it does for a moment at the beginning of each `wait`.
_LOCKED = """
import signal
from pipedai import loop
stop = loop.stop_on_signals()
with stop._cond:
    signal.raise_signal(signal.SIGTERM)
if stop.wait(30):
    print("stopped", flush=True)
"""


@pytest.mark.parametrize(
    ("hang", "code", "said"),
    [
        pytest.param("stop.wait()", 0, "clean", id="finishes the unit in hand"),
        pytest.param("time.sleep(600)", 1, "stop.forced", id="hangs"),
    ],
)
def test_a_process_ends_within_five_seconds_of_sigterm(
    hang: str, code: int, said: str, tmp_path: Path
) -> None:
    with _python(_HANGS.format(hang=hang)) as (process, output):
        while "hanging" not in output.readline():
            pass
        process.send_signal(signal.SIGTERM)
        told = output.read()
        assert (process.wait(60), said in told) == (code, True), told
    # We check the constant and measure no time, because a busy machine may delay the process.
    assert loop._LONGEST_GOODBYE_SECONDS < 5


def test_a_signal_that_comes_while_the_event_is_locked_stops_the_loop_too() -> None:
    with _python(_LOCKED) as (process, output):
        assert (output.read(), process.wait(60)) == ("stopped\n", 0)


@contextmanager
def _python(program: str) -> Iterator[tuple[subprocess.Popen[bytes], TextIO]]:
    """Runs a program, and yields it with what it writes. It is killed after a minute."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "pipedai.settings"}
    reading, writing = os.pipe()
    with os.fdopen(reading) as output:
        try:
            process = SERVICE.start(["-c", program], environment=environment, output=writing)
        finally:
            os.close(writing)
        patience = threading.Timer(60, process.kill)
        patience.start()
        try:
            yield process, output
        finally:
            patience.cancel()
            process.kill()
            process.wait()
