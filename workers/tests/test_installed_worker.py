"""The worker is installed from the running server by the line that the server tells, and then executes a run."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipedai.version import VERSION
from testing.processes.main_job import MainJob
from testing.processes.programs import lacking
from testing.processes.pythons import pythons
from testing.processes.web_process import Server, free_port, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

UV = str(Path(sys.executable).with_name("uv"))
PIPX = "pipx==1.*"
# How this machine reaches PyPI: proxies, certificates, mirrors.
_NETWORK = {
    name: value
    for name, value in os.environ.items()
    if name.upper().startswith(("PIP_", "UV_", "SSL_CERT", "REQUESTS_CA"))
    or "_PROXY" in name.upper()
}


@pytest.fixture
def site(own_database: str, tmp_path: Path) -> Iterator[Server]:
    """Serves the API under the address that it tells hosts."""
    port = free_port()
    public = {"PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}"}
    with serve(own_database, log=tmp_path / "web.log", **public) as server:
        yield server


def told_by(site: Server) -> str:
    """Returns the line that installs the worker, as the server tells it."""
    answer = httpx.get(f"{site.api}/releases/latest").raise_for_status().json()
    install: str = answer["pipedaiWorker"]["install"]
    return install


def run(home: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command as a user with this home and no settings of ours. Raises AssertionError if it fails."""
    done = subprocess.run(
        command,
        cwd=home,
        env={**_NETWORK, "HOME": str(home), "PATH": "/usr/bin:/bin", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_an_environment_with_nothing_but_pip_installs_registers_and_executes_a_run(
    site: Server, tmp_path: Path, which: str
) -> None:
    _, python = pythons()[0 if which == "oldest" else -1]
    run(tmp_path, python, "-m", "venv", "environment")
    programs = tmp_path / "environment" / "bin"
    pipx, *arguments = shlex.split(told_by(site))
    assert pipx == "pipx"
    run(tmp_path, str(programs / "pip"), *arguments)
    worker = str(programs / "pipedai-worker")
    assert run(tmp_path, worker, "version").stdout == f"{VERSION}\n"
    _executes_a_run(site, tmp_path, worker)


def _executes_a_run(site: Server, home: Path, worker: str) -> None:
    job = MainJob.at(site.api)
    minted = job.post(f"{job.environment}/api-keys", {"name": "host", "prefix": "wrk"})
    config = ("--config", str(home / "worker.json"))
    token = {"PIPEDAI_REGISTRATION_TOKEN": minted["token"]}
    run(home, worker, "register", "--api-url", site.url, *config, **token)
    worker_id = json.loads((home / "worker.json").read_text())["workerId"]
    values: dict[str, Any] = {"name": "t", "prompt": "Say hello.", "workerId": worker_id}
    trigger = job.post(
        f"{job.environment}/triggers", {**values, "mcpUrl": "https://mcp.example.com/"}
    )
    queued = job.post(f"/triggers/{trigger['id']}/run", {})
    log = run(home, worker, "run", "--once", "--stand-in", *config).stderr
    assert job.get(f"/runs/{queued['id']}")["status"] == "succeeded", log
    assert f"pipedai-worker {VERSION} starts" in log.splitlines()[0]
    assert job.get(f"/workers/{worker_id}")["version"] == VERSION


def test_pipx_and_uv_install_it_by_the_same_line_and_other_bytes_are_refused(
    site: Server, tmp_path: Path
) -> None:
    line = shlex.split(told_by(site))
    for tool in ("uv", "pipx"):
        home = tmp_path / tool
        home.mkdir()
        command = [UV, "tool", *line[1:]]
        if tool == "pipx":
            command = [UV, "tool", "run", "--quiet", "--from", PIPX, *line]
            _fetch(home, PIPX, "pipx")
        run(home, *command)
        worker = home / ".local" / "bin" / "pipedai-worker"
        assert run(home, str(worker), "version").stdout == f"{VERSION}\n"

    address = line[-1]
    forged = address[:-4] + ("0000" if not address.endswith("0000") else "1111")
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"]
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        run(tmp_path, *pip, forged)


def _fetch(home: Path, package: str, program: str) -> None:
    """Fetches a tool from PyPI. Without PyPI the test is skipped, and in CI it fails."""
    try:
        run(home, UV, "tool", "run", "--quiet", "--from", package, program, "--version")
    except AssertionError:
        lacking(f"uv could not get {package} from PyPI.")
