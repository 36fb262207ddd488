"""GET /health and /health/live"""

import contextlib
from collections.abc import Iterator

import httpx
import pytest
from django.db import connection, connections

from pipedai.clocks import EDITION
from pipedai.version import VERSION
from testing.processes.web_process import Server
from testing.world.cast import bearer, browser

HEALTH, LIVE = "/api/v1/health", "/api/v1/health/live"


@pytest.mark.django_db
@pytest.mark.parametrize("url", [HEALTH, LIVE])
def test_it_answers_ok(url):
    response = browser().get(url)
    assert (response.status_code, response.json()) == (
        200,
        {"status": "ok", "version": VERSION, "tzdata": EDITION},
    )


@pytest.mark.django_db
@pytest.mark.parametrize("url", [HEALTH, LIVE])
@pytest.mark.parametrize("token", ["pwk_x", "nonsense", ""])
def test_credentials_do_not_matter(url, token):
    assert bearer(token).get(url).status_code == 200


def test_live_asks_no_database():
    """This test has no database mark, so any use of the database raises an error."""
    assert browser().get(LIVE).status_code == 200


def test_a_served_api(own_database: str, server: Server, subtests: pytest.Subtests):
    """Both are one test, because starting the server takes longer than all the requests here."""
    with subtests.test("The event loop answers as a thread would."):
        _the_event_loop_answers_as_a_thread_would(server)
    with subtests.test("Without its database it is 503, and then well again."):
        _without_its_database_it_is_503_and_then_well_again(own_database, server)


def _the_event_loop_answers_as_a_thread_would(server: Server):
    def answer(method: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        response = httpx.request(method, f"{server.api}/health/live", headers=headers)
        unlike = {"x-request-id", "date"}
        return (
            response.status_code,
            response.content,
            {name: value for name, value in response.headers.items() if name not in unlike},
        )

    for method in ("GET", "HEAD"):
        # A thread answers a page of another origin, because the answer needs more headers.
        assert answer(method) == answer(method, Origin="https://elsewhere.example")
    assert answer("GET", Host="10.0.0.10")[0] == 200
    assert answer("POST")[0] == 405


def _without_its_database_it_is_503_and_then_well_again(own_database: str, server: Server):
    def statuses() -> list[int]:
        return [httpx.get(f"{server.api}/{name}").status_code for name in ("health", "health/live")]

    assert statuses() == [200, 200]
    with _nobody_connects_to(own_database):
        response = httpx.get(f"{server.api}/health")
        assert response.status_code == 503
        assert response.json() == {
            "error": "The database does not answer.",
            "code": "database_unavailable",
        }
        assert response.headers["retry-after"] == "1"
        assert statuses() == [503, 200]
    assert statuses() == [200, 200]


@contextlib.contextmanager
def _nobody_connects_to(database: str) -> Iterator[None]:
    """Ends all sessions of a database, and allows no new one for the time of the block."""
    connections.close_all()
    with connection._nodb_cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        try:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s",
                [database],
            )
            yield
        finally:
            cursor.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
