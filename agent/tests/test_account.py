"""Workers on one account tell the same word in one environment, and nobody learns whose account it is."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from pipedai_worker.api import ACCOUNT_HEADER, Unavailable
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.executors import base
from pipedai_worker.executors.claude import (
    Account,
    ClaudeExecutor,
    account_identity,
    account_word,
)
from pipedai_worker.identity import EVERY_CREDENTIAL

from .conftest import Workers, until

LOGIN = {"accountUuid": "a-1", "organizationUuid": "o-1", "emailAddress": "ada@example.com"}


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*EVERY_CREDENTIAL, "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def log_in(home: Path, **changes: str) -> None:
    (home / ".claude.json").write_text(json.dumps({"oauthAccount": {**LOGIN, **changes}}))


def test_an_account_is_known_by_its_login_or_by_what_claude_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert account_identity("claude_max") is None
    log_in(tmp_path)
    login = account_identity("claude_max")
    assert login is not None
    # Another machine's login is the same account; another organization has other limits.
    log_in(tmp_path, emailAddress="changed@example.com")
    assert account_identity("claude_max") == login
    log_in(tmp_path, organizationUuid="o-2")
    assert account_identity("claude_max") not in {login, None}
    assert account_identity("api_key") is None
    for mode, variable in (
        ("claude_max", "CLAUDE_CODE_OAUTH_TOKEN"),
        ("api_key", "ANTHROPIC_API_KEY"),
    ):
        monkeypatch.setenv(variable, "secret")
        assert account_identity(mode) not in {login, None}
    (tmp_path / ".claude.json").write_text("no JSON")
    monkeypatch.delenv("CLAUDE_CODE_OAUTH_TOKEN")
    assert account_identity("claude_max") is None


def test_a_word_tells_environments_apart_and_nothing_else() -> None:
    one = account_word("environment-1", "login a-1 o-1")
    assert len(one) == 64
    assert one == account_word("environment-1", "login a-1 o-1")
    assert (
        len(
            {
                one,
                account_word("environment-2", "login a-1 o-1"),
                account_word("environment-1", "x"),
            }
        )
        == 3
    )
    assert "a-1" not in one


def test_the_environment_is_asked_for_until_the_api_has_told_it(tmp_path: Path) -> None:
    log_in(tmp_path)
    answers: list[object] = [Unavailable("away"), "environment-1"]

    def ask() -> str | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    known = Account(lambda: "claude_max", None, ask)
    assert known.word() is None
    known._look_at = 0
    assert known.word() == account_word("environment-1", "login a-1 o-1")
    assert answers == []


def test_each_poll_tells_the_word_and_no_log_does(api: FakeApi, workers: Workers) -> None:
    log_in(workers.directory)
    expected = account_word(api.environment_id, account_identity("claude_max") or "")
    stand_in = workers.execute("run", "--config", "worker.json", "--stand-in")
    api.until(lambda: api.count("claim-next"))
    assert stand_in.stop() == 0
    assert not any(ACCOUNT_HEADER in each for each in api.headers)
    worker = workers.execute("run", "--config", "worker.json", "--claude", "no-such-claude")
    until(lambda: [each for each in api.headers if each.get(ACCOUNT_HEADER) == expected])
    assert api.count("whoami") == 1
    assert worker.stop() == 0
    assert expected not in worker.log
    assert "a-1" not in worker.log


@pytest.mark.parametrize("name", [".claude.json", "sessions/1.json", "output.json"])
def test_a_pipe_in_place_of_a_file_is_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "sessions").mkdir()
    os.mkfifo(tmp_path / name)
    executor = ClaudeExecutor(["claude"], auth_mode=lambda: "claude_max", silence_seconds=0)
    found: list[object] = []

    def look() -> None:
        found.append(account_identity("claude_max"))
        executor.clean_up("session", tmp_path / "work", 1)
        found.append(base._read_output(tmp_path / "output.json"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(10)
    assert len(found) == 2
