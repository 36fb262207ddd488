"""The command line works as an operator and the host client use it."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipedai_worker import __version__, cli
from pipedai_worker.cli import TOKEN_VARIABLE
from pipedai_worker.conformance.fake_api import FakeApi

from .conftest import AGENT, Workers

REPOSITORY = AGENT.parent


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_version_is_a_semver_on_stdout(workers: Workers, argument: str) -> None:
    worker = workers.execute(argument)
    assert worker.wait() == 0
    assert worker.log == f"{__version__}\n"


def test_no_command_prints_help(workers: Workers) -> None:
    worker = workers.execute()
    assert worker.wait() == 2
    assert "register" in worker.log


def test_help_can_be_read_on_any_terminal_and_without_a_home(tmp_path: Path) -> None:
    for arguments in (["--help"], ["register", "--help"]):
        shown = subprocess.run(
            ["env", "-u", "HOME", sys.executable, "-m", "pipedai_worker", *arguments],
            env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(AGENT), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.isascii()


def test_whoever_reads_only_the_first_line_sees_no_traceback(workers: Workers) -> None:
    command = [sys.executable, "-m", "pipedai_worker", "doctor", "--config", "none.json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=AGENT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["register", "--api-url", "https://a.example"], "Give the registration token"),
        (["register", "--token", "x", "--api-url", "ftp://a"], "must begin with https://"),
        (["register", "--token", "x", "--api-url", "https://u:p@a"], "no user, query or fragment"),
        (["register", "--token", "x", "--api-url", "http://a:99999"], "a port that there can't be"),
        (["register", "--token", "tø", "--api-url", "https://a.example"], "token is damaged"),
        (["register", "--token", "x", "--api-url", "https://a", "--label", "\udcff"], "UTF-8"),
        (["run", "--config", "~nobody-here/w.json"], "no home directory for ~nobody-here"),
        (["run", "--config", "worker.json", "--claude", "~nobody-here/c"], "no home directory"),
        (["run", "--config", "worker.json", "--proxy", "nonsense"], "The proxy must be a URL"),
        (["run", "--config", "worker.json", "--proxy", "socks5://a:1"], "pip install"),
        (["run", "--config", "none.json"], "There is no none.json"),
        (["run", "--config", "list.json"], "is not a worker's configuration"),
        (["run", "--config", "pool.json"], "pool worker"),
        (["run", "--config", "empty.json"], "has no workerId"),
        (["run", "--config", "worker.json", "--command", ""], "names no program"),
        (["run", "--config", "worker.json", "--command", "'"], "can't be read"),
        (["run", "--config", "worker.json", "--ca-file", "none.pem"], "--ca-file can't be used"),
        (["run", "--config", "worker.json", "--max-concurrency", "0"], "1 or more"),
        (["run", "--config", "worker.json", "--drain-seconds", "-1"], "number of seconds"),
        (["run", "--config", "worker.json", "--stand-in", "--command", "x"], "not allowed with"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(workers.directory)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for name, content in (("list", "[]"), ("pool", '{"isPool": true}'), ("empty", "{}")):
        Path(f"{name}.json").write_text(content)
    try:
        code: object = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    finally:
        # `run` blocks the drain's signal until its process ends.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert code == 2
    assert sentence in capsys.readouterr().err


def test_once_with_nothing_due_ends_at_once(workers: Workers) -> None:
    assert workers.start("--once").wait() == 0


def test_once_executes_what_is_due_and_ends(api: FakeApi, workers: Workers) -> None:
    api.capacity = 2
    runs = [api.add(), api.add()]
    assert workers.start("--once").wait() == 0
    assert [run.status for run in runs] == ["succeeded", "succeeded"]


def test_logs_can_be_json(api: FakeApi, workers: Workers) -> None:
    api.add()
    worker = workers.start("--once", "--json-logs")
    assert worker.wait() == 0
    lines = [json.loads(line) for line in worker.log.splitlines()]
    assert {frozenset(line) for line in lines} == {frozenset({"time", "level", "message"})}
    assert lines[0]["message"] == f"pipedai-worker {__version__} starts"
    assert lines[1]["message"].startswith("connected to")


def test_a_configuration_that_others_can_read_is_warned_about(workers: Workers) -> None:
    workers.config_path.chmod(0o644)
    worker = workers.start("--once")
    assert worker.wait() == 0
    assert "chmod 600" in worker.log


def test_doctor_passes_on_a_sound_machine_without_a_login_for_the_stand_in(
    api: FakeApi, workers: Workers
) -> None:
    worker = workers.execute("doctor", "--config", "worker.json", "--stand-in")
    assert worker.wait() == 0
    assert worker.log.count("pass  ") == 9
    assert "stand-in" in worker.log
    # Nothing of this counts as a poll or a heartbeat, which would make the worker online.
    assert [kind for kind, *_ in api.calls] == ["health", "whoami"]


def test_doctor_says_what_is_wrong_and_what_to_do(api: FakeApi, workers: Workers) -> None:
    workers.config_path.chmod(0o640)
    api.worker_token = "another"
    worker = workers.execute(
        *("doctor", "--config", "worker.json", "--claude", "none", "--auth-mode", "api_key")
    )
    assert worker.wait() == 1
    for name in ("file permissions", "worker token", "claude on PATH", "authentication"):
        assert f"FAIL  {name}: " in worker.log
    assert "4 of the checks failed" in worker.log


def test_the_stand_in_explains_itself() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pipedai_worker.standin", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=AGENT,
    )
    assert "standin: rate-limit" in shown.stdout


def test_manage_py_runworker_registers_once_and_runs(
    api: FakeApi, workers: Workers, url: str
) -> None:
    def runworker() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "manage.py", "runworker", "--once", "--stand-in"),
                *("--api-url", url, "--config", str(workers.directory / "demo.json")),
            ],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(workers.directory),
                "PIPEDAI_REGISTRATION_TOKEN": token,
            },
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
        )

    token = api.registration_token
    run = api.add()
    done = runworker()
    assert (done.returncode, run.status) == (0, "succeeded"), done.stderr
    api.worker_token = "another"
    assert runworker().returncode == 3
    assert api.count("register") == 1


def test_no_module_of_the_worker_imports_django_or_the_service() -> None:
    # Some commands import what they need only when they are carried out.
    modules = ", ".join(f"pipedai_worker.{name}" for name in ("cli", "commands", "conformance.lab"))
    listed = subprocess.run(
        [sys.executable, "-c", f"import {modules}, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=AGENT,
    )
    roots = {name.partition(".")[0] for name in listed.stdout.split()}
    assert not roots & {"django", "pipedai", "accounts", "workspaces", "triggers", "workers"}


def test_every_module_is_python_3_9() -> None:
    for path in Path(AGENT / "pipedai_worker").rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))
