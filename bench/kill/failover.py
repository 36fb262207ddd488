"""Kills the primary and promotes its synchronous standby, again and again, while runs flow."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from bench.cast import register
from bench.figures import Json, machine, print_table
from bench.http import Connection
from bench.kill.client import Client, plan
from bench.kill.crew import CAPACITY, LEASE_SECONDS, WEB_PROCESSES, Crew, crew
from bench.kill.processes import Scheduler
from bench.kill.siege import LOAD
from bench.kill.verdict import Evidence, judge, judge_given_up
from testing.processes.failure import ProcessFailed
from testing.processes.postgres_nodes import Nodes, nodes

_WORKERS = 3
# How soon after its promotion web, scheduler and LISTEN must have found the new primary.
FOUND_SECONDS = 5.0
_LONGEST_SECONDS = 60.0
_PAUSE_SECONDS = 0.02
# How long a request may take until it counts as unanswered, and is sent again.
_REQUEST_SECONDS = 1.0
_SESSIONS = """
SELECT count(*) FILTER (WHERE application_name = 'pipedai-listen' AND query LIKE 'LISTEN%') AS listening,
    count(*) FILTER (WHERE application_name = '{scheduler}') AS scheduling
FROM pg_stat_activity WHERE datname = current_database()
"""


def run(*, runs: int, seconds: float, seed: int, say: Callable[[str], None]) -> Json:
    """Fail over for `seconds`, judge, and return the result as JSON. Raises ProcessFailed if anything is wrong."""
    say("Starting a primary, a synchronous standby, the web server, the scheduler and workers…")
    rng = random.Random(seed)
    with (
        nodes(2, RUN_LEASE_SECONDS=str(LEASE_SECONDS)) as on,
        crew(on, workers=_WORKERS) as all_of_them,
    ):
        found = machine(on)
        with Connection(all_of_them.served.port) as connection:
            cookie = register(connection)
        busy = LOAD * _WORKERS * CAPACITY * seconds / runs
        requests = plan(rng, all_of_them.pairs, runs=runs, seconds=seconds, busy_seconds=busy)
        client = Client(all_of_them.served.port, all_of_them.pairs[0].api_key, requests)
        say(f"{runs} runs, and failovers for {seconds:g} s…")
        until = time.monotonic() + seconds
        failovers: list[Json] = []
        while not failovers or time.monotonic() < until:
            all_of_them.go_on(time.monotonic() + rng.uniform(1, 3))
            failovers.append(_fail_over(on, all_of_them, cookie, rng))
        say("Waiting for all runs to end…")
        client.join()
        all_of_them.settle()
        all_of_them.stop()
        evidence = Evidence(on, all_of_them.workers, client.answers)
    judge(evidence, requests)
    judge_given_up(evidence, set())
    without = [each["secondsWithoutService"] for each in failovers]
    return {
        "machine": found,
        "seconds": seconds,
        "runs": runs,
        "failovers": failovers,
        "longestSecondsWithoutService": max(without),
        "sumOfSecondsWithoutService": round(sum(without), 2),
        "requestsRepeated": client.lost_answers,
        **evidence.summary(),
    }


def show(result: Json) -> None:
    """Print a line for each failover: all in seconds, and those of the last three columns since the promotion."""
    heads = ["rebuilt by", "promoted after", "without service", "web", "scheduler", "LISTEN"]
    names = [
        "rebuiltBy",
        "secondsToPromotion",
        "secondsWithoutService",
        "web",
        "scheduler",
        "listen",
    ]
    print_table(heads, [[each[name] for name in names] for each in result["failovers"]])
    print()


def _fail_over(on: Nodes, crew: Crew, cookie: str, rng: random.Random) -> Json:
    """Kill the primary, promote the standby a moment later, and make the killed one the new standby."""
    _wait_until_all_use(on)
    killed = time.monotonic()
    on.primary.kill()
    probe = _WriteProbe(crew.served.port, cookie)
    time.sleep(rng.uniform(0, 2))
    on.promote_standby()
    promoted = time.monotonic()
    found = _found(on, probe, promoted)
    assert probe.answered is not None
    late = {name: at for name, at in found.items() if at > FOUND_SECONDS}
    if late:
        raise ProcessFailed(f"Seconds after the promotion until the new primary was found: {late}.")
    rebuild = rng.choice((on.standby.copy, on.standby.rewind))
    rebuild(on.primary)
    on.follow()
    return {
        "rebuiltBy": "pg_basebackup" if rebuild == on.standby.copy else "pg_rewind",
        "secondsToPromotion": round(promoted - killed, 2),
        "secondsWithoutService": round(probe.answered - killed, 2),
        **{name: round(at, 2) for name, at in found.items()},
    }


def _found(on: Nodes, probe: "_WriteProbe", promoted: float) -> dict[str, float]:
    """Wait until web, scheduler and LISTEN use the new primary. Return how long each took, in seconds."""
    found: dict[str, float] = {}
    while len(found) < 3:
        if time.monotonic() - promoted > _LONGEST_SECONDS:
            raise ProcessFailed(f"Not all found the new primary within a minute, only {found}.")
        if probe.answered is not None:
            found.setdefault("web", max(0.0, probe.answered - promoted))
        for name in _with_sessions(on):
            found.setdefault(name, time.monotonic() - promoted)
        time.sleep(_PAUSE_SECONDS)
    return found


def _wait_until_all_use(on: Nodes) -> None:
    """Wait until scheduler and LISTEN use the primary: a process that still starts can't find another one."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while len(_with_sessions(on)) < 2:
        if time.monotonic() > deadline:
            raise ProcessFailed("Scheduler and LISTEN have not connected within a minute.")
        time.sleep(_PAUSE_SECONDS)


def _with_sessions(on: Nodes) -> list[str]:
    """Return which of scheduler and LISTEN, of all web processes, have sessions at the primary."""
    with suppress(psycopg.OperationalError):
        sessions = on.one(_SESSIONS.format(scheduler=Scheduler.session_name))
        there = {
            "scheduler": sessions["scheduling"] > 0,
            "listen": sessions["listening"] >= WEB_PROCESSES,
        }
        return [name for name, is_there in there.items() if is_there]
    return []


class _WriteProbe:
    """Sends a request that writes, in a thread of its own, until one is answered."""

    def __init__(self, port: int, cookie: str) -> None:
        self.answered: float | None = None
        self._port = port
        self._cookie = cookie
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        while self.answered is None:
            with (
                suppress(OSError, ProcessFailed),
                Connection(self._port, timeout=_REQUEST_SECONDS) as connection,
            ):
                body = {"name": "Probe"}
                connection.call("POST", "/workspaces", cookie=self._cookie, body=body)
                self.answered = time.monotonic()
            time.sleep(_PAUSE_SECONDS)
