"""A worker that drains finishes what it holds, takes nothing new, and ends with code 0."""

from __future__ import annotations

import signal

import pytest

from pipedai_worker import cli
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.disk.journal import Journal

from .conftest import Workers, program_that_waits_for, until


def test_sigusr1_lets_runs_take_their_time(
    api: FakeApi, workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    run, go = api.add(), workers.directory / "go"
    command = ("--command", program_that_waits_for(go))
    worker = workers.start(*command, "--drain-seconds", "0")
    api.until(lambda: api.count("heartbeat", run))
    doctor = ["doctor", "--config", str(workers.config_path), "--command", "true"]
    assert cli.main(doctor) == 0
    assert f"process {worker.process.pid} executes runs" in capsys.readouterr().out

    # A poll that is still on its way would be granted the later run, and hand it back.
    api.until(lambda: api.polls_waiting)
    worker.process.send_signal(signal.SIGUSR1)
    worker.until_logged("SIGUSR1: takes nothing new, and ends after its runs in hand: 1")
    api.until(lambda: not api.polls_waiting)
    later = api.add()
    assert cli.main(doctor) == 0
    assert f"process {worker.process.pid} drains" in capsys.readouterr().out
    # A second one changes nothing, and --drain-seconds is about SIGTERM.
    worker.process.send_signal(signal.SIGUSR1)
    # Another process, which was started to drain this one, waits for it.
    waiting = workers.start(*command, "--drain")
    waiting.until_logged(f"process {worker.process.pid} works with this registration")
    assert waiting.process.poll() is None
    go.touch()
    assert (worker.wait(), waiting.wait()) == (0, 0)
    assert (run.status, later.status) == ("succeeded", "queued")
    assert cli.main(doctor) == 0
    assert "no process executes runs" in capsys.readouterr().out


@pytest.mark.parametrize("_", range(4))
def test_a_worker_drains_from_the_moment_on_that_others_can_find_it(
    workers: Workers, _: int
) -> None:
    worker = workers.start()
    until(lambda: Journal.holder(workers.state), pause=0.0)
    worker.process.send_signal(signal.SIGUSR1)
    assert worker.wait() == 0


def test_sigterm_ends_a_draining_worker_as_any_other(api: FakeApi, workers: Workers) -> None:
    run = api.add("standin: sleep 600")
    worker = workers.start("--drain-seconds", "0")
    api.until(lambda: api.count("heartbeat", run))
    worker.process.send_signal(signal.SIGUSR1)
    worker.until_logged("SIGUSR1")
    assert worker.stop() == 0
    assert "SIGTERM: up to 0 s" in worker.log
    assert (run.outcome or {})["faultClass"] == "infra"


def test_drain_settles_what_a_killed_worker_has_left(api: FakeApi, workers: Workers) -> None:
    run = api.add("standin: sleep 600")
    worker = workers.start()
    # It asks for a second run, for which it waits.
    api.until(lambda: api.count("heartbeat", run) and api.asked() == 2)
    worker.stop(signal.SIGKILL)
    drained = workers.start("--drain")
    assert drained.wait() == 0
    assert (run.outcome or {})["errorMessage"] == "worker restarted"
    assert api.asked() == 2
    # It has not polled, so it does not sign off: the worker that did may be at work again.
    assert api.count("sign-off") == 0
