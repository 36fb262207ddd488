"""The conformance kit passes a correct worker, and the right check fails a broken one."""

from __future__ import annotations

import http.client
import json
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipedai_worker import cli
from pipedai_worker.conformance import lab, looks, optional
from pipedai_worker.conformance.fake_api import FakeApi, FakeRun
from pipedai_worker.conformance.lab import CHECKS

from .broken_worker import BREAKAGES, OURS, PLAIN
from .conftest import DEADLINE_SECONDS, alive, python_path, until
from .warm_workers import Fork, WarmWorkers

SCRIPT = Path(__file__).with_name("broken_worker.py")
QUICK_CLAUDE = shlex.quote(str(SCRIPT.with_name("quick_claude.sh")))
OUR_WORKER = f"{shlex.quote(sys.executable)} -m pipedai_worker {OURS}"
# So many checks run at a time, because they mostly wait.
AT_A_TIME = 8
# The checks that are only about workers that poll.
OF_POLLS = {
    *("repeats-a-lost-claim", "repeats-a-lost-start", "leaves-a-refused-claim-alone"),
    *("leaves-a-refused-start-alone", "leaves-a-lost-race-alone", "comes-back-after-a-refusal"),
    "skips-what-it-cannot-read",
}
# The kit waits in vain for a broken worker, so this wait is short.
SHORT_PATIENCE_SECONDS = 10.0


@pytest.fixture(autouse=True)
def _from_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


@pytest.fixture
def _forks(warm: WarmWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kit launch workers as forks, because it launches a hundred."""

    def launch(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Fork:
        program = [word for word in argv[1:] if word != "-m"]
        return warm.start(program, environment, log, leads_a_session=True)

    monkeypatch.setattr(lab, "launch", launch)


@pytest.mark.usefixtures("_forks")
def test_each_check_is_passed_by_a_worker_that_shares_no_code_with_us_or_by_ours() -> None:
    plain = shlex.quote(str(SCRIPT.with_name("plain_worker.py")))
    others = _judged(f"{shlex.quote(sys.executable)} {plain} {PLAIN}")
    assert {verdict.check.name for verdict in others} == set(CHECKS)
    assert {verdict.check.name for verdict in others if verdict.skipped} == _of_ours_alone()
    ours = _judged(OUR_WORKER, *_of_ours_alone())
    assert [verdict.check.name for verdict in ours if verdict.skipped] == []


@pytest.mark.usefixtures("_forks")
@pytest.mark.long
def test_our_own_worker_passes_every_check_that_the_other_worker_passes() -> None:
    ours = _judged(OUR_WORKER, *(lab.checks().keys() - _of_ours_alone()))
    assert {verdict.check.name for verdict in ours if verdict.skipped} == OF_POLLS


def _of_ours_alone() -> set[str]:
    """Return the names of the checks of what our worker does alone: the other one takes its runs by poll and claim and
    without features, and may keep the headers with which a run was handed out.
    """
    modules = {looks.__name__, optional.__name__}
    found = {name for name, check in lab.checks().items() if check.run.__module__ in modules}
    return {*found, "credentials"} - OF_POLLS


def _judged(command: str, *names: str) -> list[lab.Verdict]:
    """Returns what the kit says of a worker that passes the checks which are about it."""
    verdicts = list(lab.judge(command, names, jobs=AT_A_TIME))
    assert [str(verdict) for verdict in verdicts if verdict.failure is not None] == []
    return verdicts


@pytest.mark.usefixtures("_forks")
@pytest.mark.long
def test_each_broken_worker_is_caught_by_the_check_for_what_is_broken() -> None:
    assert len({check for check, *_ in BREAKAGES.values()}) >= 10

    def wrong(how: str) -> list[str]:
        check, command_line, _ = BREAKAGES[how]
        command = f"{shlex.join([sys.executable, str(SCRIPT)])} {how} {command_line}"
        quick = f"{command} --claude {QUICK_CLAUDE}" if command_line == OURS else command
        otherwise = () if check == "does-a-run" else lab.judge(quick, ["does-a-run"])
        caught = lab.judge(command, [check], patience=SHORT_PATIENCE_SECONDS)
        verdicts = [
            *(verdict for verdict in otherwise if verdict.failure is not None),
            *(verdict for verdict in caught if verdict.failure is None),
        ]
        return [f"{how}: {verdict}" for verdict in verdicts]

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        assert list(chain.from_iterable(pool.map(wrong, BREAKAGES))) == []


def test_a_failed_check_says_what_was_wanted_and_shows_the_workers_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = "import sys; print('I give up'); sys.exit(9)"
    command = shlex.join([sys.executable, "-c", program])
    assert cli.main(["conformance", "--against", command, "--check", "does-a-run"]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "FAIL  does-a-run: It ended by itself, with code 9.",
        f"      Wanted: {CHECKS['does-a-run'].sentence}.",
        "      | I give up",
    ]
    assert "1 of 1 checks failed." in shown.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_kit_that_is_stopped_leaves_nothing_running(tmp_path: Path, number: int) -> None:
    noted = tmp_path / "pid"
    # This worker ignores SIGTERM, as a broken one may.
    worker = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(noted)!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""
    command = shlex.join([sys.executable, "-c", worker])
    kit_command = [sys.executable, "-m", "pipedai_worker", "conformance", "--against", command]
    process = subprocess.Popen([*kit_command, "--check", "does-a-run"], stdout=subprocess.DEVNULL)
    try:
        pid = int(until(lambda: noted.exists() and noted.read_text()))
        process.send_signal(number)
        assert process.wait(DEADLINE_SECONDS) == 1
        assert not alive(pid)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        # Node, Go and others send a body in chunks when they do not know its length.
        (["Transfer-Encoding: chunked"], b'3;x=y\r\n{"a\r\n5\r\n":1}\n\r\n0\r\nX: y\r\n\r\n', 404),
        (["Content-Length: 0"], b"", 404),
        (["Content-Length: 2"], b"{}", 404),
        (["Content-Length: 2"], b"[]", 400),
        (["Content-Length: 11"], b'{"cost":NaN', 400),
    ],
)
def test_the_fake_api_reads_every_body_that_http_allows(
    api: FakeApi, url: str, headers: list[str], data: bytes, status: int
) -> None:
    path = f"/api/v1/workers/{api.worker_id}/runs/{FakeRun().id}/heartbeat"
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        f"Authorization: Bearer {api.worker_token}",
        *headers,
    ]
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), DEADLINE_SECONDS) as connection:
        # The second request over the same connection shows that the API has read the whole first one.
        for _ in range(2):
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            assert answer.status == status


def test_a_check_of_what_the_worker_does_not_do_is_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = shlex.join([sys.executable, str(SCRIPT.with_name("plain_worker.py")), "{config}"])
    arguments = ["conformance", "--against", plain, "--check", "takes-the-next-run"]
    assert cli.main([*arguments, "--check", "does-a-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "skip  takes-the-next-run: It takes its runs by poll and claim." in lines
    assert lines[-1] == "All 1 checks passed. 1 were skipped."
    assert cli.main([*arguments, "--json"]) == 0
    finding = json.loads(capsys.readouterr().out)
    assert (finding["passed"], finding["failure"]) == (False, None)
    assert finding["skipped"] == "It takes its runs by poll and claim."


def test_findings_can_be_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["conformance", "--against", "/no/such/worker", "--check", "backs-off", "--json"]
    assert cli.main(arguments) == 1
    finding = json.loads(capsys.readouterr().out)
    assert (finding["check"], finding["passed"]) == ("backs-off", False)
    assert "No such file" in finding["failure"]


def test_the_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["conformance", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--against", "x", "--check", "none"], "there is no check 'none'"),
        (["--against", "'"], "can't be read"),
        (["--against", ""], "names no program"),
        ([], "required"),
    ],
)
def test_bad_arguments_are_said_and_end_with_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["conformance", *arguments])
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
