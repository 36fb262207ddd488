"""A claude that is missing, too old, hangs or is another program ends its run with one sentence, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipedai_worker import doctor
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.executors import watch
from pipedai_worker.identity import Paying

from .conftest import Workers
from .test_claude_executor import execute, fake_claude

# Each is a program in place of claude, and how its run ends.
TOO_OLD = "echo \"error: unknown option '--setting-sources'\" >&2; exit 1"
TALKING = "while :; do echo hello; sleep 0.05; done"
PROGRAMS = {
    "missing": (None, "failed", "could not be launched"),
    "too old": (TOO_OLD, "failed", "exited with code 1 without a result. It told nothing at all"),
    "another program": ("echo hello", "failed", "exited with code 0 without a result. It told"),
    "crashed": ("kill -9 $$", "failed", "was ended by SIGKILL without a result"),
    "hangs": ("exec sleep 600", "timed_out", "Claude had not begun by then."),
    "talks": (TALKING, "timed_out", "Claude had not begun by then."),
}


@pytest.mark.parametrize("rules", [None, [{"tools": "*", "when": "always"}]])
def test_the_workers_own_files_are_denied_to_every_run(
    api: FakeApi, url: str, workers: Workers, tmp_path: Path, rules: Any
) -> None:
    program = fake_claude(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/argv; exit 1')[0]
    run = api.add(mcp_url=f"{url}/mcp", timeout_seconds=30, rules=rules)
    workers.execute("run", "--config", "worker.json", "--claude", program)
    api.until_ended(run)
    arguments = (tmp_path / "argv").read_text().splitlines()
    denied = json.loads(arguments[arguments.index("--settings") + 1])["permissions"]["deny"]
    mcp_config = arguments[arguments.index("--mcp-config") + 1]
    own = (mcp_config, tmp_path / "worker.json", tmp_path / "worker.state", tmp_path / ".pipedai")
    assert set(denied) == {f"{tool}(/{path})" for path in own for tool in ("Read", "Edit")}
    if rules:
        assert "Grep" not in arguments[arguments.index("--tools") + 1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_run_ends_and_nothing_stays(
    api: FakeApi, url: str, workers: Workers, tmp_path: Path, name: str
) -> None:
    script, status, sentence = PROGRAMS[name]
    program = fake_claude(tmp_path, script)[0] if script else str(tmp_path / "missing")
    run = api.add(mcp_url=f"{url}/mcp", timeout_seconds=3)
    workers.execute("run", "--config", "worker.json", "--claude", program)
    outcome = api.until_ended(run)
    assert (outcome["status"], outcome["faultClass"]) == (status, "infra")
    assert sentence in outcome["errorMessage"]
    assert workers.leftovers() == []
    left = subprocess.run(["pgrep", "-f", program], stdout=subprocess.PIPE, check=False)
    # A worker, which is a fork here, shows the arguments of the process that it was forked from.
    assert left.stdout == b""


@pytest.mark.parametrize("script", ["exec sleep 600", TALKING], ids=["hangs", "talks"])
def test_a_claude_that_does_not_begin_is_stopped_long_before_the_runs_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(watch, "START_SECONDS", 0.5)
    outcome = execute(tmp_path, "x", argv=fake_claude(tmp_path, script)).outcome
    assert (outcome.status, outcome.fault_class) == ("failed", "infra")
    assert "Claude did not begin within 0.5 s and was stopped." in outcome.error_message


@pytest.mark.parametrize(
    ("version", "passed"),
    [("2.1.197", True), ("2.2.0", True), ("2.1.9", False), ("1.9.999", False)],
)
def test_doctor_says_that_claude_is_too_old(tmp_path: Path, version: str, passed: bool) -> None:
    argv = fake_claude(tmp_path, f"echo '{version} (Claude Code)'")
    found = {each.name: each for each in doctor.check_claude(argv, Paying(None, None))}
    assert found["claude executes"].passed is passed
    assert (f"{version} (Claude Code) is older than 2.1.197" in str(found["claude executes"])) is (
        not passed
    )
