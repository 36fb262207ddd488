"""`bin/bench start`: measures the time from the command to the first answer, of the web process and of bin/run."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.failure import BenchFailed
from bench.figures import Json, machine, print_machine, print_table
from bench.http_client import Connection
from bench.stack import Database, Web, database, free_port
from bench.usage import cpu_seconds
from bin.ending import die_with_parent
from pipedai import env
from pipedai.embedded.layout import Layout
from pipedai.embedded.server import EmbeddedPostgres

_LOOK_SECONDS = 0.005
_LONGEST_SECONDS = 120.0
_STOP_SECONDS = 60.0


def run(*, repeats: int, say: Callable[[str], None]) -> Json:
    """Start each `repeats` times, and return the result as JSON. Raises BenchFailed."""
    say("Starting PostgreSQL…")
    with database() as on:
        found = machine(on.one("SHOW server_version")["server_version"])
        say("Starting the web process…")
        # The first of several starts does not count: it compiles the bytecode, which later starts find.
        several = repeats > 1
        starts = [_start_web(on) for _ in range(repeats + several)][several:]
        say("Importing it…")
        imports = [_import_seconds(on) for _ in range(repeats)]
        say("Starting all by bin/run…")
        _make_demo(on)
        if several:
            _start_stack(on)
        answered, shown = _start_stack(on)
    return {
        "benchmark": "start",
        "machine": found,
        "web": {
            "seconds": _middle([seconds for seconds, _ in starts]),
            "cpuSeconds": _middle([cpu for _, cpu in starts]),
            "ofThemImports": _middle(imports),
        },
        "run": {
            "secondsToAnswer": round(answered, 3),
            "secondsToShowARun": round(shown, 3),
        },
    }


def show(result: Json) -> None:
    """Print the table of a result."""
    print_machine(result["machine"])
    print()
    of_web, of_run = result["web"], result["run"]
    print_table(
        ["seconds (the middle one of some)", "to the first 200", "CPU", "of that, imports"],
        [
            ["web process", of_web["seconds"], of_web["cpuSeconds"], of_web["ofThemImports"]],
            ["bin/run, again", of_run["secondsToAnswer"], None, None],
            ["… until it has shown a run", of_run["secondsToShowARun"], None, None],
        ],
    )


def _start_web(on: Database) -> tuple[float, float]:
    """Start the web process. Return the seconds until it answers, and the CPU seconds until then."""
    began = time.monotonic()
    served = Web(on, free_port(), processes=1)
    try:
        _wait_for_answer(served.port, served.has_ended)
        return time.monotonic() - began, cpu_seconds(served.pid)
    finally:
        served.stop()


def _import_seconds(on: Database) -> float:
    code = (
        "import time; t = time.process_time(); import pipedai.asgi; print(time.process_time() - t)"
    )
    return float(on.python("-c", code))


def _stack_directory(on: Database) -> Path:
    return on.directory / "stack"


def _stack_environment(on: Database) -> dict[str, str]:
    return {
        **on.environment,
        "DJANGO_SETTINGS_MODULE": "pipedai.settings",
        "PIPEDAI_DATA_DIR": str(_stack_directory(on)),
    }


def _make_demo(on: Database) -> None:
    """Make what bin/run finds when it starts again: a migrated database with the demo, which does not run."""
    directory = _stack_directory(on)
    Layout(directory).prepare_data_dir()
    made = Database(directory, _stack_environment(on), env.BASE_DIR)
    made.start()
    made.python("manage.py", "seed_demo")
    EmbeddedPostgres(directory).stop()


def _start_stack(on: Database) -> tuple[float, float]:
    """Start bin/run. Return the seconds until its API answers, and until it says that everything runs."""
    port = free_port()
    log = on.directory / "stack.log"
    with log.open("wb") as output:
        began = time.monotonic()
        # This leaves bin/setup out, which takes milliseconds when there is nothing to install.
        stack = subprocess.Popen(
            [sys.executable, "-m", "bin.starting"],
            cwd=env.BASE_DIR,
            env={**_stack_environment(on), "PORT": str(port), "LOG_FORMAT": "text"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so a Ctrl-C does not reach it
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    try:
        has_ended = lambda: stack.poll() is not None  # noqa: E731
        _wait_for_answer(port, has_ended)
        answered = time.monotonic() - began
        _wait_for(lambda: "is up. Ctrl-C stops it" in log.read_text(), has_ended)
        return answered, time.monotonic() - began
    except BenchFailed as failure:
        raise BenchFailed(f"{failure}\n{_tail(log)}") from None
    finally:
        stack.terminate()
        try:
            stack.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            stack.kill()
            stack.wait()


def _wait_for_answer(port: int, has_ended: Callable[[], bool]) -> None:
    def answers() -> bool:
        try:
            with Connection(port, timeout=5) as connection:
                connection.call("GET", "/health")
        except OSError:
            return False
        return True

    _wait_for(answers, has_ended)


def _wait_for(is_so: Callable[[], bool], has_ended: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not is_so():
        if has_ended() or time.monotonic() > deadline:
            raise BenchFailed("It did not start.")
        time.sleep(_LOOK_SECONDS)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _middle(values: Sequence[float]) -> float:
    return round(sorted(values)[len(values) // 2], 3)
