"""`doctor` finds each thing that can be wrong, and says what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipedai_worker import cli
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.disk import durable

from .conftest import Workers

Break = Callable[[Workers, FakeApi, pytest.MonkeyPatch], tuple[str, ...]]


def no_configuration(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    workers.config_path.unlink()
    return ()


def open_configuration(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    workers.config_path.chmod(0o644)
    return ()


def no_api(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--api-url", "http://127.0.0.1:9")


def another_service(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    api.fail("health", 200, body="<html>Welcome</html>")
    return ()


def wrong_path(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    api.fail("health", 404, body={"error": "Not found"})
    return ()


def text_that_moves_the_cursor(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    api.fail("health", 404, body={"error": "\x1b[2J\npass  API reachable"})
    return ()


def clock_far_off(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    api.clock_ahead = timedelta(hours=-3)
    return ()


def no_place_to_write(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "try_writing", full)
    return ()


def dead_token(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    api.worker_token = "another"
    return ()


def anothers_token(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    api.worker_id = "another"
    return ()


def busy_api(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    api.fail("whoami", 503)
    return ()


def no_claude(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--claude", "no-such-program")


def broken_claude(
    workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    return ("--claude", "/bin/false")


def claude(workers: Workers) -> tuple[str, ...]:
    """Return the options for a program that has the version of a claude."""
    program = workers.directory / "claude"
    program.write_text("#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    program.chmod(0o700)
    return ("--claude", str(program))


def no_login(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.delenv("CLAUDE_CODE_OAUTH_TOKEN")
    return claude(workers)


def no_key(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--auth-mode", "api_key", *claude(workers))


def no_program(workers: Workers, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--command", "/no/such/program")


@pytest.mark.parametrize(
    ("breakage", "name"),
    [
        (no_configuration, "valid configuration"),
        (open_configuration, "file permissions"),
        (no_api, "API reachable"),
        (another_service, "API reachable"),
        (wrong_path, "API reachable"),
        (text_that_moves_the_cursor, "API reachable"),
        (clock_far_off, "clock"),
        (no_place_to_write, "state directory"),
        (dead_token, "worker token"),
        (anothers_token, "worker token"),
        (busy_api, "worker token"),
        (no_claude, "claude on PATH"),
        (broken_claude, "claude executes"),
        (no_login, "authentication"),
        (no_key, "authentication"),
        (no_program, "the program on PATH"),
    ],
)
def test_a_failure_is_found_and_comes_with_a_hint(
    api: FakeApi,
    workers: Workers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    breakage: Break,
    name: str,
) -> None:
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "x")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CONFIG_DIR", "AUTH_MODE"):
        monkeypatch.delenv(variable, raising=False)
    arguments = breakage(workers, api, monkeypatch)
    if not {"--claude", "--command"} & set(arguments):
        arguments = (*arguments, "--stand-in")
    assert cli.main(["doctor", "--config", str(workers.config_path), *arguments]) == 1
    lines = capsys.readouterr().out.splitlines()
    failures = [number for number, line in enumerate(lines) if line.startswith("FAIL")]
    assert [lines[number].split(": ")[0] for number in failures] == [f"FAIL  {name}"]
    assert all(lines[number + 1].startswith("      ") for number in failures)
    assert not any(api.worker_token in line for line in lines)
    assert all(map(str.isprintable, lines))
