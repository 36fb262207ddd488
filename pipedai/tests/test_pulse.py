"""`HEARTBEAT_URL` is requested while all jobs go well, and not after one has failed."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipedai import loop
from pipedai.loop import Job, run_jobs
from testing.processes.scheduler_process import scheduling
from testing.processes.worker_process import until

PATH = "/planted-path-of-a-monitor"


@pytest.fixture
def asked(settings, monkeypatch) -> Iterator[list[str]]:
    """Runs a monitor, and returns the paths that it was asked for."""
    paths: list[str] = []

    class Monitor(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(loop, "_failed_at", None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Monitor) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        settings.HEARTBEAT_URL = f"http://127.0.0.1:{server.server_address[1]}{PATH}"
        yield paths
        server.shutdown()
        thread.join()


def test_the_monitor_is_asked_while_all_goes_well(asked):
    loop.send_heartbeat()
    loop.await_heartbeat()
    assert asked == [PATH]


def test_a_scheduler_asks_the_monitor(asked, settings, own_database, tmp_path):
    url = settings.HEARTBEAT_URL
    with scheduling(own_database, log=tmp_path / "scheduler.log", HEARTBEAT_URL=url):
        until(lambda: asked == [PATH])


def test_after_a_job_has_failed_the_monitor_is_not_asked_for_a_minute(asked, monkeypatch, capfd):
    # The loop would look at the connection that an earlier test has left.
    monkeypatch.setattr(loop, "close_old_connections", lambda: None)
    stop = threading.Event()

    def fail() -> int:
        stop.set()
        raise RuntimeError("no")

    run_jobs([Job("failing", 1.0, fail)], stop)
    loop.send_heartbeat()
    loop.await_heartbeat()
    assert asked == []
    monkeypatch.setattr(loop, "HEARTBEAT_SECONDS", 0.0)
    loop.send_heartbeat()
    loop.await_heartbeat()
    assert asked == [PATH]
    assert "planted" not in "".join(capfd.readouterr())


def test_a_monitor_that_is_away_harms_nothing(settings, monkeypatch, capfd):
    monkeypatch.setattr(loop, "_failed_at", None)
    settings.HEARTBEAT_URL = f"http://127.0.0.1:1{PATH}"
    assert loop.send_heartbeat() == 0
    loop.await_heartbeat()
    logged = "".join(capfd.readouterr())
    assert "heartbeat.failed" in logged
    assert "planted" not in logged


def test_each_scheduler_asks_once_a_minute():
    (job,) = [job for job in loop.registered_jobs() if job.name == "heartbeat"]
    assert job.every_seconds == 60
