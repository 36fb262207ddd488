"""bin/run as a newcomer sees it: it shows a run, and leaves nothing behind when it ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing

import httpx
import pytest

from bin.suite import copy_cluster, new_data_dir
from bin.tests.scripts import alive, eventually, read_until, started
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.version import VERSION
from pipedai_worker import standin
from testing.processes.scripted_model import real_claude, scripted_model
from testing.processes.web_process import free_port

pytestmark = pytest.mark.long

UP = f"PipedAI {VERSION} is up"
# What bin/setup says on a fresh clone: that it installs Debian's package of `venv`, makes .venv, and installs packages.
SETUP_LINES = 3
# The last line of the block that bin/run ends with.
LAST = "    -H 'Authorization: Bearer "


@pytest.fixture
def data_dir():
    data_dir = new_data_dir()
    yield data_dir
    EmbeddedPostgres(data_dir).stop()
    shutil.rmtree(data_dir)


@pytest.fixture
def used_data_dir(data_dir, kept_cluster):
    """Makes a data directory that has the cluster of an earlier bin/run."""
    copy_cluster(kept_cluster, data_dir)
    return data_dir


@pytest.fixture
def bin_run(data_dir):
    """Starts bin/run with this data directory, on a free port, with an embedded database."""

    def bin_run(*arguments, **environment):
        return started(
            "-m",
            "bin.starting",
            *arguments,
            mark=str(data_dir),
            **{
                "DATABASE_URL": "",
                "PIPEDAI_DATA_DIR": str(data_dir),
                "PORT": str(free_port()),
                **environment,
            },
        )

    return bin_run


def nothing_runs(data_dir):
    return eventually(
        lambda: alive(str(data_dir)) == [] and not EmbeddedPostgres(data_dir).status().running
    )


def test_a_newcomer_sees_a_run_succeed_and_can_log_in_and_finds_it_all_again(
    bin_run, data_dir, tmp_path
):
    port = str(free_port())
    with bin_run(PORT=port) as process:
        said = all_of_the_block(process)
        assert said.count("\n") < 40 - SETUP_LINES
        assert "request" not in said
        states = re.findall(r"^  (queued|claimed|running|succeeded) ", said, re.MULTILINE)
        assert states == ["queued", "claimed", "running", "succeeded"]
        assert "model stand-in-1, 24 tokens in, 68 tokens out, cost $0.0246, tool calls 1, " in said
        assert 'output {"greeting": "scripted"}' in said
        site = f"http://localhost:{port}"
        api = f"{site}/api/v1"
        assert UP in said
        for path in "/console/", "/api/v1", "/api/docs", "/admin/":
            assert re.search(rf"^  [A-Z].* {re.escape(site + path)}$", said, re.MULTILINE)
            assert httpx.get(site + path, follow_redirects=True).status_code == 200

        seeded = json.loads((data_dir / "demo.json").read_text())
        login = {"email": seeded["email"], "password": seeded["password"]}
        assert re.search(
            rf"^  Sign in .* {login['email']}  {login['password']}$", said, re.MULTILINE
        )
        assert f"{seeded['staffEmail']}  {seeded['staffPassword']}\n" in said
        pasted(said)
        assert f"  Logs           {data_dir}/log/*.log\n" in said
        assert "path=/api/v1/auth/login" in (data_dir / "log" / "web.log").read_text()
        assert "succeeded" in (data_dir / "log" / "worker.log").read_text()
        assert "scheduler.started" in (data_dir / "log" / "scheduler.log").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert nothing_runs(data_dir)

    # The second time the demo is executed by the claude on the PATH, as asked for. A stand-in plays it.
    claude = tmp_path / "claude"
    claude.write_text(
        f'#!/bin/sh\nexec {sys.executable} {standin.__file__} --model asked-for "$@"\n'
    )
    claude.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    with bin_run("--claude", PATH=path, PORT=port) as process:
        assert "model asked-for, " in all_of_the_block(process)
        key = {"Authorization": f"Bearer {seeded['apiKey']}"}
        runs = f"{api}/environments/{seeded['environmentId']}/runs"
        kept = httpx.get(runs, headers=key).json()["items"]
        # The runs of the demo's week are older.
        assert [run["status"] for run in kept[:3]] == ["succeeded"] * 3
        process.kill()
        process.wait()
    assert nothing_runs(data_dir)


def all_of_the_block(process):
    """Returns the output up to and with the block's last line, that of the third command."""
    said = read_until(process, UP)
    for _ in range(2):
        said += read_until(process, LAST)
    return said


def pasted(said):
    """Pastes the block's three commands into a shell, and checks that each does what the block says."""
    _, _, commands = said.partition("fire its trigger once more:\n")
    calls = re.split(r"^  (?=curl )", commands, flags=re.MULTILINE)[1:]
    assert len(calls) == 3
    answers = [
        subprocess.run(["sh", "-c", call], capture_output=True, text=True, check=True, timeout=30)
        for call in calls
    ]
    assert answers[0].stdout.startswith("HTTP/1.1 200 ")
    assert "auth_token=" in answers[0].stdout
    assert json.loads(answers[1].stdout)["items"][0]["status"] == "succeeded"
    fired = json.loads(answers[2].stdout)
    assert fired["status"] == "queued"
    api, key = re.findall(
        r"(http\S+/api/v1)/environments.*'Authorization: (Bearer \w+)'", calls[1], re.DOTALL
    )[0]
    run = f"{api}/runs/{fired['id']}"
    headers = {"Authorization": key}
    assert eventually(lambda: httpx.get(run, headers=headers).json()["status"] == "succeeded")


def test_without_the_demo_there_is_the_service_alone_and_verbose_shows_all_that_it_does(
    bin_run, used_data_dir
):
    data_dir, port = used_data_dir, str(free_port())
    with bin_run("--no-demo", "--verbose", PORT=port) as process:
        said = read_until(process, "manage.py create_staff EMAIL --generate")
        assert UP in said
        command = f"PIPEDAI_DATA_DIR={data_dir} PORT={port} .venv/bin/python manage.py"
        assert f"  Commands       {command} help\n" in said
        assert f"`{command} create_staff EMAIL --generate`" in said
        assert "web started (pid=" in said
        # The scheduler may start before or after the web process answers.
        job = "[pipedai.loop] job=add-audit-partitions"
        assert job in said or read_until(process, job)
        httpx.get(f"http://localhost:{port}/api/v1")
        assert "web       | " in read_until(process, "path=/api/v1 ")
        assert "path=/api/v1 " in (data_dir / "log" / "web.log").read_text()
        assert not (data_dir / "demo.json").exists()
        assert not (data_dir / "log" / "worker.log").exists()

        with bin_run("--no-demo") as second:
            assert "set PIPEDAI_DATA_DIR and PORT" in second.communicate(timeout=60)[0]
            assert second.returncode == 1

        process.terminate()
        assert process.wait(timeout=60) == 143
    assert nothing_runs(data_dir)


def test_a_database_that_ran_before_is_used_and_left_running(bin_run, used_data_dir, tmp_path):
    server = EmbeddedPostgres(used_data_dir)
    server.ensure_running()
    elsewhere = {"DATABASE_URL": server.url(), "PIPEDAI_DATA_DIR": str(tmp_path / "data")}
    for environment in {}, elsewhere:
        with bin_run("--no-demo", **environment) as process:
            read_until(process, UP)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        assert server.status().running
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_taken_port_is_one_sentence_before_anything_starts(bin_run, data_dir):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with bin_run(PORT=str(port)) as process:
            said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert said == f"Port {port} of 127.0.0.1 is already in use: set PORT to another.\n"
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PORT": "http"}, "PORT must be a whole number."),
        ({"WEB_CONCURRENCY": "many"}, "WEB_CONCURRENCY must be a whole number."),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL must be a URL such as postgres://"),
        ({"PIPEDAI_ENV": "production"}, "Production has no demo"),
        ({"DATABASE_URL": "postgres://x@127.0.0.1:1/x"}, "DATABASE_URL names no database"),
    ],
)
def test_settings_that_do_not_work_are_one_sentence(bin_run, environment, words):
    with bin_run(**environment) as process:
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert words in said
    assert "Traceback" not in said


def test_the_real_claude_calls_a_tool_of_the_demo_and_gives_an_output(
    bin_run, used_data_dir, tmp_path
):
    cli = real_claude()
    with (
        scripted_model() as model,
        bin_run(
            "--claude",
            PATH=os.pathsep.join([str(cli.parent), os.environ["PATH"]]),
            HOME=str(tmp_path),
            ANTHROPIC_BASE_URL=model,
            CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat01-scripted",
        ) as process,
    ):
        said = all_of_the_block(process)
        assert re.search("^  succeeded ", said, re.MULTILINE), said
        assert re.search(r"model claude-\S+, \d+ tokens in, .*cost \$0\.\d+, tool calls 1, ", said)
        assert 'output {"greeting": "scripted"}' in said
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert nothing_runs(used_data_dir)


def test_without_a_claude_on_the_path_that_is_one_sentence(bin_run, data_dir):
    with bin_run("--claude", PATH=os.devnull) as process:
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert said == "There is no claude on the PATH: install it, or leave out --claude.\n"
    assert list(data_dir.iterdir()) == []


def test_production_refuses_unsafe_settings_before_anything_starts(bin_run, data_dir):
    with bin_run("--no-demo", PIPEDAI_ENV="production", SECRET_KEY="") as process:
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert said.startswith("SECRET_KEY ")
    assert list(data_dir.iterdir()) == []
