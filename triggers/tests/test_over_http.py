"""What only a served API shows of hooks and of explanations."""

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from django.db import transaction

from pipedai.sql import execute, fetch_one
from testing.processes.web_process import Server
from testing.processes.worker_process import until
from testing.world.cast import Cast
from testing.world.events import add_source, github, listen
from testing.world.runs import Runs
from triggers.models import Event, Run


def test_a_served_api(committed_cast: Cast, server: Server, subtests: pytest.Subtests) -> None:
    """This is one test, because starting a server takes longer than all the requests here."""
    _a_hook(committed_cast, server, subtests)
    with subtests.test("places of explanations"):
        _a_place_is_free_again_when_the_work_is_done_and_not_when_its_client_leaves(
            committed_cast, server
        )


# --- The same delivery twenty times at once is one event and one run, and any type of content is taken

TYPES = [
    "application/json; charset=iso-8859-1",
    "application/json; charset=punycode",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "text/plain; title*=utf-16''x",
    "nonsense",
]


def _a_hook(cast: Cast, server: Server, subtests: pytest.Subtests) -> None:
    source_id = add_source(cast)
    listen(cast.trigger_id, source_id=source_id)
    url = f"{server.api}/hooks/{source_id}"

    def deliver(body: bytes, **headers: str) -> httpx.Response:
        while True:
            answer = httpx.post(url, content=body, headers=github(body, **headers), timeout=60)
            # On a slow machine a duplicate may wait too long for the first one, and is sent again, as a sender would.
            if answer.status_code != 503:
                return answer

    with subtests.test("the same delivery twenty times at once"):
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: deliver(b'{"n": 1}'), range(20)))
        assert [answer.status_code for answer in answers] == [202] * 20
        (told,) = {answer.json()["id"] for answer in answers}
        event = Event.objects.get()
        assert (str(event.id), event.duplicates) == (told, 19)
        assert Run.objects.get().event_id == event.id
    for number, type_ in enumerate(TYPES):
        with subtests.test(type_):
            answer = deliver(b'{"of": %d}' % number, **{"Content-Type": type_})
            assert answer.status_code == 202
    with subtests.test("compressed"):
        answer = deliver(b"[]", **{"Content-Encoding": "gzip"})
        assert answer.status_code == 415
    with subtests.test("no signature, in any odd form"):
        for value in ("", "sha256=", "sha256=\xff\xfe", "sha256=" + "f" * 7000, "sha1=1,sha256=2"):
            sent = {b"X-Hub-Signature-256": value.encode("latin-1")}
            assert httpx.post(url, content=b"{}", headers=sent, timeout=60).status_code == 401
    with subtests.test("no id of a source"):
        assert httpx.post(f"{server.api}/hooks/1", content=b"{}", timeout=60).status_code == 404


# --- An explanation has one of its environment's two places until it is worked out, whether or not its client waits

# Other tests wait for locks in other databases of the same server.
_WAITING = """
SELECT count(*) AS number FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE NOT l.granted AND d.datname = current_database()
"""


def _number_waiting() -> int:
    row = fetch_one(_WAITING, {})
    assert row is not None
    return int(row["number"])


def _a_place_is_free_again_when_the_work_is_done_and_not_when_its_client_leaves(
    cast: Cast, server: Server
) -> None:
    path = f"/api/v1/runs/{Runs.of(cast).queue()}/explain"
    authorization = f"Bearer {cast.mint('pwk')}"

    def ask() -> httpx.Response:
        headers = {"Authorization": authorization}
        return httpx.get(f"{server.url}{path}", headers=headers, timeout=60)

    url = httpx.URL(server.url)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            # An explanation reads this table, and neither the authentication nor the access check does.
            execute("LOCK TABLE run_text IN ACCESS EXCLUSIVE MODE", {})
            patient = pool.submit(ask)
            with socket.create_connection((url.host, url.port)) as leaving:
                request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n"
                leaving.sendall(request.encode())
                until(lambda: _number_waiting() == 2)
                assert ask().status_code == 429
            refused = ask()
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["code"] == "throttled"
            assert _number_waiting() == 2
        assert patient.result().status_code == 200
    until(lambda: [ask().status_code for _ in range(3)] == [200] * 3)
