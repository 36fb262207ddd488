"""Signing in on the service's page, and waiting for runs that a real worker executes."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from testing.processes.terminal import pipedai
from testing.processes.worker_process import register, until, working
from testing.world.cast import TEST_ACTOR, session_cookie
from tests.gateway.servers import raw_server

from audit.models import AuditEntry
from cli_tests.test_hostile_service import answers
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.env import BASE_DIR
from pipedai_cli import api
from pipedai_cli.commands import account
from triggers.models import Run
from workspaces.api_keys import revoke_api_key
from workspaces.models import ApiKey


@contextmanager
def started(*args, home, **variables):
    """Runs a command in a process of its own, whose output is in `home`/out and `home`/err."""
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(BASE_DIR / "cli"),
        **variables,
    }
    with (home / "out").open("w") as out, (home / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "pipedai_cli", *args],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def approve(server, user, code, **chosen):
    """Does on the page what a person in a browser does."""
    headers = {"Origin": server.url}
    cookies = {AUTH_COOKIE: session_cookie(user)}
    with httpx.Client(base_url=server.url, headers=headers, cookies=cookies, timeout=60) as browser:
        page = browser.post("/console/pair", data={"userCode": code}).text
        assert "acts for you" in page
        answer = browser.post("/console/pair", data={"userCode": code, **chosen})
        assert answer.status_code == 200


def test_login_gives_a_key_that_works_until_it_is_revoked(server, committed_cast, tmp_path):
    cast = committed_cast
    with started("login", "--url", server.url, "--no-browser", home=tmp_path) as process:
        err = tmp_path / "err"
        code = until(lambda: re.search(r"type the code (\S+)\.", err.read_text()))[1]
        place = {"environmentId": str(cast.environment.id)}
        approve(server, cast.operator, code, step="approve", role="operator", **place)
        assert process.wait(60) == 0, err.read_text()
    assert "You are operator of" in (tmp_path / "out").read_text()
    kept = tmp_path / ".config" / "pipedai" / "keys.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    shown = pipedai("whoami", home=tmp_path)
    assert "operator" in shown.out
    assert pipedai("trigger", "list", home=tmp_path).code == 0
    key = ApiKey.objects.get(is_login=True)
    revoke_api_key(environment_id=cast.environment.id, key_id=key.id, actor=TEST_ACTOR)
    ended = pipedai("whoami", home=tmp_path)
    assert (ended.code, "Sign in anew with `pipedai login`." in ended.err) == (4, True)

    # Another profile is of the same service, unless it says another one.
    with started("--profile", "mcp", "login", "--no-browser", home=tmp_path) as process:
        code = until(lambda: re.search(r"type the code (\S+)\.", err.read_text()))[1]
        approve(server, cast.operator, code, step="deny")
        assert process.wait(60) == 4
    assert "denied" in err.read_text()
    assert pipedai("logout", home=tmp_path).code == 0
    assert pipedai("whoami", home=tmp_path).code == 2
    assert "pwk_" not in (tmp_path / "out").read_text() + err.read_text() + kept.read_text()


def test_a_login_goes_on_after_an_answer_that_did_not_come():
    ends = iter(
        [
            api.Failure(api.Exit.UNREACHABLE, "The service restarts."),
            api.Refused("throttled", "Too many requests."),
            api.Refused("authorization_pending", "authorization_pending"),
        ]
    )

    class Service(api.Api):
        def post(self, path, body=None, **options):
            if ended := next(ends, None):
                raise ended
            return {"token": "pwk_x"}

    begun = {"interval": 0, "deviceCode": "x"}
    assert account._wait_for_key(Service("https://x.example"), begun) == {"token": "pwk_x"}


def test_wait_and_follow_end_with_the_run(server, committed_cast, tmp_path):
    """A real worker executes three runs with the stand-in for claude: one server and one worker for all."""
    cast = committed_cast
    machine = tmp_path / "machine"
    machine.mkdir()
    worker_id = register(machine, server.url, cast.mint("wrk"), max_concurrency=3)
    told = {"worker_id": worker_id, "record_events": "always", "max_retries": 0}
    cast.add_trigger(name="good", prompt="standin: say Look here.\n", **told)
    cast.add_trigger(name="bad", prompt="standin: max-turns.\n", **told)
    key = cast.mint("pwk", role="operator")
    signed_in = {"PIPEDAI_URL": server.url, "PIPEDAI_KEY": key}
    shell = {"home": tmp_path, "url": server.url, "key": key}

    queued = json.loads(pipedai("trigger", "run", "good", "--json", **shell).out)
    following = started("run", "logs", queued["id"], "--follow", home=tmp_path, **signed_in)
    with following as process, working(machine, "--stand-in"):
        assert process.wait(60) == 0, (tmp_path / "err").read_text()
        assert "Look here." in (tmp_path / "out").read_text()

        ended = pipedai("trigger", "run", "good", "--wait", **shell)
        assert ended.code == 0, ended
        assert "Look here." in ended.out
        assert "succeeded" in ended.out

        ended = pipedai("trigger", "run", "bad", "--wait", "--json", **shell)
        run = json.loads(ended.out)
        assert (ended.code, run["status"]) == (1, "failed")
        assert f"`pipedai run explain {run['id']}`" in ended.err
    forced = json.loads(pipedai("trigger", "run", "good", "--force", "--json", **shell).out)
    rerun = json.loads(pipedai("run", "rerun", run["id"], "--force", "--json", **shell).out)
    entries = AuditEntry.objects.filter(target_id__in=[forced["id"], rerun["id"]])
    assert [entry.metadata.get("force") for entry in entries] == [True, True]
    explained = pipedai("run", "explain", run["id"], **shell)
    said = json.loads(pipedai("run", "explain", run["id"], "--json", **shell).out)
    assert said["summary"] in explained.out
    assert said["ended"]["message"] in explained.out
    assert Run.objects.filter(trigger__name__in=["good", "bad"]).count() == 5


_EMPTY = ("faultClass", "errorMessage", "shortMessage", "endedAt", "durationMs", "costUsd")
ROW: dict[str, Any] = {
    **dict.fromkeys(_EMPTY),
    **dict.fromkeys(("id", "environmentId"), "r"),
    **dict.fromkeys(("name", "triggerName"), "t"),
    "queuedAt": "2026-11-29T12:00:00Z",
    "willRetry": False,
}


def row_of(status):
    row = {**ROW, "status": status}
    return json.dumps({**row, "items": [row]}).encode()


@pytest.mark.parametrize(
    "command", [["trigger", "run", "t", "--wait"], ["run", "rerun", "r", "--wait"]]
)
def test_a_run_that_waits_for_a_person_exits_with_5(tmp_path, command):
    with raw_server(answers(row_of("waiting"))) as url:
        ended = pipedai(*command, home=tmp_path, url=url.removesuffix("/mcp"), key="pwk_x")
    assert (ended.code, "/console/runs/r" in ended.err) == (5, True)


def test_wait_goes_on_after_a_break_and_ends_with_the_run_and_not_with_its_stream(tmp_path):
    streams: list[bytes] = []

    def talk(connection):
        while request := connection.recv(65536):
            if b" HTTP/1.1\r\n" not in request:
                continue  # It is the body of the request before, which may come by itself.
            kind, status = "application/json", "succeeded" if len(streams) == 2 else "running"
            body = row_of(status)
            length = len(body)
            if b"/events/stream" in request:
                streams.append(request.lower())
                # More seems to follow: the first stream breaks off, and the second stays open for late events.
                kind, length = "text/event-stream", 99_999
                body = b'data: {"seq": 7, "type": "text", "text": "Look here."}\n\n'
                if len(streams) == 2:
                    body = b'event: status\ndata: {"status": "succeeded"}\n\n'
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode() + body)
            if len(streams) == 1 and kind != "application/json":
                return

    with raw_server(talk) as url:
        at = {"home": tmp_path, "url": url.removesuffix("/mcp"), "key": "pwk_x"}
        ended = pipedai("run", "rerun", "r", "--wait", **at)
    assert (ended.code, ended.out.count("Look here.")) == (0, 1), ended
    assert ["last-event-id: 7" in each.decode() for each in streams] == [False, True]
