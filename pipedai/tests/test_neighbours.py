"""One customer's flood of the whole service leaves another customer's calls, webhooks and schedules their turns.

The floods are of a kind that only all parts together can withstand. Quick tests repeat the other attacks, each beside
the code that stops it; docs/security.md lists them.
"""

import contextlib
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from django.utils.timezone import now

from testing.processes.scheduler_process import scheduling
from testing.processes.web_process import Server, serve
from testing.processes.worker_process import until
from testing.world.cast import TEST_ACTOR, Cast, make_cast, session_cookie
from testing.world.many_deliveries import add_deliveries
from testing.world.many_runs import add_queued
from testing.world.many_triggers import add_triggers
from testing.world.runs import allow
from testing.world.users import PASSWORD
from triggers.models import Delivery, Run, Tick, Trigger
from triggers.webhooks.outbox import send_test

pytestmark = pytest.mark.long

_MIB = 2**20
_LIFECYCLES = 3
# As many due triggers as the scheduler takes at once, of all customers together.
_BATCH = 500


@pytest.fixture
def served(own_database: str, tmp_path: Path) -> Iterator[Server]:
    """Serves the API with its throttles. Callers name their addresses in a header, as a proxy does."""
    settings = {"DJANGO_SETTINGS_MODULE": "pipedai.settings", "TRUSTED_PROXIES": "127.0.0.1"}
    with serve(own_database, log=tmp_path / "web.log", LOG_FORMAT="json", **settings) as server:
        yield server
    assert "Traceback" not in server.log.read_text()


class Neighbour:
    """A customer who goes on as on any day, from an address of their own. Each of their calls must succeed."""

    def __init__(self, served: Server, cast: Cast) -> None:
        self._cast, self._api = cast, served.api
        self._key = cast.mint("pwk")
        self._cookie = session_cookie(cast.owner)

    def live(self) -> None:
        """Executes some runs, one after another, and looks at them."""
        run = f"/workers/{self._cast.worker.worker_id}/runs"
        environment = f"/environments/{self._cast.environment.id}"
        with httpx.Client(
            base_url=self._api,
            trust_env=False,
            timeout=60,
            headers={"X-Forwarded-For": "192.0.2.1"},
        ) as http:

            def call(method: str, path: str, token: str = "", **sent: object) -> httpx.Response:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                answer = http.request(method, path, headers=headers, **sent)  # type: ignore[arg-type]
                return answer.raise_for_status()

            worker = self._cast.worker.worker_token
            for _ in range(_LIFECYCLES):
                made = call("POST", f"/triggers/{self._cast.trigger_id}/run", self._key).json()
                path = f"/workers/{self._cast.worker.worker_id}/poll"
                (handed_out,) = call("GET", path, worker).json()["runs"]
                assert handed_out["id"] == made["id"]
                for step in ("claim", "start", "heartbeat"):
                    call("POST", f"{run}/{made['id']}/{step}", worker, json={})
                outcome = {"status": "succeeded"}
                call("POST", f"{run}/{made['id']}/complete", worker, json=outcome)
                cookies = {"Cookie": f"auth_token={self._cookie}"}
                http.get(f"{environment}/runs", headers=cookies).raise_for_status()
                call("GET", "/health/live")

    def log_in(self) -> bool:
        """Logs in. Returns False if there was no turn within five seconds, after which a client tries again."""
        answer = httpx.post(
            f"{self._api}/auth/login",
            json={"email": self._cast.owner.email, "password": PASSWORD},
            headers={"X-Forwarded-For": "192.0.2.1"},
            trust_env=False,
            timeout=60,
        )
        if answer.status_code == 503:
            assert answer.headers["retry-after"]
            return False
        answer.raise_for_status()
        return True


@contextlib.contextmanager
def flooding(*flood: Callable[[], str]) -> Iterator[Counter[str]]:
    """Lets each of these do its worst again and again, in a thread of its own. Counts what came of it."""
    came: Counter[str] = Counter()
    stop = threading.Event()

    def attack(once: Callable[[], str]) -> None:
        while not stop.is_set():
            try:
                came[once()] += 1
            except (OSError, httpx.TransportError):
                came["closed"] += 1
            stop.wait(0.1)

    threads = [threading.Thread(target=attack, args=(each,), daemon=True) for each in flood]
    for thread in threads:
        thread.start()
    try:
        yield came
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def connected(served: Server, sent: bytes) -> socket.socket:
    """Returns a connection with a small buffer, on which this has been sent."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    host, port = served.url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    connection.sendall(sent)
    return connection


def random_address() -> str:
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"


def test_endless_bodies_and_unread_answers_leave_memory_and_turns_to_others(
    served: Server, committed_cast: Cast
) -> None:
    other = make_cast()
    allow(other.worker.worker_id, 50)
    large = other.add_trigger(prompt="Work. " * (256 * 1024 // 6))
    add_queued(large, 50)
    poll = (
        f"GET /api/v1/workers/{other.worker.worker_id}/poll HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {other.worker.worker_token}\r\n\r\n"
    ).encode()

    def endless_body() -> str:
        head = (
            "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            f"Content-Type: application/json\r\nX-Forwarded-For: {random_address()}\r\n\r\n"
        )
        with connected(served, head.encode()) as connection:
            with contextlib.suppress(ConnectionError):  # It was refused.
                for _ in range(60):
                    connection.sendall(b"2\r\n  \r\n" * 8192)
            return "a body"

    def unread_answer() -> str:
        with connected(served, poll) as connection:
            status = connection.recv(12, socket.MSG_PEEK)[9:].decode()
            threading.Event().wait(1)
            return status

    (child,) = psutil.Process(served.process.pid).children()
    neighbour = Neighbour(served, committed_cast)
    neighbour.live()
    before = child.memory_info().rss
    with flooding(*[endless_body] * 4, *[unread_answer] * 12) as came:
        until(lambda: came["a body"] and came["200"], seconds=120)
        neighbour.live()
        most = child.memory_info().rss - before
    # Two polls of a worker are answered at a time.
    assert came["429"] > came["200"] > 0
    assert most < 100 * _MIB


def test_slow_webhooks_and_due_triggers_of_one_customer_keep_no_other_one_waiting(
    served: Server, committed_cast: Cast, own_database: str, receiver, tmp_path: Path
) -> None:
    other, cast = make_cast(), committed_cast
    # A socket on which nobody accepts connections: the system takes them, and no answer ever comes.
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as deaf:
        add_deliveries(other.trigger_id, 1000, due=now(), hosts=40)
        for number, host in enumerate(Delivery.objects.values_list("host", flat=True).distinct()):
            address = f"127.0.1.{number + 1}"
            Delivery.objects.filter(host=host).update(
                host=address, url=f"http://{address}:{deaf.getsockname()[1]}/"
            )
        add_triggers(other, 2000, schedule="* * * * *")
        add_triggers(other, 2000, schedule="* * * * *", worker_id=None)
        machine = cast.register("host-2").worker_id
        mine = cast.add_trigger(schedule="* * * * *", worker_id=machine, webhook_url=receiver.url())
        minute = now().replace(second=0, microsecond=0)
        Trigger.objects.filter(schedule__isnull=False).update(next_run_at=minute)
        send_test(trigger_id=mine, actor=TEST_ACTOR)
        settings = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
        with scheduling(own_database, log=tmp_path / "scheduler.log", **settings):
            Neighbour(served, cast).live()
            # Sixteen at a time, each for ten seconds, the flood's own webhooks would take ten minutes.
            assert receiver.arrived.acquire(timeout=60)
            ticks = Tick.objects.filter(tick_at=minute)
            until(lambda: ticks.count() == 4001)
    of_other = Delivery.objects.filter(environment=other.environment)
    assert of_other.filter(status="pending").count() == 1000
    decided = ticks.get(trigger_id=mine).decided_at
    assert ticks.filter(decided_at__lt=decided).count() <= _BATCH
    assert Run.objects.filter(trigger_id=mine, scheduled_for=minute).exists()


def test_wrong_passwords_from_everywhere_leave_a_login_and_other_calls_their_turns(
    served: Server, committed_cast: Cast
) -> None:
    def wrong_password() -> str:
        answer = httpx.post(
            f"{served.api}/auth/login",
            json={"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_hex(8)},
            headers={"X-Forwarded-For": random_address()},
            trust_env=False,
            timeout=60,
        )
        assert answer.status_code != 503 or answer.headers["retry-after"]
        return str(answer.status_code)

    neighbour = Neighbour(served, committed_cast)
    with flooding(*[wrong_password] * 16) as came:
        until(lambda: came["401"])
        neighbour.live()
        until(neighbour.log_in)
    assert came.keys() <= {"401", "503"}
