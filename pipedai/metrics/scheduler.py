"""The scheduler process's metrics: figures about its jobs, and a small server that answers scrapes."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics

from pipedai.loop import Job
from pipedai.metrics.exposition import CLOCK_SKEW, begin, exposition, refusal, skew_of_this_process

JOB_SECONDS = Histogram(
    "pipedai_job_duration_seconds",
    "Time that one batch of a job of the scheduler took, also one that found nothing to do.",
    ["job"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
JOB_UNITS = Counter("pipedai_job_units", "Units of work that a job of the scheduler did.", ["job"])
JOB_FAILURES = Counter("pipedai_job_failures", "Batches of a job that ended in an error.", ["job"])
JOB_LAST_SUCCESS = Gauge(
    "pipedai_job_last_success_timestamp_seconds",
    "When a job last ended without an error, in seconds since 1970.",
    ["job"],
)


def measured(jobs: Iterable[Job]) -> tuple[Job, ...]:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # No time stamps of counters.
    begin()
    CLOCK_SKEW.set_function(skew_of_this_process)
    return tuple(replace(job, work=_timed(job)) for job in jobs)


def _timed(job: Job) -> Callable[[], int]:
    seconds = JOB_SECONDS.labels(job.name)
    units = JOB_UNITS.labels(job.name)
    failures = JOB_FAILURES.labels(job.name)
    succeeded = JOB_LAST_SUCCESS.labels(job.name)

    def work() -> int:
        with seconds.time(), failures.count_exceptions():
            done = job.work()
        units.inc(done)
        succeeded.set(time.time())
        return done

    return work


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    # A client that sends nothing keeps its thread for at most this many seconds.
    timeout = 10

    def log_message(self, *_args: Any) -> None:
        """Logs nothing, because scrapes are frequent and their log lines would be useless."""


def serve_metrics(bind: str, token: str) -> str:
    """Answer scrapes in threads, and return the address. `bind` is `host:port`; port 0 means any free one. Raises
    ValueError, and OSError if the port is taken.
    """
    host, _, port = bind.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("SCHEDULER_METRICS_BIND must be host:port, such as 127.0.0.1:9464.")

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        method, sent = environ["REQUEST_METHOD"], environ.get("HTTP_AUTHORIZATION")
        refused = refusal(environ["PATH_INFO"], method, sent, token)
        status, headers, body = refused or exposition(REGISTRY, environ.get("HTTP_ACCEPT", ""))
        told = [(name.decode(), value.decode()) for name, value in headers]
        start_response(f"{status.value} {status.phrase}", told)
        yield b"" if method == "HEAD" else body

    server = make_server(host, int(port), answer, server_class=_Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return f"{host}:{server.server_port}"
