"""Header values that a test planted are found nowhere among the traces that a run leaves."""

import base64
import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import psutil
import pytest
from django.conf import settings

from pipedai.embedded.server import EmbeddedPostgres
from testing.probes.tables import columns_with
from testing.processes.web_process import Server, serve
from testing.processes.worker_process import ended_run, is_running, register, until, working
from testing.world.cast import Cast

# No program gets the headers, so they are put into a file for these tests. These prompts make the stand-in print it: in
# the result, plain and inside JSON, and in two pieces on stderr.
PROMPTS = (
    "standin: show-mcp {file}",
    "standin: show-mcp {file}\nstandin: two-turns",
    "standin: show-mcp {file}\nstandin: crash 1",
    "standin: show-mcp {file}\nstandin: sleep 2",
    "standin: show-mcp {file}\nstandin: no-result",
)
# This program prints the headers on stdout, in several encodings, and on stderr.
TELLTALE = """
import base64, json, sys
told = list(json.load(open(sys.argv[1])).values())
print(*told, json.dumps(json.dumps(told)), *(base64.b64encode(each.encode()).decode() for each in told))
print(*told, file=sys.stderr)
sys.exit(1)
"""


@pytest.fixture
def planted() -> dict[str, str]:
    """Returns random header values, which no other process knows."""
    return {
        "Authorization": f"Bearer planted-{secrets.token_hex(12)}",
        "X-Quoted": f'planted "{secrets.token_hex(12)}" \\ it',
    }


@pytest.fixture
def needles(planted: dict[str, str]) -> list[str]:
    """Returns the texts that must be found nowhere: the random parts, and the values in other encodings."""
    found = []
    for value in planted.values():
        bare = value.removeprefix("Bearer ")
        found += [bare, json.dumps(bare)[1:-1], quote(bare)]
        found += [base64.b64encode(each.encode()).decode().rstrip("=") for each in (value, bare)]
        found += [word.strip('"') for word in bare.split() if len(word) > 20]
    return found


def programs_of(worker: int) -> int:
    """Returns how many programs the worker's process has started that still run."""
    started = psutil.Process(worker).children(recursive=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        return sum("standin.py" in " ".join(each.cmdline()) for each in started)
    return 0


class ArgvWatch:
    """Collects the command lines of all processes until it is stopped, and those of new processes again and again."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._old: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            pids = set(psutil.pids())
            for pid in pids - self._old:
                with contextlib.suppress(psutil.Error):
                    self.seen.add("\0".join(psutil.Process(pid).cmdline()))
            # What ran before starts no other program, so its command line stays the same.
            self._old = self._old or pids


def client(server: Server, key: str) -> httpx.Client:
    """Returns a client with this key."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=server.api, headers=headers, trust_env=False, timeout=30)


def fire(api: httpx.Client, cast: Cast, worker_id: str, prompt: str, headers: Any) -> str:
    """Adds a trigger, runs it, and returns the run's id."""
    body = {
        "name": "planted",
        "prompt": prompt,
        "mcpUrl": "https://mcp.example.com/mcp",
        "mcpHeaders": headers,
        "workerId": worker_id,
        "maxRetries": 0,
        "recordEvents": "always",
    }
    path = f"/environments/{cast.environment.id}/triggers"
    trigger = api.post(path, json=body).raise_for_status().json()
    run = api.post(f"/triggers/{trigger['id']}/run", json={}).raise_for_status().json()
    return str(run["id"])


def texts_in(directory: Path) -> Iterator[tuple[str, str]]:
    """Yields the path and the text of every file below the directory."""
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                yield str(path), path.read_text(errors="replace")


def test_no_planted_header_is_found_in_argv_logs_spool_or_any_reported_field(
    committed_cast, own_database, tmp_path, planted, needles
):
    cast, key = committed_cast, committed_cast.mint("pwk", role="admin")
    shown = tmp_path / "headers"
    shown.write_text(json.dumps(planted))
    outcomes, away = tmp_path / "worker.state", tmp_path / "away"
    places: dict[str, str] = {}
    with ArgvWatch() as watch:
        with serve(own_database, log=tmp_path / "1.log") as server, client(server, key) as api:
            worker_id = register(tmp_path, server.url, cast.mint("wrk"), max_concurrency=5)
            with working(tmp_path, "--stand-in") as worker:
                prompts = [prompt.format(file=shown) for prompt in PROMPTS]
                runs = [fire(api, cast, worker_id, prompt, planted) for prompt in prompts]
                for run_id in runs:
                    ended_run(api, run_id)
                # These runs end while the API is away, so their outcomes stay on the worker's disk.
                waiting = [
                    fire(
                        api,
                        cast,
                        worker_id,
                        f"{prompt.format(file=shown)}\nstandin: wait-for {away}",
                        planted,
                    )
                    for prompt in (
                        "standin: show-mcp {file}",
                        "standin: show-mcp {file}\nstandin: leave-child",
                    )
                ]
                for run_id in waiting:
                    until(partial(is_running, api, run_id))
                # The answers to the starts must not be lost with the server.
                until(lambda: programs_of(worker.pid) >= len(waiting))
                server.kill()
                away.touch()
                until(lambda: len(list(outcomes.glob("*/outcomes/*.json"))) == len(waiting))
                worker.kill()
                worker.wait()
        places |= {f"spool {path}": text for path, text in texts_in(outcomes)}
        assert len([place for place in places if "/outcomes/" in place]) == len(waiting)

        with serve(own_database, log=tmp_path / "2.log") as server, client(server, key) as api:
            with working(tmp_path, "--api-url", server.url, "--stand-in"):
                runs += waiting
                told = [ended_run(api, run_id) for run_id in runs]
            script = tmp_path / "telltale.py"
            script.write_text(TELLTALE)
            command = f"python3 {script} {shown}"
            with working(tmp_path, "--api-url", server.url, "--command", command):
                told.append(ended_run(api, fire(api, cast, worker_id, "Tell.", planted)))
            paths = [
                f"/environments/{cast.environment.id}/triggers",
                f"/environments/{cast.environment.id}/runs",
                f"/environments/{cast.environment.id}/workers",
                *(f"/runs/{run['id']}/events?limit=200" for run in told),
            ]
            answers = [api.get(path).raise_for_status().text for path in paths]

    # The programs did print the headers: each report has the mark that replaces them.
    assert all("[redacted]" in f"{run['shortMessage']} {run['errorMessage']}" for run in told)
    places |= {f"run {run['id']}": json.dumps(run, ensure_ascii=False) for run in told}
    places |= {f"answer {number}": text for number, text in enumerate(answers)}
    places |= {f"argv {argv[:80]!r}": argv for argv in watch.seen}
    shown.unlink()
    places |= dict(texts_in(tmp_path))
    postgres_log = EmbeddedPostgres(settings.DATA_DIR).layout.log
    if postgres_log.exists():
        places["PostgreSQL's log"] = postgres_log.read_text(errors="replace")
    assert any("pipedai_worker/standin.py" in argv for argv in watch.seen)
    assert [place for place, text in places.items() if any(each in text for each in needles)] == []
    assert columns_with(*needles) == []
