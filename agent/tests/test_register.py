"""`register` turns a token into a private file, and does not use it up in vain if it can avoid that."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from pipedai_worker import __version__, cli, commands
from pipedai_worker.conformance.fake_api import DROP, FakeApi
from pipedai_worker.disk import durable

from .conftest import Workers


def test_registering_writes_a_private_file(api: FakeApi, workers: Workers, url: str) -> None:
    token = api.registration_token
    worker = workers.execute(
        *("register", "--token", token, "--api-url", f"{url}/api/v1/", "--config", "new/w.json"),
        *("--hostname", "box", "--label", "The box", "--max-concurrency", "3"),
        AUTH_MODE="api-key",
    )
    assert worker.wait() == 0
    path = workers.directory / "new" / "w.json"
    written = json.loads(path.read_text())
    assert set(written) == {
        *("workerId", "workerToken", "apiUrl", "workspaceId", "isPool"),
        *("authMode", "environmentId"),
    }
    assert written["authMode"] == "api_key"
    assert (written["workerId"], written["apiUrl"]) == (api.worker_id, url)
    assert written["isPool"] is False
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    ((kind, _, body),) = api.calls
    assert kind == "register"
    assert body.pop("os")
    # What is wrong with the machine of the tests.
    assert isinstance(body.pop("problems"), list)
    assert body == {
        "token": token,
        "hostname": "box",
        "label": "The box",
        "version": __version__,
        "authMode": "api_key",
        "maxConcurrency": 3,
    }
    assert token not in worker.log
    assert api.worker_token not in worker.log
    assert worker.log == (
        f"Registered as worker {api.worker_id} at {url}.\n"
        f"Its token is in {path}, which only you can read.\n"
        f"Check this machine:  pipedai-worker doctor --config {path}\n"
        f"Start the worker:    pipedai-worker run --config {path}\n"
    )


def test_the_token_may_come_from_the_environment(api: FakeApi, workers: Workers, url: str) -> None:
    worker = workers.execute(
        *("register", "--api-url", url, "--config", "w.json"),
        # Files and stores of secrets often end in a line end.
        PIPEDAI_REGISTRATION_TOKEN=f"{api.registration_token}\n",
    )
    assert worker.wait() == 0


@pytest.mark.parametrize("approved", [False, True, None])
def test_it_says_when_an_admin_is_to_approve_it(
    api: FakeApi, workers: Workers, url: str, approved: bool | None
) -> None:
    answer: dict[str, object] = {
        "workerId": api.worker_id,
        "workerToken": api.worker_token,
        "workspaceId": str(uuid4()),
        "environmentId": str(uuid4()),
    }
    if approved is not None:
        answer["approved"] = approved
    api.fail("register", 201, body=answer)
    worker = workers.execute(
        *("register", "--token", api.registration_token, "--api-url", url, "--config", "w.json")
    )
    assert worker.wait() == 0
    assert worker.log.count("waits for approval by an admin") == (approved is False)


def test_a_used_token_is_said_to_be_refused(api: FakeApi, workers: Workers, url: str) -> None:
    token, api.registration_token = api.registration_token, "another"
    worker = workers.execute("register", "--token", token, "--api-url", url, "--config", "w.json")
    assert worker.wait() == 3
    assert "mint a new one" in worker.log
    assert token not in worker.log
    assert not (workers.directory / "w.json").exists()


def test_a_lost_answer_to_a_registration_is_not_asked_for_again(
    api: FakeApi, workers: Workers, url: str
) -> None:
    api.fail("register", DROP)
    worker = workers.execute(
        *("register", "--token", api.registration_token, "--api-url", url, "--config", "w.json")
    )
    assert worker.wait() == 1
    assert "The token may be used up" in worker.log
    assert api.count("register") == 1


def test_a_busy_api_is_asked_again_to_register(api: FakeApi, workers: Workers, url: str) -> None:
    api.fail("register", 429, headers={"Retry-After": "1"})
    worker = workers.execute(
        *("register", "--token", api.registration_token, "--api-url", url, "--config", "w.json")
    )
    assert worker.wait() == 0


def test_nothing_is_sent_when_the_file_could_not_be_written(
    api: FakeApi, workers: Workers, url: str
) -> None:
    (workers.directory / "file").touch()
    worker = workers.execute(
        *("register", "--token", api.registration_token, "--api-url", url),
        *("--config", "file/w.json"),
    )
    assert worker.wait() == 2
    assert "can't be written" in worker.log
    assert api.calls == []


def test_a_directory_in_place_of_the_file_costs_no_token(
    api: FakeApi, workers: Workers, url: str
) -> None:
    (workers.directory / "w.json").mkdir()
    worker = workers.execute(
        *("register", "--token", api.registration_token, "--api-url", url, "--config", "w.json")
    )
    assert worker.wait() == 2
    assert "w.json can't be written: Is a directory." in worker.log
    assert api.calls == []


@pytest.mark.parametrize("sent", [False, True])
def test_a_full_disk_is_found_before_the_token_is_used_or_said_with_what_was_done(
    api: FakeApi,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sent: bool,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "write_json" if sent else "try_writing", full)
    arguments = ["--token", api.registration_token, "--api-url", url]
    assert cli.main(["register", *arguments, "--config", str(tmp_path / "w.json")]) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert ("mint a new one" in said) is sent
    assert api.count("register") == int(sent)


def test_an_api_that_is_away_is_given_up_to_register_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "PATIENCE_SECONDS", 1.0)
    arguments = ["register", "--token", "x", "--api-url", "http://127.0.0.1:9"]
    assert cli.main([*arguments, "--config", str(tmp_path / "w.json")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "Connection refused. The token was not used: try again later." in said


def test_the_fields_that_the_api_objects_to_are_named(
    api: FakeApi, workers: Workers, url: str
) -> None:
    details = {"fieldErrors": {"label": ["Too odd."]}, "formErrors": []}
    api.fail("register", 400, body={"error": "Validation failed", "details": details})
    worker = workers.execute("register", "--token", "x", "--api-url", url, "--config", "w.json")
    assert worker.wait() == 1
    assert worker.log.endswith("Validation failed (label: Too odd.)\n")


@pytest.mark.parametrize("status", [404, 405])
def test_registering_where_there_is_no_such_endpoint_is_a_wrong_url(
    api: FakeApi, workers: Workers, url: str, status: int
) -> None:
    api.fail("register", status, body={"error": "Not found"})
    worker = workers.execute("register", "--token", "x", "--api-url", url, "--config", "w.json")
    assert worker.wait() == 4
    assert f"There is no PipedAI API at {url}: Not found." in worker.log
