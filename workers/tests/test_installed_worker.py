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
import pip
import pytest

from pipedai.env import BASE_DIR
from pipedai.version import VERSION
from testing.processes.main_job import MainJob
from testing.processes.programs import lacking
from testing.processes.pythons import pythons
from testing.processes.web_process import Server, serve
from testing.world.database_copy import database_copy

pytestmark = [pytest.mark.long, pytest.mark.timeout(800)]

UV = str(Path(sys.executable).with_name("uv"))
PIPX = "pipx==1.*"
QUICK_VENV = str(BASE_DIR / "bin" / "tests" / "quick_venv.py")
# This unpacks the pip that comes with a Python into the environment in which it runs. It is what `python -m venv` does,
# but does not compile all of pip, which takes three seconds of CPU time.
UNPACK_PIP = """
import ensurepip, sysconfig, zipfile
from pathlib import Path
folder = sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(ensurepip.__file__).with_name("_bundled")
(wheel,) = Path(folder).glob("pip-*.whl")
zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
"""
# How this machine reaches PyPI: proxies, certificates, mirrors.
_NETWORK = {
    name: value
    for name, value in os.environ.items()
    if name.upper().startswith(("PIP_", "UV_", "SSL_CERT", "REQUESTS_CA"))
    or "_PROXY" in name.upper()
}


@pytest.fixture(scope="module")
def site(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Serves the API under the address that it tells hosts."""
    log = tmp_path_factory.mktemp("site") / "web.log"
    with django_db_blocker.unblock(), database_copy() as name, serve(name, log=log) as server:
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


def test_an_environment_with_nothing_but_pip_installs_registers_and_executes_a_run(
    site: Server, tmp_path: Path
) -> None:
    # The newest Python is that of agent/tests/test_installing.py, and a newer pip is that of uv and pipx below.
    _, python = pythons()[0]
    programs = _environment(tmp_path, python)
    pipx, *arguments = shlex.split(told_by(site))
    assert pipx == "pipx"
    run(tmp_path, str(programs / "python"), "-m", "pip", *arguments)
    worker = str(programs / "pipedai-worker")
    assert run(tmp_path, worker, "version").stdout == f"{VERSION}\n"
    _executes_a_run(site, tmp_path, worker)


def _environment(home: Path, python: str) -> Path:
    """Makes an environment with nothing but pip, and returns its directory of programs."""
    run(home, python, "-m", "venv", "--without-pip", "environment")
    programs = home / "environment" / "bin"
    run(home, str(programs / "python"), "-c", UNPACK_PIP)
    return programs


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
            _fetch(home, PIPX)
            # pipx would make this environment with the newest pip, which takes two seconds of CPU time.
            run(home, sys.executable, QUICK_VENV, str(home / "pip"), str(Path(pip.__file__).parent))
        run(home, *command, PIPX_SHARED_LIBS=str(home / "pip"))
        worker = home / ".local" / "bin" / "pipedai-worker"
        assert run(home, str(worker), "version").stdout == f"{VERSION}\n"

    address = line[-1]
    forged = address[:-4] + ("0000" if not address.endswith("0000") else "1111")
    dry_run = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
    ]
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        run(tmp_path, *dry_run, forged)


def _fetch(home: Path, package: str) -> None:
    """Fetches a tool from PyPI. Without PyPI the test is skipped, and in CI it fails."""
    try:
        run(home, UV, "tool", "run", "--quiet", "--from", package, "python", "-c", "")
    except AssertionError:
        lacking(f"uv could not get {package} from PyPI.")
