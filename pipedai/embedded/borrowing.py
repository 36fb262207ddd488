"""Starts the embedded server for a command of manage.py, and stops it when the command ends."""

import sys
import time

import psycopg
from django.conf import settings

from pipedai.embedded.programs import EmbeddedPostgresError
from pipedai.embedded.server import EmbeddedPostgres

# The servers that this process has started for itself.
_borrowed: list[EmbeddedPostgres] = []


def borrow(server: EmbeddedPostgres, *, make: bool = False) -> None:
    """Ensure that a server runs, and remember it if this call has started it. Raises EmbeddedPostgresError, also if
    there is no cluster, unless `make` says to make one.
    """
    if server.ensure_running(make=make):
        _borrowed.append(server)


def make_database() -> None:
    """Make and start the embedded database if the settings name no other. Raises EmbeddedPostgresError."""
    if server := _named_by_settings():
        borrow(server, make=True)


def verify_made() -> None:
    """Raise NotMade, with a sentence for the operator, if the embedded database is to be used and there is none. A
    process that begins with this does not wait for a database that nobody will make.
    """
    if server := _named_by_settings():
        server.verify_made()


def _named_by_settings() -> EmbeddedPostgres | None:
    database = settings.DATABASES["default"]
    return (
        EmbeddedPostgres(database["DATA_DIR"]) if database["ENGINE"] == "pipedai.embedded" else None
    )


def give_back(*, patience: float = 3.0) -> None:
    """Stop the servers that this process has started. One that others use by now goes on, and standard error says so.

    All connections of this process must be closed. PostgreSQL has up to `patience` seconds to notice that.
    """
    while _borrowed:
        server = _borrowed.pop()
        deadline = time.monotonic() + patience
        try:
            while used := server.has_clients():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            if not used:
                server.stop()
        except psycopg.OperationalError:
            # Somebody else has stopped the server already.
            continue
        except EmbeddedPostgresError as error:
            sys.stderr.write(f"{error}\n")
            continue
        if used:
            sys.stderr.write(
                f"PostgreSQL in {server.layout.data_dir} runs on, because others use it.\n"
            )
