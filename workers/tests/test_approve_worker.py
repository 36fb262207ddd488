"""A worker that no person approved gets no MCP headers until POST /workers/:id/approve."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from django.db import connection

from audit.models import AuditEntry
from pipedai.api.errors import NotFound
from pipedai.sql import database_now, fetch_all
from testing.probes.audited import audited
from testing.probes.statement_count import counted
from testing.processes.racing import ROUNDS, at_once
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import TEST_ACTOR, Cast, bearer, browser
from testing.world.runs import Runs
from triggers.runs import conditions, handout, statements
from triggers.services import TRIGGERS
from workers.models import Worker
from workers.registration import Registered
from workers.services import approve_worker

SECRET = "Bearer a-planted-secret"
HEADERS = {"Authorization": SECRET}
MACHINE = {"hostname": "host-2", "os": "linux", "version": "1.0"}


def _worker(registered: Registered) -> Worker:
    return Worker.objects.get(id=registered.worker_id)


def _ids(calls: WorkerCalls, **query: Any) -> list[str]:
    return [run["id"] for run in calls.poll(**query).json()["runs"]]


def _approve(cast: Cast, registered: Registered) -> Any:
    return cast.client(cast.admin).post(f"/api/v1/workers/{registered.worker_id}/approve")


@pytest.fixture
def unapproved(cast: Cast) -> Registered:
    return cast.register_by_key("host-2")


# --- The attack


class Caller:
    """A client of the served API, with a session of its own or with a token."""

    def __init__(self, http: httpx.Client, token: str | None = None) -> None:
        self._http = http
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Sends a request and returns the answer."""
        return self._http.request(method, path, json=body, headers=self._headers)

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """Sends a request, checks that it succeeds, and returns the body of the answer."""
        answer = self.send(method, path, body)
        assert answer.status_code < 300, answer.text
        return answer.json()


def test_a_leaked_admin_key_can_make_itself_no_worker_that_is_handed_headers(server) -> None:
    """The leaked key registers a worker over HTTP, whose poll gets no run with headers.

    Then an admin approves the worker, and the waiting poll gets the run.
    """
    with (
        httpx.Client(base_url=server.api, timeout=60) as session,
        httpx.Client(base_url=server.api, timeout=60) as outside,
    ):
        owner = Caller(session)
        account = {"email": "owner@example.com", "password": "a planted passphrase"}
        owner.done("POST", "/auth/register", account)
        workspace = owner.done("POST", "/workspaces", {"name": "Acme"})["id"]
        environments = f"/workspaces/{workspace}/environments"
        environment = f"/environments/{owner.done('POST', environments, {'name': 'prod'})['id']}"
        keys = f"{environment}/api-keys"
        wrk = owner.done("POST", keys, {"name": "w", "prefix": "wrk"})["token"]
        machine = {**MACHINE, "hostname": "host-1"}
        theirs = owner.done("POST", "/workers/register", {**machine, "token": wrk})
        values = {
            "name": "Nightly",
            "prompt": "Report.",
            "mcpUrl": "https://mcp.example/",
            "mcpHeaders": HEADERS,
            "workerId": theirs["workerId"],
        }
        trigger = f"/triggers/{owner.done('POST', f'{environment}/triggers', values)['id']}"
        leaked = owner.done("POST", keys, {"name": "ci", "prefix": "pwk", "role": "admin"})

        thief = Caller(outside, leaked["token"])
        minting = f"/workspaces/{workspace}/workers/registration-token"
        minted = thief.done("POST", minting, {})["token"]
        # The thief uses the hostname of an existing worker, and must not become that worker either.
        mine = Caller(outside).done("POST", "/workers/register", {**machine, "token": minted})
        assert mine["workerId"] != theirs["workerId"]
        assert mine["approved"] is False
        assert thief.done("PATCH", trigger, {"workerId": mine["workerId"]})
        run = thief.done("POST", f"{trigger}/run", {})["id"]
        itself = f"/workers/{mine['workerId']}"
        assert thief.send("POST", f"{itself}/approve").status_code == 401

        worker = Caller(outside, mine["workerToken"])
        polled = worker.send("GET", f"{itself}/poll")
        assert (polled.json()["runs"], SECRET in polled.text) == ([], False)
        claimed = worker.send("POST", f"{itself}/runs/{run}/claim", {})
        assert (claimed.status_code, claimed.json()["code"]) == (409, "worker_unapproved")

        with (
            ThreadPoolExecutor(1) as pool,
            psycopg.connect(server.database_url, autocommit=True) as connection,
        ):
            connection.execute("LISTEN pipedai")
            waiting = pool.submit(worker.done, "GET", f"{itself}/poll?wait=30")
            with closing(connection.notifies(timeout=60)) as said:
                assert any(f"polling {mine['workerId']}" in notify.payload for notify in said)
            assert owner.done("POST", f"{itself}/approve")["approved"] is True
            (handed_out,) = waiting.result(timeout=60)["runs"]
        assert (handed_out["id"], handed_out["mcpHeaders"]) == (run, HEADERS)
        assert worker.done("POST", f"{itself}/runs/{run}/claim", {})["status"] == "claimed"


# --- The ways by which a run with headers may come to such a worker


def _queued_for(cast: Cast, registered: Registered, **trigger: Any) -> tuple[UUID, UUID]:
    """Adds a trigger of this worker and a queued run, and returns both ids."""
    runs = Runs.of(cast, worker_id=registered.worker_id, **trigger)
    runs.now = database_now()
    return runs.trigger_id, runs.queue()


def _patch(cast: Cast, trigger_id: UUID, **body: Any) -> None:
    answer = cast.key_client("admin").patch(f"/api/v1/triggers/{trigger_id}", body)
    assert answer.status_code == 200, answer.content


def _by_its_own_trigger(cast: Cast, mine: Registered) -> UUID:
    return _queued_for(cast, mine, mcp_headers=HEADERS)[1]


def _by_a_reassignment(cast: Cast, mine: Registered) -> UUID:
    trigger_id, run_id = _queued_for(cast, cast.worker, mcp_headers=HEADERS)
    _patch(cast, trigger_id, workerId=str(mine.worker_id))
    return run_id


def _by_another_workers_leaving(cast: Cast, mine: Registered) -> UUID:
    _, run_id = _queued_for(cast, cast.worker, mcp_headers=HEADERS)
    url = f"/api/v1/workers/{cast.worker.worker_id}?reassignTo={mine.worker_id}"
    assert cast.key_client("admin").delete(url).status_code == 204
    return run_id


def _by_a_retry(cast: Cast, mine: Registered) -> UUID:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    runs.now = database_now()
    lost = runs.running()
    _patch(cast, runs.trigger_id, workerId=str(mine.worker_id))
    runs.complete(lost, "failed", faultClass="infra")
    retry = runs.retry_of(lost)
    assert retry is not None
    with connection.cursor() as cursor:
        cursor.execute("UPDATE run SET available_at = queued_at WHERE id = %s", [retry["id"]])
    run_id: UUID = retry["id"]
    return run_id


def _by_headers_that_come_later(cast: Cast, mine: Registered) -> UUID:
    trigger_id, run_id = _queued_for(cast, mine)
    assert _ids(WorkerCalls(mine)) == [str(run_id)], "as long as it has none"
    _patch(cast, trigger_id, mcpHeaders=HEADERS)
    return run_id


def _by_a_rotation(cast: Cast, mine: Registered) -> UUID:
    trigger_id, run_id = _queued_for(cast, mine)
    url = f"/api/v1/triggers/{trigger_id}/rotate-mcp-token"
    assert cast.key_client("admin").post(url, {"mcpHeaders": HEADERS}).status_code == 200
    return run_id


WAYS = [
    _by_its_own_trigger,
    _by_a_reassignment,
    _by_another_workers_leaving,
    _by_a_retry,
    _by_headers_that_come_later,
    _by_a_rotation,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_however_a_run_with_headers_comes_to_it_it_neither_gets_nor_claims_it(
    cast: Cast, unapproved: Registered, way: Any
) -> None:
    run_id, calls = way(cast, unapproved), WorkerCalls(unapproved)
    polled = calls.poll()
    assert (polled.json()["runs"], SECRET in polled.content.decode()) == ([], False)
    refused = calls.claim(run_id)
    assert refused.status_code == 409
    assert refused.json() == {
        "error": "The worker gets no run whose trigger has headers, until an admin approves it"
        " (POST /workers/:id/approve): it was registered by a key's token.",
        "code": "worker_unapproved",
        "status": "queued",
    }
    assert _approve(cast, unapproved).status_code == 200
    (handed_out,) = calls.poll().json()["runs"]
    assert (handed_out["id"], handed_out["mcpHeaders"]) == (str(run_id), HEADERS)
    assert calls.claim(run_id).status_code == 200


def test_runs_without_headers_are_its_own_and_are_not_kept_back_by_those_with(
    cast: Cast, unapproved: Registered
) -> None:
    for _ in range(3):
        _queued_for(cast, unapproved, mcp_headers=HEADERS)
    _, run_id = _queued_for(cast, unapproved)
    calls = WorkerCalls(unapproved)
    assert _ids(calls) == [str(run_id)]
    assert calls.claim(run_id).status_code == 200


def test_headers_that_come_after_its_claim_do_not_reach_it(
    cast: Cast, unapproved: Registered
) -> None:
    trigger_id, run_id = _queued_for(cast, unapproved)
    calls = WorkerCalls(unapproved)
    assert calls.claim(run_id).status_code == 200
    _patch(cast, trigger_id, mcpHeaders=HEADERS)
    answers = [calls.poll(), calls.claim(run_id), calls.start(run_id), calls.heartbeat(run_id)]
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert SECRET not in "".join(answer.content.decode() for answer in answers)
    assert calls.complete(run_id, status="succeeded").status_code == 200


# --- Who is approved


def _of_a_person(cast: Cast) -> UUID:
    return cast.register("host-2").worker_id


def _of_a_host(cast: Cast) -> UUID:
    return cast.host().worker_id


def _of_a_hosts_token(cast: Cast) -> UUID:
    return _registered_by(cast, bearer(cast.host().operator_token))


def _of_an_admin_key(cast: Cast) -> UUID:
    return _registered_by(cast, cast.key_client("admin"))


def _registered_by(cast: Cast, client: Any) -> UUID:
    url = f"/api/v1/workspaces/{cast.workspace.id}/workers/registration-token"
    minted = client.post(url, {}).json()["token"]
    return UUID(
        browser().post("/api/v1/workers/register", {**MACHINE, "token": minted}).json()["workerId"]
    )


@pytest.mark.parametrize(
    ("bring", "approved"),
    [
        (_of_a_person, True),
        (_of_a_host, True),
        (_of_a_hosts_token, True),
        (_of_an_admin_key, False),
        (lambda cast: cast.worker.worker_id, True),
    ],
    ids=["a person's", "a host's", "a host's token's", "a key's", "one that was there"],
)
def test_who_brings_a_worker_in_decides_whether_it_is_approved(
    cast: Cast, bring: Any, approved: bool
) -> None:
    worker_id = bring(cast)
    shown = cast.client(cast.viewer).get(f"/api/v1/workers/{worker_id}").json()
    listed = cast.client(cast.viewer).get(f"/api/v1/environments/{cast.environment.id}/workers")
    assert shown["approved"] is approved
    assert shown["derivedStatus"] == "offline"
    assert [row["approved"] for row in listed.json()["items"] if row["id"] == str(worker_id)] == [
        approved
    ]


def test_the_registration_is_audited_as_not_approved(cast: Cast) -> None:
    worker_id = _of_an_admin_key(cast)
    entry = AuditEntry.objects.get(action="worker.registered", target_id=worker_id)
    assert entry.metadata == {"hostname": "host-2", "version": "1.0", "approved": False}


def test_a_token_that_a_key_minted_takes_no_approved_workers_place(
    cast: Cast, unapproved: Registered
) -> None:
    again = cast.register_by_key("HOST-1")
    assert again.worker_id != cast.worker.worker_id
    assert [_worker(each).unapproved_since is None for each in (again, cast.worker)] == [
        False,
        True,
    ]
    assert WorkerCalls(cast.worker).poll().status_code == 200


def test_a_person_who_registers_it_again_vouches_for_it(cast: Cast, unapproved: Registered) -> None:
    again = cast.register("HOST-2")
    assert again.worker_id == unapproved.worker_id
    assert (again.approved, _worker(again).unapproved_since) == (True, None)
    assert WorkerCalls(unapproved).poll().status_code == 401


# --- Approving


def test_approving_shows_the_worker_and_is_audited_once(cast: Cast, unapproved: Registered) -> None:
    with audited() as rows:
        answers = [_approve(cast, unapproved) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    shown = cast.client(cast.viewer).get(f"/api/v1/workers/{unapproved.worker_id}").json()
    assert answers[0].json() == shown
    assert shown["approved"] is True
    metadata = rows.the_only(
        "worker.approved",
        by=("user", cast.admin.id),
        on=("worker", unapproved.worker_id),
        within=cast.environment.id,
    )
    assert metadata == {"hostname": "host-2"}


@pytest.mark.parametrize(
    ("caller", "kind"),
    [
        (lambda cast, _: cast.key_client("admin"), "pwk_"),
        (lambda cast, _: bearer(cast.host().operator_token), "hos_"),
        (lambda cast, worker: bearer(worker.worker_token), "wkt_"),
    ],
    ids=["pwk", "hos", "its own wkt"],
)
def test_no_token_approves_and_the_answer_says_so(
    cast: Cast, unapproved: Registered, caller: Any, kind: str
) -> None:
    answer = caller(cast, unapproved).post(f"/api/v1/workers/{unapproved.worker_id}/approve")
    assert answer.status_code == 401
    assert kind in answer.json()["error"]
    assert "is not accepted on this endpoint" in answer.json()["error"]
    assert _worker(unapproved).unapproved_since is not None


def test_a_worker_that_is_gone_is_not_approved(cast: Cast, unapproved: Registered) -> None:
    worker = _worker(unapproved)
    assert cast.client(cast.admin).delete(f"/api/v1/workers/{worker.id}").status_code == 204
    assert _approve(cast, unapproved).status_code == 404
    with pytest.raises(NotFound):
        approve_worker(worker=worker, actor=TEST_ACTOR)


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_two_who_approve_at_once_one_is_audited(committed_cast: Cast, round_: int) -> None:
    mine = committed_cast.register_by_key("host-2")
    approve = partial(_approve, committed_cast, mine)
    assert {answer.status_code for answer in at_once(approve, approve)} == {200}
    assert AuditEntry.objects.filter(action="worker.approved").count() == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_headers_that_are_set_during_polls_and_claims_never_reach_it(
    committed_cast: Cast, round_: int
) -> None:
    cast, mine = committed_cast, committed_cast.register_by_key("host-2")
    trigger_id, run_id = _queued_for(cast, mine)
    calls = WorkerCalls(mine)
    change = partial(TRIGGERS.update, trigger_id, values={"mcp_headers": HEADERS}, actor=TEST_ACTOR)
    claim, poll = partial(calls.claim, run_id), partial(calls.poll)
    answers: list[Any] = at_once(poll, change, claim, poll)
    told = [answer.content.decode() for answer in answers if answer is not None]
    assert SECRET not in "".join(told)


# --- The number of statements


def test_poll_and_claim_take_as_many_statements_as_for_an_approved_one(cast: Cast) -> None:
    costs = []
    for registered in (cast.register("host-3"), cast.register_by_key("host-4")):
        _, run_id = _queued_for(cast, registered)
        calls = WorkerCalls(registered)
        calls.poll()  # marks the worker as seen, so that the counted poll need not
        with counted() as polling:
            assert _ids(calls) == [str(run_id)]
        with counted() as claiming:
            assert calls.claim(run_id).status_code == 200
        costs.append((len(polling), len(claiming)))
    assert costs[0] == costs[1]


@pytest.mark.parametrize(
    ("statement", "condition"),
    [
        pytest.param(
            handout.due(50, of_each_pool=None), conditions.HEADERS_MAY_GO_FROM_QUEUE, id="poll"
        ),
        pytest.param(statements.claim(), conditions.HEADERS_MAY_GO, id="claim"),
    ],
)
def test_an_approved_workers_plan_is_as_if_there_were_no_approval(
    cast: Cast, statement: str, condition: str
) -> None:
    params: dict[str, Any] = {
        "worker_id": cast.worker.worker_id,
        "run_id": cast.trigger_id,
        "claim_id": None,
        "lease_seconds": 180,
        "capacity": 1,
        "approved": True,
        "features": [],
        "shut": [],
        "most_bytes": 1,
        "now": None,
    }
    without = statement.replace(f" AND {condition}", "")
    assert without != statement
    plans = [fetch_all(f"EXPLAIN {each}", params) for each in (statement, without)]
    assert plans[0] == plans[1]
