"""A worker host that is set up with the commands of docs/hosts.md and nothing else."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.tests.doc import commands
from pipedai.env import BASE_DIR
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.conformance.serving import serving
from testing.processes.spare_machine import Machine, machine
from testing.processes.web_process import free_port, serve
from testing.processes.worker_process import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

CHECKOUT = "/srv/pipedai"
CONFIG = "/var/lib/pipedai-worker/worker.json"
UNIT = "pipedai-worker"
# The stand-in for claude, at the path where the document says that claude is.
CLAUDE = '#!/bin/sh\nexec /opt/pipedai-worker/bin/python -m pipedai_worker.standin "$@"\n'


def test_the_documented_set_up_registers_passes_its_doctor_works_and_drains(
    own_database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    with machine(folder) as host:
        # The machine needs no checkout but for its unit. The stand-in for systemd is a part of the tests.
        for part in ("deploy", "testing"):
            shutil.copytree(
                BASE_DIR / part,
                host.path(f"{CHECKOUT}/{part}"),
                ignore=shutil.ignore_patterns("__pycache__", ".*_cache"),
            )
        program, settings, registration, unit = commands("## From nothing", "hosts.md")
        with _serving_the_package(own_database, tmp_path) as url:
            block = program.replace("https://api.example.com", url)
            host.run("bash", "-ec", block, network=True, directory=CHECKOUT)
        host.run("bash", "-ec", settings, directory=CHECKOUT)
        claude = host.path("/usr/local/bin/claude")
        claude.write_text(CLAUDE)
        claude.chmod(0o755)
        host.path("/etc/pipedai-worker.env").write_text("CLAUDE_CODE_OAUTH_TOKEN=a-token\n")
        api = FakeApi()
        with host.network(), serving(api) as url:
            token = f"export PIPEDAI_REGISTRATION_TOKEN={api.registration_token}\n"
            block = token + registration.replace("https://api.example.com", url)
            host.run("bash", "-ec", block, directory=CHECKOUT)
            host.run("bash", "-ec", unit, directory=CHECKOUT)
            assert doctor(host).count("pass  ") == 11
            it_works_and_drains(host, api, tmp_path / "worker.log")
        for path in (CONFIG, "/etc/pipedai-worker.env"):
            assert host.path(path).stat().st_mode & 0o007 == 0


@contextlib.contextmanager
def _serving_the_package(database: str, directory: Path) -> Iterator[str]:
    """Serves the worker's package as the real service does, and yields the service's address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serve(database, log=directory / "web.log", PORT=str(port), PUBLIC_URL=url):
        yield url


def doctor(host: Machine) -> str:
    """Runs the worker's doctor with the account and settings of the unit, and returns its output."""
    script = f"set -a; . /etc/pipedai-worker.env; exec {UNIT} doctor --config {CONFIG}"
    path = "PATH=/usr/local/bin:/usr/bin:/bin"
    return host.run("runuser", "-u", UNIT, "--", "env", path, "sh", "-c", script)


def it_works_and_drains(host: Machine, api: FakeApi, log: Path) -> None:
    """The unit's process executes a run, and at SIGTERM finishes the run that it holds."""
    service = host.start(
        *(
            "env",
            f"PYTHONPATH={CHECKOUT}",
            "/usr/bin/python3",
            "-m",
            "testing.processes.systemd_units",
        ),
        f"/etc/systemd/system/{UNIT}.service",
        log=log,
    )
    outcome = api.until_ended(api.add(), seconds=60)
    assert outcome["status"] == "succeeded", log.read_text()
    last = api.add("standin: sleep 3")
    until(lambda: last.status == "running")
    host.run("sh", "-c", f"kill -TERM $(cat /run/{UNIT}.pid)")
    assert service.wait(60) == 0
    assert last.status == "succeeded"
