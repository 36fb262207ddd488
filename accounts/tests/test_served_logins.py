"""Many logins at once wait for their turn, and delay no other call of a served API."""

import socket
import ssl
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from accounts.models import Session
from testing.processes.web_process import serve
from testing.processes.worker_process import until
from testing.world.cast import make_cast, session_cookie
from testing.world.users import PASSWORD, UserFactory

ADA = "ada@example.com"
MANY, OTHER = "203.0.113.7", "198.51.100.9"
# Made once, because httpx makes one for each call otherwise, which takes longer than a login, one call after the other.
TLS = ssl.create_default_context()


@pytest.fixture
def ada(own_database):
    return UserFactory.create(email=ADA)


@pytest.fixture
def small(own_database, tmp_path):
    """Serves the API with two threads, one of which hashes, and trusts a proxy's word on the client's address."""
    environment = {"WEB_THREADS": "2", "TRUSTED_PROXIES": "127.0.0.1"}
    with serve(own_database, log=tmp_path / "web.log", **environment) as server:
        yield server


def log_in(server, address=MANY):
    return httpx.post(
        f"{server.api}/auth/login",
        json={"email": ADA, "password": PASSWORD},
        headers={"X-Forwarded-For": address},
        timeout=90,
        verify=TLS,
    ).status_code


class Flood:
    """Sends so many logins at once from one address."""

    def __init__(self, server, count):
        self._pool = ThreadPoolExecutor(count)
        self._answers = [self._pool.submit(log_in, server) for _ in range(count)]
        until(self.answered)

    def answered(self):
        """Returns how many have been answered."""
        return sum(map(Future.done, self._answers))

    def statuses(self):
        """Waits for all answers and returns their statuses."""
        statuses = [answer.result(90) for answer in self._answers]
        self._pool.shutdown()
        return statuses


def test_many_logins_at_once_wait_for_their_turn(ada, small, subtests):
    """All is one test, because starting the API takes longer than the logins."""
    with subtests.test("eight at once all come in"):
        assert Flood(small, 8).statuses() == [200] * 8
        assert Session.objects.count() == 8
    with subtests.test("they take no turn from another address, and no thread from other calls"):
        _they_take_no_turn_from_another_address_and_no_thread_from_other_calls(small)
    with subtests.test("a second cookie in a header of its own is seen"):
        _a_second_cookie_in_a_header_of_its_own_is_seen(small)


def _they_take_no_turn_from_another_address_and_no_thread_from_other_calls(small):
    flood = Flood(small, 20)
    before = flood.answered()
    assert log_in(small, OTHER) == 200
    assert flood.answered() - before < 10
    answers = 0
    while flood.answered() < 18:
        assert httpx.get(f"{small.api}/auth/me", timeout=90, verify=TLS).status_code == 401
        assert httpx.get(f"{small.api}/health", timeout=90, verify=TLS).status_code == 200
        answers += flood.answered() < 18
    assert set(flood.statuses()) <= {200, 503}
    # If each login held a thread, the flood would hold both, and no other call would be answered until its end.
    assert answers


def _a_second_cookie_in_a_header_of_its_own_is_seen(small):
    """A page on a sister domain has set it: see TestATossedCookie in test_session_attacks.py."""
    cast = make_cast()
    ours, theirs = session_cookie(cast.owner), session_cookie(cast.stranger)
    url = httpx.URL(small.url)
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        connection.sendall(
            f"GET /api/v1/auth/me HTTP/1.1\r\nHost: localhost\r\nCookie: auth_token={theirs}\r\n"
            f"Cookie: auth_token={ours}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401 ")
