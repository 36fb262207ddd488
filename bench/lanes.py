"""Compares the two-lane server with gunicorn's gthread: CPU of the same DRF call (part of `bin/bench lifecycle`)."""

import time
from collections.abc import Sequence

from bench.cast import Pair
from bench.failure import BenchFailed
from bench.figures import Json, ratio
from bench.http_client import Connection, check, request
from bench.http_measure import drive_all
from bench.load import Window
from bench.stack import PRODUCT, Database, Program, web

# The same application with the same settings, on gthread. Both servers write an access log to a file.
GTHREAD = Program(
    (
        "-m", "gunicorn", "-c", "python:pipedai.server.gunicorn_conf", "-k", "gthread",
        "--threads", "8", "--access-logfile", "-", "pipedai.wsgi:application",
    ),
    {"DJANGO_SETTINGS_MODULE": "testing.settings"},
)  # fmt: skip
# The servers take turns so many times, so that neither has the machine's faster minutes.
_ROUNDS = 2


def compare(on: Database, pairs: Sequence[Pair], *, seconds: float, processes: int) -> Json:
    """Return each server's web CPU milliseconds per request and requests per second, and the ratio."""
    used = {"lanes": 0.0, "gthread": 0.0}
    done = {"lanes": 0, "gthread": 0}
    with (
        web(on, processes=processes, program=PRODUCT) as lanes,
        web(on, processes=processes, program=GTHREAD) as gthread,
    ):
        for _ in range(_ROUNDS):
            for name, served in (("lanes", lanes), ("gthread", gthread)):
                found = drive_all(_read_trigger, on, served, pairs, seconds / _ROUNDS)
                used[name] += found.cpu.web
                done[name] += sum(found.measured)
    if not all(done.values()):
        raise BenchFailed("No request was answered within the time: give it more --seconds.")
    each = {name: 1000 * used[name] / done[name] for name in used}
    return {
        "clients": len(pairs),
        **{
            name: {
                "webCpuMs": round(each[name], 3),
                "requestsPerSecond": round(done[name] / seconds, 1),
            }
            for name in used
        },
        "ofGthread": ratio(each["lanes"], each["gthread"]),
    }


def _read_trigger(port: int, pair: Pair, window: Window) -> int:
    sent = request("GET", f"/triggers/{pair.trigger_id}", token=pair.api_key)
    answered = 0
    with Connection(port) as connection:
        while time.monotonic() < window.end:
            check(sent, connection.exchange(sent))
            answered += time.monotonic() in window
    return answered
