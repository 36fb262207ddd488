"""A process is killed between any two statements of a delivery: what was answered 202 is there, and nothing twice.

PostgreSQL ends the session, as it does when it notices that a client was killed: before a statement or after it.
"""

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.http.request import HttpHeaders
from psycopg import sql

from testing.world.cast import Cast
from testing.world.events import add_source, github, listen
from triggers.events.receiving import Delivery, receive
from triggers.models import Event, EventDecision, Run


def signed(body: bytes) -> dict[str, str]:
    """Returns the headers of a delivery as WSGI has them."""
    return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in github(body).items()}


class Killed(Exception):  # noqa: N818 - named as what happened
    """The process does not live on after this."""


class Killer:
    """Kills the session at its statement `at`, after it or before."""

    def __init__(self, session: Any, at: int, *, after: bool) -> None:
        self.session, self.left, self.after = session, at, after
        self.has_killed = False

    def __call__(self, execute: Any, *statement: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            self._kill()
        result = execute(*statement)
        if self.left == 0:
            self._kill()
        return result

    def _kill(self) -> None:
        self.has_killed = True
        pid = connection.connection.info.backend_pid
        self.session.execute(sql.SQL("SELECT pg_terminate_backend({}, 5000)").format(pid))
        raise Killed


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True], ids=["before a statement", "after it"])
def test_a_killed_delivery_is_taken_once_when_it_is_sent_again(
    committed_cast: Cast, own_database: str, after: bool
) -> None:
    source_id = add_source(committed_cast)
    listen(committed_cast.trigger_id, source_id=source_id)
    params = connection.get_connection_params()
    kept = {name: params[name] for name in ("host", "port", "user", "password") if params.get(name)}
    with psycopg.connect(**kept, dbname=own_database, autocommit=True) as session:
        kills, has_killed = 0, True
        while has_killed:
            body = b'{"n": %d}' % kills
            delivery = Delivery(source_id, HttpHeaders(signed(body)), body, "192.0.2.1")
            killer = Killer(session, kills + 1, after=after)
            with suppress(Killed), connection.execute_wrapper(killer):
                receive(delivery)
            if has_killed := killer.has_killed:
                with suppress(Exception):
                    connection.close()
            told = receive(delivery)
            kills += 1
            assert told == {"id": Event.objects.latest("id").id}
            assert Event.objects.count() == kills
            assert Run.objects.count() == EventDecision.objects.count() == kills
    assert kills > 8
