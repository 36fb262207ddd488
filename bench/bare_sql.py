"""Runs the lifecycle as bare SQL with pgbench: the limit with which the product is compared."""

import math
import os
import signal
import subprocess
import time
from pathlib import Path

from bench.figures import Json, latencies
from bench.load import Window, sleep_until
from bin.ending import die_with_parent
from pipedai.embedded.cluster import wheel_bin
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database
from testing.processes.usage import cpu_seconds

_SCRIPTS = Path(__file__).with_name("pgbench")


def prepare(database: Database) -> None:
    """Give each client of pgbench one of the triggers in the database."""
    database.execute((_SCRIPTS / "setup.sql").read_text())


def measure(database: Database, *, clients: int, seconds: float) -> Json:
    """Run pgbench's clients, one lifecycle after another, and return their figures. Raises ProcessFailed."""
    database.settle()
    window = Window.of(seconds)
    log = database.directory / f"pgbench-{clients}"
    pgbench = subprocess.Popen(
        [
            str(wheel_bin() / "pgbench"),
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={clients}",
            f"--jobs={min(clients, os.cpu_count() or 1)}",
            f"--time={math.ceil(window.end - time.monotonic())}",
            f"--file={_SCRIPTS / 'lifecycle.sql'}",
            "--log",
            f"--log-prefix={log}",
        ],
        env=database.client_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    sleep_until(window.start)
    before = cpu_seconds(database.pid)
    sleep_until(window.end)
    used = cpu_seconds(database.pid) - before
    said, _ = pgbench.communicate()
    if pgbench.returncode or "number of failed transactions: 0 " not in said:
        raise ProcessFailed(f"pgbench failed:\n{said}")
    lifecycles = _read(log, window)
    if not lifecycles:
        raise ProcessFailed("No lifecycle ended within the time: give it more --seconds.")
    return {
        "lifecyclesPerSecond": round(len(lifecycles) / seconds, 2),
        "lifecycle": latencies(lifecycles),
        "postgresCpuMs": round(1000 * used / len(lifecycles), 3),
    }


def _read(log: Path, window: Window) -> list[float]:
    """Read the lifecycles within the window. Each line of the log has the length and the end of one."""
    # The log has wall-clock times, while the window is in seconds of the monotonic clock.
    offset = time.monotonic() - time.time()
    lifecycles = []
    for file in log.parent.glob(f"{log.name}.*"):
        for line in file.read_text().splitlines():
            _client, _number, microseconds, _script, second, microsecond = line.split()[:6]
            if int(second) + int(microsecond) / 1e6 + offset in window:
                lifecycles.append(int(microseconds) / 1e6)
        file.unlink()
    return lifecycles
