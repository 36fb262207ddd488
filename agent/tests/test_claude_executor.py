"""The claude executor derives the right outcome from every event stream and every end of claude."""

from __future__ import annotations

import json
import os
import resource
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipedai_worker import standin
from pipedai_worker.commands import STAND_IN
from pipedai_worker.disk.journal import end_marked
from pipedai_worker.disk.sessions import session_of
from pipedai_worker.executors import claude, watch
from pipedai_worker.executors.base import Execution
from pipedai_worker.executors.claude import ClaudeExecutor
from pipedai_worker.running.stopping import StopReason

from .conftest import alive, until
from .jobs import CLAIM_ID, MCP_URL, StopOnce, make_job


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    end_marked(CLAIM_ID)


def execute(
    directory: Path, prompt: str, *, argv: list[str] = STAND_IN, silence: float = 0, **job: Any
) -> Execution:
    executor = ClaudeExecutor(argv, auth_mode=lambda: "claude_max", silence_seconds=silence)
    return executor.execute(make_job(directory, prompt, **job))


def execute_and_stop(directory: Path, prompt: str, stop: StopOnce) -> Execution:
    return execute(directory, prompt, on_event=stop.take, should_stop=stop.should_stop)


def fake_claude(directory: Path, script: str) -> list[str]:
    path = directory / "claude"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return [str(path)]


@pytest.mark.parametrize(
    ("line", "fault_class", "exit_code", "sentence"),
    [
        ("max-turns", "client", 1, "limit of turns"),
        ("max-budget", "client", 1, "budget"),
        ("execution-error", "infra", 1, "while it was at work"),
        ("api-error 400", "client", 1, "answered 400 (invalid_request_error)"),
        ("api-error 404", "client", 1, "answered 404"),
        ("api-error 500", "infra", 1, "answered 500 (api_error)"),
        ("api-error 529", "infra", 1, "answered 529 (overloaded_error)"),
        ("auth-error", "client", 1, "API failed: authentication_failed"),
        ("api-error 429", "infra", 1, "usage limit is reached"),
        ("rate-limit", "infra", 1, "usage limit is reached"),
        ("crash 7", "infra", 7, "exited with code 7 without a result"),
        ("no-result", "infra", 0, "exited with code 0 without a result"),
        ("no-such-line", "infra", 2, "exited with code 2 without a result"),
    ],
)
def test_failures_are_judged_by_structured_signals(
    tmp_path: Path, line: str, fault_class: str, exit_code: int, sentence: str
) -> None:
    execution = execute(tmp_path, f"overloaded 529 rate limit\nstandin: {line}")
    outcome = execution.outcome
    assert execution.stopped_by is None
    assert (outcome.status, outcome.fault_class) == ("failed", fault_class)
    assert outcome.exit_code == exit_code
    assert sentence in outcome.error_message
    assert sentence in outcome.short_message
    assert outcome.session_id


def test_success_tells_everything_that_the_result_knows(tmp_path: Path) -> None:
    body = execute(tmp_path, "standin: success It is done.", model="opus").outcome.body()
    session_id = body.pop("sessionId")
    assert len(session_id) == 36
    assert body == {
        "status": "succeeded",
        "faultClass": "none",
        "exitCode": 0,
        "shortMessage": "It is done.",
        "inputTokens": 12,
        "outputTokens": 34,
        "cacheReadTokens": 56,
        "cacheCreationTokens": 78,
        "costUsd": "0.012300",
        "numTurns": 1,
        "model": "opus",
    }


def test_a_used_up_limit_says_when_to_come_back(tmp_path: Path) -> None:
    outcome = execute(tmp_path, "standin: rate-limit 600").outcome
    assert 540 <= outcome.body()["retryAfterSeconds"] <= 600
    assert "It is lifted at 20" in outcome.error_message


def test_noise_around_the_events_is_ignored(tmp_path: Path) -> None:
    outcome = execute(tmp_path, "standin: noise\nstandin: success fine").outcome
    assert (outcome.status, outcome.short_message) == ("succeeded", "fine")
    assert outcome.retry_after_seconds is None


def test_the_results_of_several_turns_are_added_up(tmp_path: Path) -> None:
    body = execute(tmp_path, "standin: two-turns").outcome.body()
    assert body["shortMessage"] == "second turn"
    assert body["numTurns"] == 3
    assert body["outputTokens"] == 102
    assert body["costUsd"] == "0.036900"  # cumulative already


def test_a_result_stands_when_claude_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LINGER_SECONDS", 0.3)
    execution = execute(tmp_path, "standin: linger")
    assert execution.stopped_by is None
    assert execution.outcome.status == "succeeded"


@pytest.mark.parametrize("reason", [StopReason.CANCELED, StopReason.TIMED_OUT, StopReason.SHUTDOWN])
def test_a_result_that_came_before_the_stop_stands(tmp_path: Path, reason: StopReason) -> None:
    execution = execute_and_stop(tmp_path, "standin: linger", StopOnce("result", reason))
    assert (execution.outcome.status, execution.stopped_by) == ("succeeded", None)


def test_a_lost_run_stays_lost_even_with_a_result(tmp_path: Path) -> None:
    stop = StopOnce("result", StopReason.LOST)
    execution = execute_and_stop(tmp_path, "standin: linger", stop)
    assert execution.stopped_by is StopReason.LOST


def test_a_stop_before_the_result_tells_what_was_used_so_far(tmp_path: Path) -> None:
    stop = StopOnce("assistant", StopReason.CANCELED, times=2)
    execution = execute_and_stop(
        tmp_path, "standin: say one\nstandin: say two\nstandin: hang", stop
    )
    assert execution.stopped_by is StopReason.CANCELED
    assert execution.outcome.tokens is not None
    assert execution.outcome.tokens.output == 68
    assert execution.outcome.error_message == ""


def test_claude_is_asked_for_a_result_first_which_decides_nothing(tmp_path: Path) -> None:
    stop = StopOnce("assistant", StopReason.TIMED_OUT)
    execution = execute_and_stop(tmp_path, "standin: say one\nstandin: hang", stop)
    assert execution.stopped_by is StopReason.TIMED_OUT
    assert execution.outcome.cost_usd == 0.0123
    assert execution.outcome.fault_class == "client"


def test_claude_that_ignores_the_first_requests_is_killed(tmp_path: Path) -> None:
    stop = StopOnce("assistant", StopReason.CANCELED)
    execution = execute_and_stop(tmp_path, "standin: ignore-term\nstandin: hang", stop)
    assert execution.stopped_by is StopReason.CANCELED
    assert execution.outcome.exit_code == 137


def events(*lines: str) -> str:
    return "\n".join(f"echo '{line}'" for line in lines)


RETRY = '{"type": "system", "subtype": "api_retry", "attempt": 1}'
RESULT = (
    '{"type": "result", "subtype": "success", "is_error": false, "num_turns": 1, "result": "R"}'
)
TASKS = '{"type": "system", "subtype": "background_tasks_changed", "tasks": [%s]}'


def test_a_time_out_while_the_models_api_fails_is_the_machines_fault(tmp_path: Path) -> None:
    argv = fake_claude(tmp_path, events(RETRY) + "\nexec sleep 60")
    stop = StopOnce("system", StopReason.TIMED_OUT)
    execution = execute(tmp_path, "x", argv=argv, on_event=stop.take, should_stop=stop.should_stop)
    assert (execution.stopped_by, execution.outcome.fault_class) == (StopReason.TIMED_OUT, "infra")


def test_work_in_the_background_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LINGER_SECONDS", 0.1)
    second = RESULT.replace('"R"', '"S"')
    script = "\n".join(
        (events(TASKS % "1", RESULT), "sleep 0.6", events(TASKS % "", second), "exit 0")
    )
    execution = execute(tmp_path, "x", argv=fake_claude(tmp_path, script), silence=0.2)
    assert (execution.outcome.status, execution.outcome.short_message) == ("succeeded", "S")


def test_a_time_out_of_work_in_the_background_is_a_time_out(tmp_path: Path) -> None:
    argv = fake_claude(tmp_path, events(TASKS % "1", RESULT) + "\nexec sleep 60")
    stop = StopOnce("result", StopReason.TIMED_OUT)
    execution = execute(tmp_path, "x", argv=argv, on_event=stop.take, should_stop=stop.should_stop)
    assert execution.stopped_by is StopReason.TIMED_OUT


def test_claude_is_stopped_at_once_without_its_server(tmp_path: Path) -> None:
    servers = '[{"name": "trigger", "status": "failed"}]'
    event = f'{{"type": "system", "subtype": "init", "mcp_servers": {servers}}}'
    argv = fake_claude(tmp_path, events(event) + "\nexec sleep 60")
    outcome = execute(tmp_path, "x", argv=argv).outcome
    assert (outcome.status, outcome.fault_class) == ("failed", "infra")
    assert "not connected to the run's MCP server (failed)" in outcome.error_message


def test_a_success_without_its_server_is_none(tmp_path: Path) -> None:
    servers = '[{"name": "trigger", "status": "pending"}]'
    event = f'{{"type": "system", "subtype": "init", "mcp_servers": {servers}}}'
    argv = fake_claude(tmp_path, events(event, RESULT))
    outcome = execute(tmp_path, "x", argv=argv).outcome
    assert (outcome.status, outcome.fault_class) == ("failed", "infra")


def test_a_white_prompt_is_the_clients_fault(tmp_path: Path) -> None:
    outcome = execute(tmp_path, " \n ").outcome
    assert (outcome.status, outcome.fault_class) == ("failed", "client")
    assert outcome.error_message == "The prompt is empty or only white space."


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("line", "status", "sentence"),
    [
        ('output {"n": 5}', "succeeded", ""),
        ('output {"n": "x"}', "failed", "At /n, the output does not fit its schema"),
        ("success done", "failed", "There is no output"),
    ],
)
def test_a_run_succeeds_only_with_an_output_that_fits(
    tmp_path: Path, line: str, status: str, sentence: str
) -> None:
    outcome = execute(tmp_path, f"standin: {line}", output_schema=SCHEMA).outcome
    assert (outcome.status, outcome.fault_class == "client") == (status, status == "failed")
    assert sentence in outcome.error_message
    assert outcome.body().get("output") == ({"n": 5} if status == "succeeded" else None)
    assert outcome.cost_usd == 0.0123


def test_silence_is_the_machines_fault(tmp_path: Path) -> None:
    execution = execute(tmp_path, "standin: hang", silence=0.6)
    assert execution.stopped_by is None
    assert (execution.outcome.status, execution.outcome.fault_class) == ("failed", "infra")
    assert "silent for 0.6 s" in execution.outcome.error_message


def test_being_killed_by_a_signal_is_told(tmp_path: Path) -> None:
    outcome = execute(tmp_path, "x", argv=fake_claude(tmp_path, "kill -SEGV $$")).outcome
    assert outcome.exit_code == 139
    assert "was ended by SIGSEGV without a result" in outcome.error_message
    assert outcome.fault_class == "infra"


def test_a_program_that_is_not_there_is_the_machines_fault(tmp_path: Path) -> None:
    outcome = execute(tmp_path, "x", argv=["/no/such/claude"]).outcome
    assert (outcome.status, outcome.fault_class, outcome.exit_code) == ("failed", "infra", None)
    assert "could not be launched" in outcome.error_message


def test_a_huge_event_and_a_huge_result_do_not_fill_the_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = execute(tmp_path, "standin: big-line 50\nstandin: big-result 20").outcome
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert outcome.status == "succeeded"
    assert outcome.body()["costUsd"] == "0.012300"
    assert len(outcome.body()["shortMessage"]) == 500
    assert grown < 60 * 1024  # KiB


def test_the_command_line_holds_no_secret_and_no_prompt(tmp_path: Path) -> None:
    argv = fake_claude(
        tmp_path, 'printf "%s\\n" "$@" > ../argv; cat > ../stdin; cat "$3" > ../mcp; exit 0'
    )
    execute(
        tmp_path,
        "The prompt.",
        argv=argv,
        model="opus",
        payload={"n": 1},
        mcp_headers={"x-api-key": "the-secret"},
    )
    arguments = (tmp_path / "argv").read_text().splitlines()
    assert arguments == [
        *("-p", "--mcp-config", str(tmp_path / "mcp.json"), "--strict-mcp-config"),
        *("--output-format", "stream-json", "--verbose"),
        *("--allowedTools", "mcp__trigger"),
        *claude.limiting_options(None, tmp_path / "mcp.json"),
        "--no-session-persistence",
        *("--session-id", session_of(CLAIM_ID), "--model", "opus"),
    ]
    assert (tmp_path / "stdin").read_text().startswith("\nThe prompt.\n")
    assert '{"n": 1}' in (tmp_path / "stdin").read_text()
    assert json.loads((tmp_path / "mcp").read_text()) == {
        "mcpServers": {
            "trigger": {
                "type": "http",
                "url": MCP_URL,
                "alwaysLoad": True,
                "timeout": 60_000,
            }
        }
    }
    assert stat.S_IMODE((tmp_path / "mcp.json").stat().st_mode) == 0o600


def test_a_denied_path_has_no_character_that_claude_takes_for_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    options = claude.limiting_options(None, tmp_path / "link", [Path("/x (y)[z]*\\")])
    rules = json.loads(options[options.index("--settings") + 1])["permissions"]["deny"]
    assert rules[::2] == [
        f"Read(/{tmp_path}/link)",
        f"Read(/{tmp_path}/a)",
        r"Read(//x \(y\)\\[z\\]\\*\\\\)",
    ]
    assert rules[1::2] == [f"Edit{rule[4:]}" for rule in rules[::2]]


def test_a_models_name_cannot_be_an_option(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    argv = fake_claude(tmp_path, f"touch {touched}")
    outcome = execute(tmp_path, "x", argv=argv, model="--dangerously-skip-permissions").outcome
    assert (outcome.status, outcome.fault_class) == ("failed", "client")
    assert not touched.exists()


def test_a_secret_on_stderr_is_redacted_though_it_came_in_two_pieces(tmp_path: Path) -> None:
    secret = "long-secret-" * 40
    argv = fake_claude(
        tmp_path, f"printf {secret[:99]} >&2; sleep 0.1; printf {secret[99:]} >&2; exit 1"
    )
    outcome = execute(
        tmp_path, "x", argv=argv, mcp_headers={"Authorization": f"Bearer {secret}"}
    ).outcome
    assert "long-secret" not in outcome.error_message
    assert "[redacted]" in outcome.error_message


def test_programs_that_left_the_group_are_found_by_their_mark(tmp_path: Path) -> None:
    argv = fake_claude(tmp_path, "setsid sleep 300 & echo $! > ../pid")
    execute(tmp_path, "x", argv=argv)
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    end_marked(CLAIM_ID)
    until(lambda: not alive(pid))


def test_a_program_that_left_something_holding_its_output_is_not_waited_for(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    argv = fake_claude(tmp_path, "setsid sleep 300 & exit 0")
    execution = execute(tmp_path, "x", argv=argv)
    assert time.monotonic() - began < 120
    assert execution.outcome.exit_code == 0


def test_the_stand_in_runs_by_its_path() -> None:
    assert os.access(standin.__file__, os.X_OK)
    assert Path(standin.__file__).read_text().startswith("#!/usr/bin/env python3\n")
