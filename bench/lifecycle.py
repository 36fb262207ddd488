"""Whole lifecycles of runs over HTTP, by the long protocol and the short one, beside the same steps as bare SQL.

Each client has a worker and a trigger, and repeats six calls: create, poll, claim, start, heartbeat, complete; or four,
of which claim-next stands for three. The figures that another machine can be compared by are the shares of bare SQL.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import bare_sql
from bench.cast import Pair, make_pairs
from bench.figures import Json, machine, print_table, ratio, show_calls
from bench.http import Answer, Connection, check, request
from bench.load import Measured, Window, keep_running, measure
from bench.options import count, one_or_more, seconds
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database, database, web

IN_ALL = ("", "--clients 16 --web-processes 2")
CALLS = ("create", "poll", "claim", "start", "heartbeat", "complete")
SHORT_CALLS = ("create", "claim-next", "heartbeat", "complete")
OUTCOME = {
    "status": "succeeded",
    "exitCode": 0,
    "shortMessage": "Three tickets need an answer first: 4711, 4712 and 4720.",
    "inputTokens": 5120,
    "outputTokens": 640,
    "cacheReadTokens": 2048,
    "cacheCreationTokens": 512,
    "costUsd": "0.0215",
    "numTurns": 4,
    "sessionId": "0e9d7c52-7c3e-4f0a-9a55-0b8f3c1f2d11",
    "model": "sonnet",
}
_AUDIT_ROWS = 4  # for each lifecycle: created, claimed, started, completed


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clients", type=one_or_more(count), default="1,16,64", help="each of these"
    )
    parser.add_argument("--seconds", type=seconds, default=10.0, help="for each measurement")
    parser.add_argument("--web-processes", type=count, default=1, help="of the web server")


def run(
    *, clients: Sequence[int], seconds: float, web_processes: int, say: Callable[[str], None]
) -> Json:
    """Measure with each number of clients. Raises ProcessFailed."""
    say("Starting PostgreSQL and the web server…")
    with database() as on, web(on, processes=web_processes) as served:
        found = machine(on)
        pairs = make_pairs(served.port, max(clients))
        bare_sql.prepare(on)
        results = []
        for number in clients:
            figures: Json = {"clients": number}
            for name, driven in (("http", drive), ("short", drive_short)):
                say(f"{number} clients over HTTP, {name}…")
                figures[name] = measure(driven, on, served, pairs[:number], seconds)
                _verify(on)
            say(f"{number} clients in bare SQL…")
            figures["bareSql"] = bare_sql.measure(on, clients=number, seconds=seconds)
            _verify(on)
            rate = figures["bareSql"]["lifecyclesPerSecond"]
            for name in ("http", "short"):
                figures[name]["ofBareSql"] = ratio(figures[name]["lifecyclesPerSecond"], rate)
            results.append(figures)
    return {"machine": found, "results": results}


def show(result: Json) -> None:
    rows: list[list[Any]] = []
    for at in result["results"]:
        for name, words in (("http", "long"), ("short", "short"), ("bareSql", "bare SQL")):
            figures = at[name]
            keys = ("webCpuMs", "postgresCpuMs", "loadCpuMs", "webRssMb")
            share = figures.get("ofBareSql")
            rows.append(
                [
                    words,
                    at["clients"],
                    figures["lifecyclesPerSecond"],
                    None if share is None else f"{100 * share:.1f} %",
                    figures["lifecycle"]["p50Ms"],
                    figures["lifecycle"]["p99Ms"],
                    *(figures.get(key) for key in keys),
                ]
            )
    cpu = ("web CPU ms", "PostgreSQL CPU ms", "load CPU ms", "web RSS MB")
    print_table(["lifecycle", "clients", "per s", "of bare SQL", "p50 ms", "p99 ms", *cpu], rows)
    for name, calls in (("http", CALLS), ("short", SHORT_CALLS)):
        print()
        show_calls(calls, {f"{at['clients']} clients": at[name] for at in result["results"]})


def _verify(on: Database) -> None:
    """Check that all runs have ended and have all their audit rows, since speed without guarantees does not count."""
    found = on.one(
        "SELECT count(*) AS runs, count(*) FILTER (WHERE status <> 'succeeded') AS unfinished,"
        " (SELECT count(*) FROM audit_entry WHERE target_type = 'run') AS entries FROM run"
    )
    if found["unfinished"] or found["entries"] != _AUDIT_ROWS * found["runs"]:
        raise ProcessFailed(f"The ledger and the audit log disagree: {found}.")


def drive(port: int, pair: Pair, window: Window) -> Measured:
    """Run one lifecycle after another until the window ends. It finishes the last one after that."""
    return keep_running(port, window, lambda connection: _run_once(connection, pair, short=False))


def drive_short(port: int, pair: Pair, window: Window) -> Measured:
    """Do the same by the short protocol."""
    return keep_running(port, window, lambda connection: _run_once(connection, pair, short=True))


def _run_once(connection: Connection, pair: Pair, *, short: bool) -> dict[str, float]:
    """Run one lifecycle, and return the seconds of each call. Raises ProcessFailed if anything is wrong."""
    times: dict[str, float] = {}

    def timed(name: str, sent: bytes) -> Answer:
        began = time.monotonic()
        answer = connection.exchange(sent)
        times[name] = time.monotonic() - began
        return check(sent, answer)

    def work(name: str, method: str, path: str, body: object = None) -> Any:
        path = f"/workers/{pair.worker_id}{path}"
        return timed(name, request(method, path, token=pair.worker_token, body=body)).json()

    fire = request("POST", f"/triggers/{pair.trigger_id}/run", token=pair.api_key)
    run = timed("create", fire).json()
    claim, path = {"claimId": f"bench-{os.getpid()}"}, f"/runs/{run['id']}"
    if short:
        taken = work("claim-next", "POST", "/claim-next", {**claim, "start": True})["run"] or {}
        if (taken.get("id"), taken.get("status")) != (run["id"], "running"):
            raise ProcessFailed(f"claim-next should have started run {run['id']}, and did not.")
    else:
        if [each["id"] for each in work("poll", "GET", "/poll")["runs"]] != [run["id"]]:
            raise ProcessFailed(f"A poll should have handed out run {run['id']} alone.")
        work("claim", "POST", f"{path}/claim", claim)
        work("start", "POST", f"{path}/start", {})
    work("heartbeat", "POST", f"{path}/heartbeat", {})
    ended = work("complete", "POST", f"{path}/complete", OUTCOME)
    if ended["status"] != "succeeded":
        raise ProcessFailed(f"Run {run['id']} should have succeeded, and is {ended['status']}.")
    return times
