"""The image: what its Dockerfile says is executed step by step, and then serves, as its user, on a read-only root."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import yaml
from compose_spec import PyCompose
from django.conf import settings

from bin.claude import PINNED
from bin.services import procfile
from bin.suite import production_settings
from deploy.tests.image import build, build_without_packages, context, exec_form, stages
from pipedai.clocks import EDITION
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.env import BASE_DIR
from pipedai.tests.test_env_example import names_listed
from pipedai.version import VERSION
from testing.processes.programs import program
from testing.processes.socket_relay import relayed
from testing.processes.web_process import free_port, url_of
from testing.processes.worker_process import until

COMPOSE = BASE_DIR / "compose.yaml"


@contextmanager
def reachable(database: str) -> Iterator[str]:
    """Yields a DATABASE_URL by which any user of this machine reaches the test's database."""
    url = url_of(database)
    if settings.DATABASE_URL:
        yield url
        return
    parts = urlsplit(url)
    with relayed(EmbeddedPostgres(settings.DATA_DIR).layout.socket) as port:
        yield f"postgres://{parts.username}:{parts.password}@127.0.0.1:{port}/{database}"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_its_steps_make_a_web_process_that_serves_without_rights_on_a_read_only_root(
    own_database: str, tmp_path: Path
) -> None:
    port, log, app = free_port(), tmp_path / "web.log", stages()["app"]
    with ExitStack() as stack:
        url = stack.enter_context(reachable(own_database))
        built = build("app", tmp_path / "image", stack)
        built.machine.make_read_only()
        environment = {
            **built.environment,
            **production_settings(),
            "DATABASE_URL": url,
            "PORT": str(port),
        }
        place: dict[str, Any] = {
            "network": True,
            "directory": built.directory,
            "environment": environment,
        }
        as_user = built.command
        with pytest.raises(AssertionError, match="Read-only file system"):
            built.machine.run(*as_user("touch", "/data/x"), **place)
        assert built.machine.run(*as_user("id", "-u"), **place) == "10001\n"

        built.machine.run(*as_user("python", "manage.py", "release"), **place)
        web = built.machine.start(*as_user(*exec_form(app.value("CMD"))), log=log, **place)
        answer = until(lambda: answered(f"http://127.0.0.1:{port}/api/v1/health"))
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "ok", "version": VERSION, "tzdata": EDITION},
        )
        built.machine.run(*as_user(*exec_form(app.value("HEALTHCHECK"))), **place)
        with httpx.Client(headers={"Host": "api.example.com"}) as browser:
            page = browser.get(f"http://127.0.0.1:{port}/admin/login/")
            (style, *_) = re.findall(r'href="(/static/[^"]+\.css)"', page.text)
            assert browser.get(f"http://127.0.0.1:{port}{style}").status_code == 200

        number = signal.Signals[app.value("STOPSIGNAL")].value
        built.machine.run("sh", "-c", f"kill -{number} $(pgrep -o -u 10001 -f pipedai.server)")
        assert web.wait(timeout=30) == 0
        with pytest.raises(AssertionError, match="refused"):
            built.machine.run(*as_user(*exec_form(app.value("HEALTHCHECK"))), **place)

        # What compose.yaml runs beside: the scheduler's program, and the demo, in development mode and with a volume.
        built.machine.run(*as_user("python", "manage.py", "runscheduler", "--help"), **place)
        volume = ("mount", "-t", "tmpfs", "-o", "uid=10001,gid=10001,mode=700", "tmpfs", "/data")
        built.machine.run(*volume)
        environment |= {"PIPEDAI_ENV": "development", "ALLOWED_HOSTS": ""}
        ports = {"8000": str(port), "8001": str(free_port())}

        def command(service: str) -> list[str]:
            words = yaml.safe_load(COMPOSE.read_text())["services"][service]["command"]
            return as_user(*(re.sub("800[01]", lambda found: ports[found[0]], w) for w in words))

        built.machine.run(*command("seed"), **place)
        built.machine.start(*as_user(*exec_form(app.value("CMD"))), log=log, **place)
        for service in ("tools", "worker"):
            built.machine.start(*command(service), log=log, **place)
        said = built.machine.run(*command("demo"), **place)
        assert re.search(r"^  succeeded .*\n.*tool calls 1, output", said, re.MULTILINE), said
    assert "Traceback" not in log.read_text()


@pytest.mark.long
def test_its_pgbouncer_starts_without_rights_and_knows_the_password_alone(tmp_path: Path) -> None:
    program("pgbouncer")
    log, stage, password = tmp_path / "pgbouncer.log", stages()["pgbouncer"], 'a "quoted" one'
    with ExitStack() as stack:
        built = build_without_packages("pgbouncer", tmp_path / "image", stack)
        built.machine.make_read_only()
        environment = {**built.environment, "POSTGRES_PASSWORD": password}
        stack.enter_context(built.machine.network())
        process = built.machine.start(
            *built.command(*exec_form(stage.value("CMD"))), log=log, environment=environment
        )
        until(lambda: "process up" in log.read_text())
        built.machine.run(*built.command(*exec_form(stage.value("HEALTHCHECK"))))
        login = "host=127.0.0.1 port=6432 user=pipedai dbname=pipedai"
        with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
            psycopg.connect(login, password="another")
        # It takes the password, and then waits for a PostgreSQL, which nobody has started here.
        with pytest.raises(psycopg.OperationalError, match=r"timeout expired|server|DNS"):
            psycopg.connect(login, password=password, connect_timeout=2)
        assert "login attempt: db=pipedai user=pipedai" in log.read_text()
        built.machine.run("pkill", "-INT", "-u", "10001", "pgbouncer")
        assert process.wait(timeout=30) == 0
    assert password not in log.read_text()


def answered(url: str) -> httpx.Response | None:
    """Returns the answer, or None while nobody listens."""
    try:
        return httpx.get(url, timeout=60)
    except httpx.ConnectError:
        return None


@pytest.mark.parametrize("file", ["Dockerfile", "deploy/vm/install.sh"])
def test_every_app_is_compiled_since_its_processes_may_not_write_what_they_compile(file):
    (compiled,) = re.findall(
        r"-m compileall -q (.+?)(?: \\)?$", (BASE_DIR / file).read_text(), re.MULTILINE
    )
    ours = {path.parent.name for path in BASE_DIR.glob("*/apps.py")}
    assert {*ours, "agent"} <= set(compiled.split())


def test_its_stages_end_as_a_number_without_rights_and_take_no_shell_for_their_command():
    for name in ("app", "pgbouncer", "worker"):
        stage = stages()[name]
        last_root = max(i for i, (step, _) in enumerate(stage.steps) if step in ("RUN", "COPY"))
        assert stage.steps.index(("USER", "10001:10001")) > last_root
        assert exec_form(stage.value("CMD"))
        # A worker listens at no port, so nothing can ask it.
        assert name == "worker" or exec_form(stage.value("HEALTHCHECK"))
        assert stage.value("STOPSIGNAL") in ("SIGTERM", "SIGINT")
    assert {stage.base for stage in stages().values()} == {
        "debian:trixie-slim",
        "node:24-slim",
        "python:3.13-slim-trixie",
    }
    assert list(stages())[-1] == "app", "it is what a build without a target makes"


def test_the_workers_claude_is_the_version_that_is_tested():
    assert stages()["claude"].value("ARG") == f"CLAUDE={PINNED}"


def test_the_worker_registers_once_and_then_runs(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase $3 in register) : > "$5" ;; esac\necho "$@"\n')
    python.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
        "PIPEDAI_API_URL": "https://api.example.com",
    }

    def started() -> list[str]:
        command = ["sh", str(BASE_DIR / "deploy/image/worker.sh")]
        return subprocess.check_output(command, env=environment, text=True).splitlines()

    config = f"--config {tmp_path}/worker.json"
    run = f"-m pipedai_worker run {config}"
    registering = f"-m pipedai_worker register {config} --api-url https://api.example.com"
    assert started() == [registering, run]
    assert started() == [run]


def test_its_context_has_the_code_and_neither_secrets_nor_tests(tmp_path):
    found = set(context())
    assert {PurePosixPath("manage.py"), PurePosixPath("agent/pipedai_worker/standin.py")} <= found
    assert not [path for path in found if {"tests", ".git", ".venv", ".data"} & set(path.parts)]

    (tmp_path / ".dockerignore").write_text((BASE_DIR / ".dockerignore").read_text())
    for secret in (
        ".env",
        ".env.local",
        "deploy/prod.env",
        ".data/postgres/x",
        "dist/x.whl",
        "kept.py",
    ):
        (tmp_path / secret).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / secret).touch()
    assert list(context(tmp_path)) == [PurePosixPath("kept.py")]


def test_the_compose_file_is_valid_and_says_what_the_procfile_says():
    written = yaml.safe_load(COMPOSE.read_text())
    PyCompose.from_json(json.dumps(written))
    services = written["services"]
    assert list(services) == [
        *("postgres", "pgbouncer", "release", "web", "scheduler", "seed", "tools", "worker"),
        *("claude-worker", "demo"),
    ]
    processes = procfile(BASE_DIR / "Procfile")
    commands = {name: " ".join(each.get("command", [])) for name, each in services.items()}
    commands["web"] = " ".join(exec_form(stages()["app"].value("CMD")))
    for name in ("release", "web", "scheduler"):
        assert processes[name].endswith(f"exec {commands[name]}")
    known = stages()
    for name, service in services.items():
        if name == "postgres":
            continue
        assert service["build"]["target"] in known
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    # The worker's variables are its own; docs/hosts.md explains them.
    known_settings = set(names_listed())
    for name, service in services.items():
        if name not in ("postgres", "pgbouncer", "claude-worker"):
            assert service["environment"].keys() <= known_settings
    # Nothing can be reached from another machine.
    ports = [
        yaml.safe_load(COMPOSE.read_text())["services"][name].get("ports") for name in services
    ]
    assert [each for each in ports if each] == [["127.0.0.1:8000:8000"]]


def test_a_compose_file_with_a_mistake_is_no_valid_one():
    broken = yaml.safe_load(COMPOSE.read_text())
    broken["services"]["web"]["port"] = ["8000:8000"]
    with pytest.raises(ValueError, match="port"):
        PyCompose.from_json(json.dumps(broken))
