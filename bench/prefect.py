"""Runs a Prefect server on the benchmark's own PostgreSQL, and acts as its client and worker."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from bench.http import Answer, Connection, check, request
from bench.load import Measured, Window, keep_running
from bin.ending import die_with_parent
from pipedai import env
from testing.processes.failure import ProcessFailed
from testing.processes.stack import HOST, Database, free_port
from testing.processes.usage import cpu_seconds

VERSION = "3.9.1"
_START_SECONDS = 180.0
_BASE = "/api"


@dataclass(frozen=True, slots=True)
class Assigned:
    """A deployment of Prefect and its work pool with one worker: they match this service's trigger and worker."""

    deployment_id: str
    pool: str


@dataclass(slots=True)
class Server:
    """`prefect server start` with one process and without background services, since ours runs without them too."""

    port: int
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """The CPU seconds that all its processes have used so far."""
        return cpu_seconds(self.pid)

    @property
    def rss(self) -> int:
        """The resident memory of its processes, in bytes."""
        root = psutil.Process(self.pid)
        return sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))


def install() -> Path:
    """Install Prefect into a virtual environment below PIPEDAI_DATA_DIR, which stays. Raises ProcessFailed."""
    directory = env.data_dir() / f"prefect-{VERSION}"
    program = directory / "bin" / "prefect"
    if not program.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(directory))
        # pip writes the program last, so that an interrupted installation is repeated.
        _run(
            str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet",
            "--disable-pip-version-check", f"prefect=={VERSION}",
        )  # fmt: skip
    return program


@contextmanager
def server(on: Database, program: Path) -> Iterator[Server]:
    """Run Prefect's server, on a database beside the product's. Raises ProcessFailed."""
    port, log, home = free_port(), on.directory / "prefect.log", on.directory / "prefect"
    home.mkdir()
    command = [str(program), "server", "start", "--host", HOST, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--no-services", "--no-ui"],
            cwd=home,
            env={
                "PATH": f"{program.parent}:/usr/bin:/bin",
                "HOME": str(home),
                "PREFECT_HOME": str(home),
                "PREFECT_API_DATABASE_CONNECTION_URL": _connection_url(
                    on.make_database("prefect", "pg_trgm")
                ),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
                "DO_NOT_TRACK": "1",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is not for it
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _serves(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise ProcessFailed(f"Prefect did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield Server(port, process.pid)
    finally:
        process.kill()
        process.wait()


def _serves(port: int) -> bool:
    with suppress(OSError), Connection(port, timeout=10) as connection:
        return connection.exchange(request("GET", "/health", base=_BASE)).status == 200
    return False


def _connection_url(params: dict[str, Any]) -> str:
    """Return the URL by which SQLAlchemy connects with asyncpg."""
    return (
        f"postgresql+asyncpg://{params['user']}:{quote(params['password'])}@/{params['dbname']}"
        f"?host={quote(params['host'], safe='')}&port={params['port']}"
    )


def make_assigned(port: int, count: int) -> list[Assigned]:
    """Make `count` deployments, each with a work pool of its own."""
    made = []
    with Connection(port) as connection:

        def post(path: str, **body: object) -> Any:
            return connection.call("POST", path, body=body, base=_BASE).json()

        flow = post("/flows/", name="nightly-report")
        for number in range(count):
            pool = f"pool-{number}"
            post("/work_pools/", name=pool, type="process")
            deployment = post(
                "/deployments/", name=f"host-{number}", flow_id=flow["id"], work_pool_name=pool
            )
            made.append(Assigned(deployment["id"], pool))
    return made


def drive(port: int, assigned: Assigned, window: Window) -> Measured:
    """Run one flow run after another until the window ends, each from creation to completion."""
    return keep_running(port, window, lambda connection: _run_once(connection, assigned))


def _run_once(connection: Connection, assigned: Assigned) -> dict[str, float]:
    times: dict[str, float] = {}

    def timed(name: str, path: str, body: object) -> Answer:
        sent = request("POST", path, body=body, base=_BASE)
        began = time.monotonic()
        answer = connection.exchange(sent)
        times[name] = time.monotonic() - began
        return check(sent, answer)

    def set_state(name: str, state: str) -> None:
        sent = {"state": {"type": state.upper(), "name": state}}
        told = timed(name, f"/flow_runs/{run_id}/set_state", sent).json()
        if told["status"] != "ACCEPT":
            raise ProcessFailed(f"Prefect did not take {state}: {told}")

    pool = f"/work_pools/{assigned.pool}"
    run_id = timed("create", f"/deployments/{assigned.deployment_id}/create_flow_run", {}).json()[
        "id"
    ]
    soon = (datetime.now(UTC) + timedelta(seconds=10)).isoformat()
    found = timed("poll", f"{pool}/get_scheduled_flow_runs", {"scheduled_before": soon, "limit": 1})
    if [each["flow_run"]["id"] for each in found.json()] != [run_id]:
        raise ProcessFailed(
            f"A poll should have handed out flow run {run_id}, and handed out others."
        )
    set_state("claim", "Pending")
    set_state("start", "Running")
    timed("heartbeat", f"{pool}/workers/heartbeat", {"name": "worker"})
    set_state("complete", "Completed")
    return times


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise ProcessFailed(f"Prefect could not be installed:\n{done.stdout[-2000:]}")
