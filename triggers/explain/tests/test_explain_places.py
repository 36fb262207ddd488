"""An explanation has one of its environment's two places until it is worked out, whether or not its client waits."""

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
from django.db import transaction

from pipedai.sql import execute, fetch_one
from testing.processes.web_process import Server
from testing.processes.worker_process import until
from testing.world.cast import Cast
from testing.world.runs import Runs

# Other tests wait for locks in other databases of the same server.
_WAITING = """
SELECT count(*) AS number FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE NOT l.granted AND d.datname = current_database()
"""


def _number_waiting() -> int:
    row = fetch_one(_WAITING, {})
    assert row is not None
    return int(row["number"])


def test_a_place_is_free_again_when_the_work_is_done_and_not_when_its_client_leaves(
    committed_cast: Cast, server: Server
) -> None:
    path = f"/api/v1/runs/{Runs.of(committed_cast).queue()}/explain"
    authorization = f"Bearer {committed_cast.mint('pwk')}"

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
