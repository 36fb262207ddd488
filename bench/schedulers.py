"""`bin/bench schedulers`: kills three schedulers at random while triggers come due, and counts every tick."""

import json
import subprocess
import sys
from collections.abc import Callable

from bench.failure import BenchFailed
from bench.figures import Json, machine, print_machine, print_table
from bench.stack import database
from pipedai import env


def run(*, triggers: int, seconds: float, say: Callable[[str], None]) -> Json:
    """Let this number of triggers come due every three seconds, for `seconds`. Raises BenchFailed if a
    tick was lost or doubled."""
    say("Starting PostgreSQL…")
    with database() as on:
        found = machine(on.one("SHOW server_version")["server_version"])
        say(f"{triggers} triggers come due every 3 s; schedulers are killed…")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "testing.processes.scheduler_kills",
                str(triggers),
                str(seconds),
            ],
            cwd=env.BASE_DIR,
            env=on.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise BenchFailed("The schedulers could not be driven; see above.")
    result = json.loads(done.stdout.splitlines()[-1])
    if result["wrong"]:
        raise BenchFailed(f"Ticks were lost or doubled: {result}")
    return {"benchmark": "schedulers", "machine": found, **result}


def show(result: Json) -> None:
    """Print the table of a result."""
    print_machine(result["machine"])
    print()
    names = (
        "triggers", "minutes", "kills", "ticks", "fired", "missed", "without_worker", "runs", "seconds"
    )  # fmt: skip
    print_table(["", *names], [["every tick decided once", *(result[name] for name in names)]])
