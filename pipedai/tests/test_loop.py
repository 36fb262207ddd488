"""The loop of background jobs: each when it is due, until it is told to stop (SPEC §7)."""

import os
import signal
import threading
import time

import pytest

from pipedai.loop import Job, registered_jobs, run_jobs, stop_on_signals

pytestmark = pytest.mark.django_db

_DEADLINE_SECONDS = 30


@pytest.fixture
def stop():
    """Set at the latest after a while, so that no test hangs."""
    event = threading.Event()
    timer = threading.Timer(_DEADLINE_SECONDS, event.set)
    timer.start()
    yield event
    timer.cancel()


@pytest.fixture(autouse=True)
def _same_connection(monkeypatch):
    """The loop looks after its connection; the one of these tests holds their transaction."""
    monkeypatch.setattr("pipedai.loop.close_old_connections", lambda: None)
    monkeypatch.setattr("django.db.connection.close", lambda: None)


def job(name, work, *, every_seconds=3600.0):
    return Job(name, every_seconds, work)


def test_each_job_runs_at_once_and_then_when_it_is_due(stop):
    began, runs = time.monotonic(), []

    def work():
        runs.append(time.monotonic() - began)
        if len(runs) == 3:
            stop.set()
        return 0

    run_jobs([job("a", work, every_seconds=0.05)], stop)
    assert len(runs) == 3
    assert runs[1] >= 0.05
    assert runs[2] >= 0.1


def test_a_job_runs_again_without_a_pause_while_there_is_more(stop):
    left = [3, 2, 1, 0]

    def work():
        units = left.pop(0)
        if not left:
            stop.set()
        return units

    began = time.monotonic()
    run_jobs([job("a", work)], stop)
    assert left == []
    assert time.monotonic() - began < _DEADLINE_SECONDS


def test_a_job_that_fails_holds_up_no_other(stop):
    runs = []

    def fail():
        raise RuntimeError("the story")

    def work():
        runs.append(1)
        if len(runs) == 5:
            stop.set()
        return 0

    run_jobs([job("a", fail, every_seconds=0.01), job("b", work, every_seconds=0.01)], stop)
    assert len(runs) == 5


def test_a_job_that_failed_is_tried_again(stop):
    runs = []

    def work():
        runs.append(1)
        if len(runs) == 2:
            stop.set()
            return 0
        raise RuntimeError("the first time")

    run_jobs([job("a", work, every_seconds=0.01)], stop)
    assert len(runs) == 2


def test_nothing_is_begun_once_it_is_told_to_stop(stop):
    def work():
        stop.set()
        return 1

    def other():
        raise AssertionError("begun all the same")

    run_jobs([job("a", work), job("b", other)], stop)
    stop.set()
    run_jobs([job("b", other)], stop)


def test_telling_it_to_stop_ends_its_sleep(stop):
    def work():
        threading.Timer(0.05, stop.set).start()
        return 0

    began = time.monotonic()
    run_jobs([job("a", work)], stop)
    assert time.monotonic() - began < _DEADLINE_SECONDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_tells_it_to_stop(number, monkeypatch):
    monkeypatch.setattr("threading.Thread.start", lambda self: None)  # no last resort here
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = stop_on_signals()
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(_DEADLINE_SECONDS)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_the_apps_have_registered_their_jobs():
    names = [job.name for job in registered_jobs()]
    assert {"expire-runs", "add-audit-partitions"} <= set(names)
    assert len(names) == len(set(names))
