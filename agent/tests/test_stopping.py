"""No run is lost or reported twice when a real worker process is signalled, crashes or restarts."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from pipedai_worker.conformance.fake_api import DROP, FakeApi
from pipedai_worker.disk.durable import PREFIX
from pipedai_worker.disk.journal import HeldRun, Journal, end_orphans
from pipedai_worker.running import process

from .conftest import DEADLINE_SECONDS, NO_CALLS, Workers, alive, program_that_waits_for, until


def program_that_notes_its_pid(path: Path) -> str:
    return f"sh -c 'echo $$ > {path}; sleep 300 & sleep 300'"


def noted_pid(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text().strip()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_idle_worker_ends_at_once(api: FakeApi, workers: Workers, number: int) -> None:
    worker = workers.start()
    api.until(lambda: api.count("claim-next") >= 2)
    api.until(lambda: api.polls_waiting)
    assert worker.stop(number) == 0
    assert [kind for kind, *_ in api.calls].count("sign-off") == 1
    assert len({headers["X-Pipedai-Worker-Process"] for headers in api.headers}) == 1


def test_a_worker_that_cannot_sign_off_ends_all_the_same(api: FakeApi, workers: Workers) -> None:
    api.fail("sign-off", DROP)
    worker = workers.start()
    api.until(lambda: api.count("claim-next") >= 2)
    assert worker.stop() == 0
    assert api.count("sign-off") == 1


def test_a_stopping_worker_finishes_what_it_holds_and_takes_nothing_new(
    api: FakeApi, workers: Workers
) -> None:
    run = api.add()
    go = workers.directory / "go"
    worker = workers.start("--command", program_that_waits_for(go), "--drain-seconds", "123")
    api.until(lambda: api.count("heartbeat", run))
    # A poll that is still on its way would be granted the later run, and hand it back.
    api.until(lambda: api.polls_waiting)
    worker.process.send_signal(signal.SIGTERM)
    worker.until_logged("SIGTERM: up to 123 s")
    api.until(lambda: not api.polls_waiting)
    later = api.add()
    assert api.count("sign-off") == 0
    go.touch()
    assert worker.wait() == 0
    assert run.status == "succeeded"
    assert later.status == "queued"
    kinds = [kind for kind, *_ in api.calls]
    assert kinds.index("sign-off") > kinds.index("complete")


def test_what_does_not_finish_in_time_is_handed_back_to_be_retried(
    api: FakeApi, workers: Workers
) -> None:
    pid_path = workers.directory / "pid"
    run = api.add()
    worker = workers.start(
        "--drain-seconds", "0.3", "--command", program_that_notes_its_pid(pid_path)
    )
    pid = noted_pid(pid_path)
    assert worker.stop() == 0
    assert run.outcome is not None
    assert (run.outcome["status"], run.outcome["faultClass"]) == ("failed", "infra")
    assert "worker was stopped" in run.outcome["errorMessage"]
    assert not alive(pid)
    assert workers.files("held") == workers.files("outcomes") == []


def test_a_second_signal_does_not_wait(api: FakeApi, workers: Workers) -> None:
    run = api.add("standin: hang")
    worker = workers.start("--drain-seconds", "1000")
    api.until(lambda: api.count("heartbeat", run))
    worker.process.send_signal(signal.SIGTERM)
    worker.until_logged("SIGTERM")
    worker.process.send_signal(signal.SIGTERM)
    # It exits long before the time for draining is over.
    assert worker.wait() == 0
    assert run.status == "failed"


def test_a_worker_that_cannot_report_leaves_in_time_and_reports_after_its_restart(
    api: FakeApi, workers: Workers
) -> None:
    api.fail("complete", 503, times=1000)
    run = api.add("standin: success kept")
    worker = workers.start("--drain-seconds", "0.2")
    until(lambda: workers.files("outcomes"))
    assert worker.stop() == 0
    (path,) = (workers.state / "outcomes").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run.status == "running"
    api.faults.clear()
    workers.start()
    assert api.until_ended(run)["shortMessage"] == "kept"
    until(lambda: not workers.files("outcomes"))


def test_a_run_in_hand_when_the_worker_was_killed_is_handed_back_and_its_program_ended(
    api: FakeApi, workers: Workers
) -> None:
    pid_path = workers.directory / "pid"
    run = api.add(mcp_headers={"x-api-key": "the-secret-value"})
    command = program_that_notes_its_pid(pid_path)
    worker = workers.start("--command", command)
    pid = noted_pid(pid_path)
    until(lambda: any(held.get("pid") for held in workers.files("held")))
    kept = "".join(path.read_text() for path in (workers.state / "held").iterdir())
    assert "the-secret-value" not in kept
    assert workers.leftovers()
    worker.stop(signal.SIGKILL)
    assert alive(pid)

    workers.start("--command", command)
    outcome = api.until_ended(run)
    assert outcome == {
        "status": "failed",
        "faultClass": "infra",
        "errorMessage": "worker restarted",
        **NO_CALLS,
    }
    assert not alive(pid)
    until(lambda: not workers.leftovers() and not workers.files("held"))


def test_a_signal_while_a_predecessors_programs_are_ended_is_heeded(
    api: FakeApi, workers: Workers
) -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; while true; do sleep 1; done"], start_new_session=True
    )
    try:
        with closing(Journal(workers.state)) as journal:
            started = process.start_time(stubborn.pid)
            journal.hold(HeldRun(str(uuid4()), "c", pid=stubborn.pid, process_started=started))
        worker = workers.start()
        worker.until_logged("ending process group")
        assert worker.stop() == 0
        assert stubborn.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    finally:
        stubborn.kill()
        stubborn.wait()


def test_a_spooled_outcome_wins_over_what_a_restart_would_say(
    api: FakeApi, workers: Workers
) -> None:
    api.fail("complete", 503, times=1000)
    run = api.add("standin: success the real outcome")
    worker = workers.start()
    until(lambda: workers.files("outcomes"))
    worker.stop(signal.SIGKILL)
    # The journal is as if the worker had been killed before it released the run.
    with closing(Journal(workers.state)) as journal:
        journal.hold(HeldRun(run.id, "claim"))
    api.faults.clear()
    workers.start("--once")
    assert api.until_ended(run)["shortMessage"] == "the real outcome"
    until(lambda: not workers.files("held"))


def test_a_run_that_was_not_begun_when_the_worker_was_killed_is_handed_back_without_effects(
    api: FakeApi, workers: Workers
) -> None:
    run = api.add(resume_session_id=str(uuid4()), retry_mode="resume")
    with closing(Journal(workers.state)) as journal:
        journal.hold(HeldRun(run.id, "mine", resume_session_id=run.resume_session_id))
    run.status, run.claim_id = "running", "mine"
    worker = workers.start()
    outcome = api.until_ended(run)
    assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
    # Its program was not started, so the API may retry it, and in the session in which it was to go on.
    assert outcome["toolCalls"] == NO_CALLS["toolCalls"]
    assert outcome["costUsd"] == "0.000000"
    assert outcome["sessionId"] == run.resume_session_id
    until(lambda: not workers.files("held"))
    assert worker.stop() == 0


def test_a_second_worker_with_the_same_registration_refuses_to_start(
    api: FakeApi, workers: Workers
) -> None:
    workers.start()
    api.until(lambda: api.count("claim-next") >= 1)
    second = workers.start()
    assert second.wait() == 5
    assert "Another process already works with worker.json" in second.log


def test_a_file_that_cannot_be_read_is_set_aside(api: FakeApi, workers: Workers) -> None:
    Journal(workers.state).close()
    (workers.state / "outcomes" / f"{uuid4()}.json").write_text('{"status": ')
    (workers.state / "held" / f"{uuid4()}.json").write_text("[]")
    (workers.state / "held" / "notes.json").write_text("{}")
    (workers.state / "outcomes" / f"{uuid4()}.json").write_text("[" * 100_000)
    (workers.state / "calls" / "folder").mkdir()
    worker = workers.start("--once")
    assert worker.wait() == 0
    assert worker.log.count("set aside") == 4
    assert len(list(workers.state.glob("*/*.unreadable"))) == 4
    assert "folder is no file of a run; left as it is" in worker.log


def test_a_process_that_only_has_the_number_of_an_orphan_is_not_signalled() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        end_orphans(
            HeldRun(str(uuid4()), uuid4().hex, pid=stranger.pid, process_started="another/1")
        )
        time.sleep(0.1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_is_told_from_another_with_its_number() -> None:
    assert process.start_time(os.getpid()) == process.start_time(os.getpid())
    assert process.start_time(os.getpid()) != process.start_time(1)
    assert process.start_time(2**22 + 1) is None


def test_a_process_is_known_by_its_start_also_if_its_name_is_cut_within_a_character(
    tmp_path: Path,
) -> None:
    # Linux keeps the first 15 bytes of a program's name.
    program = tmp_path / "fourteen-bytesé"
    program.write_text("#!/bin/sh\nread -r line\n")
    program.chmod(0o755)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running:
        assert process.start_time(running.pid) is not None


def test_what_claude_wrote_of_its_process_and_could_not_finish_keeps_no_worker_from_starting(
    api: FakeApi, workers: Workers
) -> None:
    sessions = workers.directory / ".claude" / "sessions"
    sessions.mkdir(parents=True)
    (sessions / "12345.json").write_bytes('{"cwd": "é'.encode()[:-1])
    scratch = workers.directory / "tmp" / f"{PREFIX}old"
    scratch.mkdir(parents=True)
    run = api.add(status="running", claim_id="mine")
    with closing(Journal(workers.state)) as journal:
        journal.hold(HeldRun(run.id, "mine", scratch=str(scratch), pid=12345))
    workers.start()
    assert api.until_ended(run)["errorMessage"] == "worker restarted"
    until(lambda: not workers.leftovers() and not workers.files("held"))


def test_no_secret_is_left_on_disk(api: FakeApi, workers: Workers) -> None:
    api.fail("complete", 503, times=1000)
    api.add("standin: success the-secret-value", mcp_headers={"x-api-key": "the-secret-value"})
    worker = workers.start()
    until(lambda: workers.files("outcomes"))
    worker.stop(signal.SIGKILL)
    outcomes = json.dumps(workers.files("outcomes"))
    assert "[redacted]" in outcomes
    for path in workers.directory.rglob("*"):
        assert not path.is_file() or "the-secret-value" not in path.read_text(errors="replace")
