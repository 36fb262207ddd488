"""The worker pays as its operator says, else as the API says, and says what it keeps from claude."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pipedai_worker import identity
from pipedai_worker.identity import Paying, WorkerConfig

WORKER = "5b8e7a52-9d0b-4a0e-8c43-0a1f6a9f3f10"


def test_the_operators_word_goes_before_the_apis() -> None:
    assert (Paying(None).mode, Paying(None).why) == (
        "claude_max",
        "by default, until the API says",
    )
    assert (Paying(None, "api_key").mode, Paying(None, "api_key").why) == (
        "api_key",
        "as the API says",
    )
    chosen = Paying("claude_max", "api_key")
    assert (chosen.mode, chosen.why) == ("claude_max", "by --auth-mode or AUTH_MODE")


def test_a_new_word_of_the_api_holds_at_once_and_is_remembered() -> None:
    remembered: list[str] = []
    paying = Paying(None, None, remembered.append)
    for told in (None, "nonsense", "api_key", "api_key"):
        paying.learn(told)
    assert (paying.mode, remembered) == ("api_key", ["api_key"])


def test_it_says_what_it_keeps_from_claude_and_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-1")
    (kept,) = Paying(None).complaints()
    assert kept.startswith("ANTHROPIC_API_KEY is kept from claude")
    assert "sk-1" not in kept
    assert Paying("api_key").complaints() == []
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    (lacking,) = Paying("api_key").complaints()
    assert "neither ANTHROPIC_API_KEY nor ANTHROPIC_AUTH_TOKEN is set" in lacking


def test_the_registration_keeps_the_word_beside_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "worker.json"
    WorkerConfig(WORKER, "wkt_x", "https://a.example", "w").save(path)
    assert WorkerConfig.load(path).auth_mode is None
    content = {**json.loads(path.read_text()), "maxConcurrency": 3, "ofALaterVersion": [1]}
    path.write_text(json.dumps(content))
    identity.remember_auth_mode(path, "api_key")
    assert json.loads(path.read_text()) == {**content, "authMode": "api_key"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert WorkerConfig.load(path).auth_mode == "api_key"
