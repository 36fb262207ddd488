"""`pip install ./agent` works in an empty virtual environment, on the oldest and the newest Python here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from testing.processes.pythons import pythons

from pipedai_worker import __version__
from pipedai_worker.conformance import lab
from pipedai_worker.conformance.fake_api import FakeApi

from .warm_workers import AGENT

pytestmark = [pytest.mark.long, pytest.mark.timeout(800)]

# These checks depend most on the Python version, as they use processes, signals, files and sockets.
CHECKS = ("honours-a-cancel", "settles-a-run-after-a-kill", "tries-again-after-5xx")
# Brings the Python's own pip into an environment as `python -m venv` would, which compiles the whole of it as well, for
# three seconds of CPU.
UNPACK_PIP = """
import ensurepip, pathlib, sysconfig, zipfile
bundled = pathlib.Path(ensurepip.__file__).with_name("_bundled")
wheels = pathlib.Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or bundled)
(wheel,) = wheels.glob(f"pip-{ensurepip.version()}-*.whl")
zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
"""


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_a_fresh_environment_registers_checks_itself_and_runs(
    api: FakeApi, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    _, python = pythons()[0 if which == "oldest" else -1]
    worker = install(python, tmp_path)
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "CLAUDE_CODE_OAUTH_TOKEN": "x"}

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [worker, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert said("--version") == said("version") == f"{__version__}\n"
    assert {"register", "run", "doctor", "version", "conformance"} <= set(
        re.findall(r"^ +(\w+)", said("--help"), re.MULTILINE)
    )
    config = ("--config", str(tmp_path / "w.json"))
    said("register", "--token", api.registration_token, "--api-url", url, *config)
    assert json.loads((tmp_path / "w.json").read_text())["workerId"] == api.worker_id
    assert said("doctor", "--stand-in", *config).count("pass") == 9
    run = api.add()
    said("run", "--once", "--stand-in", *config)
    assert run.history == ["claimed", "running", "succeeded"]
    command = f"{worker} run --config {{config}} --drain-seconds 1"
    verdicts = lab.judge(command, CHECKS, jobs=len(CHECKS))
    assert [str(verdict) for verdict in verdicts if verdict.failure is not None] == []


def install(python: str, directory: Path) -> str:
    """Install the worker in a new environment of `python`, with its dependencies; return its program."""
    source, environment = directory / "source", directory / "environment"
    shutil.copytree(AGENT, source, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    own_python = str(environment / "bin" / "python")
    for command in (
        [python, "-m", "venv", "--without-pip", str(environment)],
        [own_python, "-c", UNPACK_PIP],
        # Only what the worker imports is compiled then.
        [own_python, "-m", "pip", "install", "--quiet", "--no-compile", str(source)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return str(environment / "bin" / "pipedai-worker")
