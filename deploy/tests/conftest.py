"""Sets a machine up with the commands of docs/deploy.md, and starts what runs on it."""

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.tests.doc import commands
from deploy.tests.kept_packages import kept_packages
from pipedai.env import BASE_DIR
from testing.processes.programs import program
from testing.processes.spare_machine import Machine, machine
from testing.processes.worker_process import until

DOMAIN = "api.example.com"
# The units, each with a word of its command line.
UNITS = {"pipedai-web": "pipedai.server", "pipedai-scheduler": "runscheduler"}
RELEASE = "/srv/pipedai/releases/1"
# The steps that need the package registries, besides the machine itself.
ONLINE = ("packages", "code")
_NOT_OF_A_RELEASE = (".git", ".venv", ".cache", "__pycache__", ".*_cache", ".env", "staticfiles")


class Deployed:
    """PipedAI on a machine of its own: the units' processes, with nginx in front of them."""

    def __init__(self, machine: Machine, logs: Path) -> None:
        self.machine = machine
        self.logs = logs

    def follow(self, heading: str, release: str = RELEASE) -> None:
        """Run the commands of a section of docs/deploy.md, in the directory of a release."""
        for block in commands(heading):
            online = any(f" {step}" in block for step in ONLINE)
            self.machine.run("bash", "-ec", block, network=online, directory=release)

    def start(self, unit: str) -> None:
        """Start a unit's process as systemd would."""
        path = f"/etc/systemd/system/{unit}.service"
        python = "/srv/pipedai/current/.venv/bin/python"
        run = [
            "env",
            f"PYTHONPATH={RELEASE}",
            python,
            "-m",
            "testing.processes.systemd_units",
            path,
        ]
        self.machine.start(*run, log=self.logs / f"{unit}.log")

    def restart(self, unit: str) -> None:
        """Do what `systemctl restart` does, until the old processes have ended."""
        self._end(unit, "HUP")

    def stop(self, unit: str) -> None:
        """Do what `systemctl stop` does."""
        self._end(unit, "TERM")

    def directories(self) -> set[str]:
        """Return the directories in which the units' processes run, which show their release."""
        script = "for pid in $(pgrep -u pipedai python); do readlink /proc/$pid/cwd; done"
        return set(self.machine.run("sh", "-c", script).split())

    def _end(self, unit: str, signal: str) -> None:
        """Send the signal to a unit, and wait until the processes that it has now have ended."""
        script = (
            f"processes=$(pgrep -u pipedai -f {UNITS[unit]}); kill -{signal} $(cat /run/{unit}.pid)\n"
            "for pid in $processes; do while kill -0 $pid 2>/dev/null; do sleep 0.1; done; done"
        )
        self.machine.run("sh", "-c", script)

    def log(self, unit: str) -> str:
        """Return what the unit printed."""
        return (self.logs / f"{unit}.log").read_text()

    def client(self) -> httpx.Client:
        """Return a client outside the machine that trusts its certificate."""
        authority = self.machine.path("/etc/pipedai/tls/fullchain.pem").read_text()
        context = ssl.create_default_context(cadata=authority)
        return httpx.Client(
            base_url=f"https://{DOMAIN}/api/v1",
            transport=_ToLoopback(verify=context, http1=True),
            timeout=60,
        )

    def wait_until_up(self) -> None:
        """Wait until the service answers, with its database."""
        with self.client() as http:
            until(lambda: self._is_up(http), seconds=60)

    def _is_up(self, http: httpx.Client) -> bool:
        try:
            return http.get("/health").status_code == 200
        except httpx.ConnectError:  # nginx is still starting
            return False


class _ToLoopback(httpx.HTTPTransport):
    """Connects to this machine for any host name."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request. TLS and the Host header still name the domain."""
        return super().handle_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": DOMAIN},
            )
        )


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    """Sets the machine up as docs/deploy.md says and starts it. The test's thread runs in the machine's network."""
    for name in ("nginx", "pgbouncer", "postgres"):
        program(name)
    folder = tmp_path / "machine"
    folder.mkdir()
    with machine(folder) as made:
        deployed = Deployed(made, tmp_path)
        _unpack(made, RELEASE)
        _as_debian_leaves_postgresql(made)
        with kept_packages(made, RELEASE):
            deployed.follow("### From nothing")
        made.start("nginx", "-g", "daemon off;", log=tmp_path / "nginx.log")
        with made.network():
            for unit in UNITS:
                deployed.start(unit)
            deployed.wait_until_up()
            yield deployed


def _unpack(machine: Machine, release: str) -> None:
    shutil.copytree(
        BASE_DIR, machine.path(release), ignore=shutil.ignore_patterns(*_NOT_OF_A_RELEASE)
    )


def _as_debian_leaves_postgresql(machine: Machine) -> None:
    """Starts a PostgreSQL cluster, as the installation of Debian's package does."""
    version = program("postgres").parent.parent.name
    machine.run("pg_createcluster", version, "main", "--", "--no-sync")
    machine.run("pg_ctlcluster", version, "main", "start")
