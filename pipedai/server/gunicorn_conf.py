"""Configures gunicorn from environment variables alone. `python -m pipedai.server` starts it."""

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

# mypy: disallow-untyped-calls=False
from gunicorn.glogging import Logger

from pipedai import checks, env, tracing
from pipedai.embedded.cluster import EmbeddedPostgresError
from pipedai.embedded.server import of_settings
from pipedai.logs import log_start
from pipedai.metrics import forget_process, make_directory, remove_directory
from pipedai.server.request_scope import parse_networks


class ChainLogger(Logger):
    """gunicorn's logger without its own handlers, so that its lines go to the handlers of the root logger."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.propagate = True
        # gunicorn makes its logger once for each start, before it logs anything. So this is the place to log that the
        # process starts.
        log_start("web")

    def _set_handler(self, *_args: Any, **_kwargs: Any) -> None:
        """Add no handler, so that the root logger's handlers alone write gunicorn's lines."""


try:
    _production = settings.PRODUCTION
    parse_networks(settings.TRUSTED_PROXIES)
    _address = f"{'0.0.0.0' if _production else '127.0.0.1'}:{settings.PORT}"  # noqa: S104
    bind = env.words("WEB_BIND", (_address,))
    workers = settings.WEB_CONCURRENCY
except (ImproperlyConfigured, ValueError) as error:
    sys.exit(str(error))

worker_class = "pipedai.server.worker.Worker"
asgi_loop = "asyncio"
http_parser = "python"
preload_app = False
proc_name = "pipedai"

# gunicorn kills a worker process that shows no sign of life for this many seconds. The event loop gives one every
# second, so a minute of silence means that it hangs.
timeout = 60
# Requests under way at SIGTERM may take this many seconds more. Heroku kills the process after 30 s.
graceful_timeout = 25
# The seconds after which an idle connection is closed. Common routers close theirs after 60 s, so the router closes
# first, and never sends a request on a connection that we are closing.
keepalive = 75
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

# gunicorn itself trusts no proxy, because pipedai.server.request_scope decides about proxies.
forwarded_allow_ips = ""
# gunicorn's control socket would lie in the home directory and accept commands, so there is none.
control_socket_disable = True

accesslog = None
loglevel = settings.LOG_LEVEL.lower()
logger_class = ChainLogger


def refuse_unfit_settings() -> None:
    """Exit with a sentence if a setting is unfit, or leads to an embedded database that nobody has made."""
    try:
        checks.refuse_unfit_settings()
        tracing.is_on()
        if server := of_settings():
            server.verify_made()
    except (ImproperlyConfigured, EmbeddedPostgresError) as error:
        sys.exit(str(error))


def on_starting(server: Any) -> None:
    """Exit with a sentence if a setting is unfit or the port is taken, and make the metrics' directory."""
    refuse_unfit_settings()
    if not {"GUNICORN_FD", "LISTEN_FDS"} & set(os.environ):
        # gunicorn itself would try five times to bind a taken port before giving up. A process that was given open
        # sockets has bound them already.
        for address in server.cfg.address:
            if isinstance(address, tuple) and (problem := bind_problem(address)):
                sys.exit(problem)
    if settings.METRICS_TOKEN:
        _metrics.append(make_directory())


def child_exit(_server: Any, worker: Any) -> None:
    for directory in _metrics:
        forget_process(worker.pid, directory)


def on_exit(_server: Any) -> None:
    for directory in _metrics:
        remove_directory(directory)


# The directory where the worker processes share their metrics. The list is empty while metrics are off.
_metrics: list[Path] = []


def bind_problem(address: tuple[str, int]) -> str | None:
    """Returns None if a process can listen at the address, or a sentence that says why it can't."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server(address, family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"Port {port} of {host} is already in use: set PORT to another."
        return f"Nothing can listen on port {port} of {host}: {error.strerror}."
    return None
