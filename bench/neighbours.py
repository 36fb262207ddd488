"""What one tenant's floods cost another, who goes on as on any day: calls, due times, decisions and notices.

Each flood is measured beside the same neighbour, and its figures stand beside the quiet ones of the same run.
"""

import argparse
import hmac
import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Self

from bench.figures import Json, machine, print_table, quantile
from bench.http import BASE_PATH
from bench.load import Load
from bench.options import seconds
from testing.processes.failure import ProcessFailed
from testing.processes.stack import HOST, Database, Web, database, scheduler_processes, web

IN_ALL = ("",)
# A neighbour's figure is as promised up to these: p99 of calls at most twice the quiet one and 20 ms, due times and
# decisions 1 s later, and notices 2 s later.
_MOST_LATER = {"due": 1.0, "decided": 1.0, "told": 2.0}
_PAUSE_SECONDS = 0.05
_WARM_UP_SECONDS = 3.0
_LONGEST_SECONDS = 30.0
# From how many addresses a flood of calls comes, and with how many connections.
_ADDRESSES, _CONNECTIONS = 60, 60

# Each lets one thing happen to the neighbour, and asks when the service has done what follows from it.
_DUE = (
    (
        "UPDATE trigger SET next_run_at = date_trunc('minute', clock_timestamp()), schedule = '* * * * *'"
        " WHERE id = '{dueId}'"
    ),
    "SELECT next_run_at > clock_timestamp() AS done FROM trigger WHERE id = '{dueId}'",
)
_DECIDED = (
    (
        "DELETE FROM event WHERE run_id = '{runId}';"
        " INSERT INTO event (id, environment_id, run_id) VALUES (gen_random_uuid(), '{environmentId}', '{runId}')"
    ),
    "SELECT decided_at IS NOT NULL AS done FROM event WHERE run_id = '{runId}'",
)
_TOLD = (
    "INSERT INTO untold_outcome (id, environment_id, run_id) VALUES (gen_random_uuid(), '{environmentId}', '{runId}')",
    "SELECT NOT EXISTS (SELECT FROM untold_outcome WHERE environment_id = '{environmentId}') AS done",
)
# Ends what a flood has left to do, so that the next one is measured alone.
_END = """
UPDATE event SET decided_at = clock_timestamp() WHERE environment_id = '{environmentId}' AND decided_at IS NULL;
UPDATE trigger SET next_run_at = NULL, schedule = NULL WHERE environment_id = '{environmentId}';
UPDATE notice SET status = 'dead', next_attempt_at = NULL
WHERE environment_id = '{environmentId}' AND status = 'pending';
UPDATE trigger_health SET check_at = NULL WHERE environment_id = '{environmentId}';
DELETE FROM untold_outcome WHERE environment_id = '{environmentId}';
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=seconds, default=8.0, help="beside each flood")
    parser.add_argument("--only", default="", metavar="WORD", help="floods whose name has it")


def run(*, seconds: float, only: str, say: Callable[[str], None]) -> Json:
    """Measure the neighbour alone, and beside each flood. Raises ProcessFailed."""
    say("Starting PostgreSQL, the web server and a scheduler…")
    with database() as on, web(on, processes=1) as served, scheduler_processes(on, 1):
        found = machine(on)
        quiet = _made(on, "quiet")
        _beside(on, served, quiet, _WARM_UP_SECONDS)
        figures = {"quiet": _beside(on, served, quiet, seconds)}
        for name, (kinds, load) in FLOODS.items():
            if only not in name:
                continue
            say(f"Beside {name}…")
            flooding = _made(on, *kinds)
            with Load(load, served.port, flooding):
                figures[name] = _beside(on, served, quiet, seconds)
            on.execute(_END.format(**flooding))
        return {"machine": found, "figures": figures}


def show(result: Json) -> None:
    """Print a table, in which figures that are worse than promised have a mark. Raises ProcessFailed if some are."""
    quiet, broken = result["figures"]["quiet"], []
    rows = []
    for name, figures in result["figures"].items():
        worse = [each for each, later in _MOST_LATER.items() if figures[each] > quiet[each] + later]
        if figures["p99"] > 2 * quiet["p99"] + 0.02:
            worse.append("p99")
        broken += [f"{each} beside {name}" for each in worse]
        ratio = figures["p99"] / quiet["p99"]
        cells = [f"{1000 * figures['p50']:.1f}", f"{1000 * figures['p99']:.1f}", f"{ratio:.1f}"]
        cells += [f"{figures[each] - quiet[each]:+.2f}" for each in _MOST_LATER]
        rows.append([name, *cells, str(figures["failed"]), str(figures["rssMb"])])
    heads = [
        "beside",
        "calls p50 ms",
        "p99 ms",
        "× quiet",
        *(f"{each} s later" for each in _MOST_LATER),
    ]
    print_table([*heads, "failed calls", "web RSS MB"], rows)
    if broken:
        raise ProcessFailed(f"Worse than promised: {', '.join(broken)}.")


def _made(on: Database, *kinds: str) -> Json:
    said: Json = json.loads(on.python("-m", "testing.world.neighbourhood", *kinds).splitlines()[-1])
    return said


def _beside(on: Database, served: Web, quiet: Json, seconds: float) -> Json:
    """Return the neighbour's worst figures within this time, in seconds."""
    until = time.monotonic() + seconds
    took: list[float] = []
    failed: list[int] = []
    later: dict[str, list[float]] = {"due": [], "decided": [], "told": []}
    threads = [threading.Thread(target=_call, args=(served.port, quiet, until, took, failed))]
    threads += [
        threading.Thread(target=_happen, args=(on, quiet, statements, until, later[name]))
        for name, statements in (("due", _DUE), ("decided", _DECIDED), ("told", _TOLD))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "p50": quantile(took, 0.5) or _LONGEST_SECONDS,
        "p99": quantile(took, 0.99) or _LONGEST_SECONDS,
        "calls": len(took),
        "failed": len(failed),
        **{name: max(each, default=_LONGEST_SECONDS) for name, each in later.items()},
        "rssMb": served.rss // 2**20,
    }


def _call(port: int, quiet: Json, until: float, took: list[float], failed: list[int]) -> None:
    """Reads and changes a trigger, one call after another."""
    path = f"/triggers/{quiet['triggerId']}"
    with _Client(port, quiet["key"]) as client:
        for number in range(1_000_000):
            began = time.monotonic()
            if began > until:
                return
            status = (
                client.ask("PATCH", path, {"description": f"{number}"})
                if number % 4 == 0
                else client.ask("GET", path)
            )
            took.append(time.monotonic() - began)
            if status >= 400:
                failed.append(status)
            time.sleep(_PAUSE_SECONDS)


def _happen(
    on: Database, quiet: Json, statements: tuple[str, str], until: float, later: list[float]
) -> None:
    begin, is_done = (each.format(**quiet) for each in statements)
    with on.session() as session:
        while (began := time.monotonic()) < until:
            session.execute(begin)
            while not (session.execute(is_done).fetchone() or {}).get("done"):
                if time.monotonic() - began > _LONGEST_SECONDS:
                    break
                time.sleep(0.01)
            later.append(time.monotonic() - began)
            time.sleep(_PAUSE_SECONDS)


# One call of a flood: a connection, the flooding tenant, and a number that no other call has.
Ask = Callable[["_Client", Json, int], object]


class _Client:
    """A connection from an address of this machine, which is opened again when it breaks."""

    def __init__(self, port: int, key: str, address: str = HOST) -> None:
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(
            HOST, port, timeout=_LONGEST_SECONDS, source_address=(address, 0)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> int:
        """Returns the status of the answer; 0 if there is none."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            self._connection.request(method, BASE_PATH + path, sent, self._headers | headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0
        return answer.status


def _nothing(_port: int, _flooding: Json) -> None:
    """The flood's rows are in the database already."""


def _repeated(ask: Ask, connections: int = _CONNECTIONS) -> Callable[[int, Json], None]:
    """Returns a load that repeats a call on many connections, each from an address of its own, until it is killed."""

    def load(port: int, flooding: Json) -> None:
        def work(number: int) -> None:
            keys = flooding.get("keys", [flooding["key"]])
            address = f"127.0.1.{1 + number % _ADDRESSES}"
            with _Client(port, keys[number % len(keys)], address) as client:
                for turn in itertools.count():
                    ask(client, flooding, 1_000_000 * number + turn)

        with ThreadPoolExecutor(connections) as threads:
            list(threads.map(work, range(connections)))

    return load


def _create(client: _Client, flooding: Json, number: int) -> None:
    body = {"name": f"Flood {number}", "prompt": "Look.", "schedule": None}
    client.ask("POST", f"/environments/{flooding['environmentId']}/triggers", body)


def _plan(client: _Client, flooding: Json, _number: int) -> None:
    schema = {
        "type": "object",
        "properties": {f"p{n}": {"type": "string", "pattern": "^(a|b)*$"} for n in range(150)},
    }
    resources = [
        {"kind": "trigger", "key": f"t{n}", "name": f"T{n}", "prompt": "p", "outputSchema": schema}
        for n in range(500)
    ]
    body = {"managedBy": "flood", "resources": resources}
    client.ask("POST", f"/environments/{flooding['environmentId']}/plan", body)
    time.sleep(0.2)


def _event(client: _Client, flooding: Json, number: int) -> None:
    body = json.dumps({"n": number}).encode()
    signature = hmac.digest(flooding["secret"].encode(), body, "sha256").hex()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
    client.ask("POST", f"/hooks/{flooding['sourceId']}", body, **headers)


def _unread(port: int, flooding: Json) -> None:
    """Asks for large answers with many keys and does not read them."""
    with ExitStack() as kept:
        for number, key in enumerate(flooding["keys"]):
            sent = (
                f"GET {BASE_PATH}/environments/{flooding['environmentId']}/triggers?limit=200 HTTP/1.1\r\n"
                f"Host: {HOST}\r\nAuthorization: Bearer {key}\r\n\r\n"
            )
            address = (f"127.0.1.{1 + number}", 0)
            connection = kept.enter_context(
                socket.create_connection((HOST, port), source_address=address)
            )
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(sent.encode())
        time.sleep(_LONGEST_SECONDS)


# The floods by what they are: which kinds of rows the tenant has (testing/world/neighbourhood.py), and what it does.
FLOODS: dict[str, tuple[tuple[str, ...], Callable[[int, Json], None]]] = {
    "clauses of 100 channels": (("channels",), _nothing),
    "plans of costly schemas": (("keys",), _repeated(_plan, 4)),
    "2,000 late triggers, 100 webhooks": (("channels", "find-late-triggers"), _nothing),
    "2,000 budgets' windows": (("find-reached-budgets",), _nothing),
    "2,000 summaries": (("send-summaries",), _nothing),
    "2,000 due triggers": (("fire-ticks",), _nothing),
    "2,000 ends of runs": (("decide-ends", "tell-outcomes"), _nothing),
    "creations from 60 addresses": (("keys",), _repeated(_create)),
    "events with 100 listeners": (("listeners",), _repeated(_event, 8)),
    "answers that nobody reads": (("keys", "fire-ticks"), _unread),
}
