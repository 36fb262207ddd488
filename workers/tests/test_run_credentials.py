"""POST /workers/:id/runs/:runId/credentials gives the worker that holds a run the headers that its trigger has by now.

Whatever is true of a trigger's headers is true of its connection's.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from pipedai.outgoing.oauth import Tokens
from pipedai.sql import database_now, execute
from testing.probes.audited import audited
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import TEST_ACTOR, Cast, bearer
from testing.world.connections import (
    ACCESS_TOKEN,
    CONNECTION_URL,
    add_connection,
    add_oauth_connection,
    ago,
    lose_connection,
)
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow
from triggers.models import Trigger
from triggers.services import TRIGGERS
from workers.models import Worker
from workspaces.connections.secrets import GrantSecrets, store_tokens
from workspaces.models import Connection

HEADERS = {"Authorization": f"Bearer {ACCESS_TOKEN}"}
NEW_TOKEN = "planted-access-token-of-tomorrow"
NEW_HEADERS = {"Authorization": f"Bearer {NEW_TOKEN}"}


@pytest.fixture
def grant(cast: Cast) -> Connection:
    return add_oauth_connection(cast)


@pytest.fixture
def runs(cast: Cast, grant: Connection) -> Runs:
    allow(cast.worker.worker_id, 5)
    trigger_id = cast.add_trigger(connection_id=grant.id, mcp_url=grant.mcp_url)
    return Runs(cast, trigger_id, now=database_now())


@pytest.fixture
def calls(cast: Cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


@pytest.fixture
def held(calls: WorkerCalls, runs: Runs) -> Any:
    """A run that the worker has claimed and started."""
    runs.queue()
    run = calls.claim_next(claimId="mine", start=True).json()["run"]
    assert run["mcpHeaders"] == HEADERS
    return run["id"]


def refresh(grant: Connection) -> Connection:
    """Gives the connection a new token, as a scheduler does."""
    with transaction.atomic():
        row = Connection.objects.select_for_update().get(id=grant.id)
        store_tokens(row, Tokens(NEW_TOKEN, None, 20), kept=GrantSecrets(), since=database_now())
    return row


def pass_seconds(seconds: int) -> None:
    """Lets time pass for the rate, whose windows the database keeps."""
    sql = "UPDATE throttle SET expires_at = expires_at - %(seconds)s * interval '1 second'"
    execute(sql, {"seconds": seconds})


def code_of(answer: Any, status: int = 409) -> str:
    assert answer.status_code == status
    return str(answer.json()["code"])


def test_a_hand_out_says_when_its_headers_expire(
    cast: Cast, calls: WorkerCalls, runs: Runs, grant: Connection
) -> None:
    runs.queue()
    (run,) = calls.poll().json()["runs"]
    assert run["mcpHeaders"] == HEADERS
    assert grant.access_expires_at is not None
    expires = grant.access_expires_at.isoformat(timespec="milliseconds")
    assert run["headersExpireAt"] == expires.replace("+00:00", "Z")
    runs.cancel(run["id"])
    for values in ({}, {"connection_id": add_connection(cast), "mcp_url": CONNECTION_URL}):
        Runs(cast, cast.add_trigger(**values), now=runs.now).queue()
    told = [run["headersExpireAt"] for run in calls.poll().json()["runs"]]
    assert told == [None, None]


def test_a_worker_gets_the_token_that_came_since_once_in_five_seconds(
    calls: WorkerCalls, held: Any, grant: Connection
) -> None:
    fresh = refresh(grant)
    answer = calls.credentials(held)
    assert answer.status_code == 200
    assert answer.json()["headers"] == NEW_HEADERS
    assert fresh.access_expires_at is not None
    expires = fresh.access_expires_at.isoformat(timespec="milliseconds")
    assert answer.json()["expiresAt"] == expires.replace("+00:00", "Z")
    again = calls.credentials(held)
    assert code_of(again, 429) == "throttled"
    assert 1 <= int(again["Retry-After"]) <= 5
    pass_seconds(5)
    assert calls.credentials(held).json()["headers"] == NEW_HEADERS


def test_the_triggers_own_headers_are_read_anew_too(cast: Cast, calls: WorkerCalls) -> None:
    runs = Runs(cast, cast.add_trigger(mcp_headers={"X-Key": "planted-old"}), now=database_now())
    runs.queue()
    run_id = calls.claim_next(claimId="mine", start=True).json()["run"]["id"]
    url = f"/api/v1/triggers/{runs.trigger_id}/rotate-mcp-token"
    rotated = cast.client(cast.admin).post(url, {"mcpHeaders": {"X-Key": "planted-new"}})
    assert rotated.status_code == 200
    assert calls.credentials(run_id).json() == {
        "mcpUrl": Trigger.objects.get(id=runs.trigger_id).mcp_url,
        "headers": {"X-Key": "planted-new"},
        "expiresAt": None,
    }


def test_each_new_receiver_is_audited(cast: Cast, calls: WorkerCalls, held: Any) -> None:
    with audited() as rows:
        assert calls.credentials(held).status_code == 200
    assert rows == []
    pass_seconds(5)
    url = f"/api/v1/workers/{cast.worker.worker_id}/runs/{held}/credentials"
    client = bearer(cast.worker.worker_token)
    with audited() as rows:
        assert client.post(url, REMOTE_ADDR="198.51.100.7").status_code == 200
    ((action, metadata),) = rows.told()
    assert action == "run.handed-out"
    assert metadata["previous"]["address"] == "127.0.0.1"


def test_only_the_worker_that_holds_the_run_is_answered(
    cast: Cast, calls: WorkerCalls, held: Any, runs: Runs
) -> None:
    assert code_of(WorkerCalls(cast.register("other")).credentials(held), 404) == "not_found"
    waiting: Any = runs.queue()
    assert code_of(calls.credentials(waiting)) == "run_state"
    calls.complete(held, status="succeeded")
    refused = calls.credentials(held)
    assert code_of(refused) == "run_state"
    assert refused.json()["status"] == "succeeded"


def test_without_a_fresh_token_it_is_refused_and_a_scheduler_is_told(
    calls: WorkerCalls, held: Any, grant: Connection
) -> None:
    row = Connection.objects.filter(id=grant.id)
    later = database_now() + timedelta(hours=1)
    # No write of ours leaves a connection so: what is stale is due.
    row.update(fresh_until=database_now(), refresh_at=later)
    refused = calls.credentials(held)
    assert code_of(refused) == "connection_not_ready"
    assert refused["Retry-After"] == "5"
    due = row.get().refresh_at
    assert due is not None
    assert due <= database_now()
    lose_connection(grant)
    pass_seconds(5)
    assert code_of(calls.credentials(held)) == "connection_not_ready"


def test_a_token_that_its_server_refuses_early_is_stale_at_once(
    calls: WorkerCalls, held: Any, grant: Connection, runs: Runs
) -> None:
    def refuse(expires_at: Any) -> Any:
        pass_seconds(5)
        return calls.credentials(held, refusedExpiresAt=expires_at)

    def told() -> Any:
        return calls.credentials(held).json()["expiresAt"]

    # It has come less than a minute ago: a server that takes no token at all must not stop the runs again and again.
    assert refuse(told()).json()["headers"] == HEADERS
    ago(grant, 61)
    pass_seconds(5)
    expires_at = told()
    assert refuse("2026-11-24T21:08:40.502Z").json()["headers"] == HEADERS
    assert code_of(refuse("yesterday"), 400) == "validation_failed"
    refused = refuse(expires_at)
    assert (code_of(refused), refused["Retry-After"]) == ("connection_not_ready", "5")
    grant.refresh_from_db()
    assert grant.refresh_at is not None
    assert grant.refresh_at <= database_now()
    runs.queue()
    assert calls.poll().json()["runs"] == []
    # The next refusal of the same token says nothing new, and one of an older token nothing at all.
    assert code_of(refuse(expires_at)) == "connection_not_ready"
    refresh(grant)
    assert refuse(expires_at).json()["headers"] == NEW_HEADERS


def test_a_token_that_cannot_be_refreshed_stays_whatever_its_server_says(
    cast: Cast, calls: WorkerCalls
) -> None:
    grant = add_oauth_connection(cast, refresh_token=None)
    ago(grant, 61)
    Runs(cast, cast.add_trigger(connection_id=grant.id, mcp_url=grant.mcp_url)).queue()
    run = calls.claim_next(claimId="mine", start=True).json()["run"]
    answer = calls.credentials(run["id"], refusedExpiresAt=run["headersExpireAt"])
    assert answer.json()["headers"] == HEADERS


def test_a_claim_is_refused_where_only_the_token_is_missing(
    cast: Cast, calls: WorkerCalls, runs: Runs, grant: Connection
) -> None:
    run_id: Any = runs.queue()
    ago(grant, 3541)
    row = Connection.objects.filter(id=grant.id)
    row.update(refresh_at=database_now() + timedelta(hours=1))
    assert calls.poll().json()["runs"] == []
    assert calls.claim_next(claimId="mine").json()["run"] is None
    refused = calls.claim(run_id)
    assert code_of(refused) == "connection_not_ready"
    assert (refused["Retry-After"], refused.json()["status"]) == ("5", "queued")
    due = row.get().refresh_at
    assert due is not None
    assert due <= database_now()
    Worker.objects.update(disabled_at=database_now())
    assert code_of(calls.claim(run_id)) == "worker_disabled"
    Worker.objects.update(disabled_at=None)
    refresh(grant)
    assert calls.claim(run_id).status_code == 200


def test_headers_of_another_url_do_not_go_to_the_server_of_the_run(
    cast: Cast, calls: WorkerCalls, held: Any, runs: Runs
) -> None:
    other = add_connection(cast, mcp_url="https://mcp.example/another-server")
    patch = cast.client(cast.admin).patch
    url = f"/api/v1/triggers/{runs.trigger_id}"
    assert patch(url, {"connectionId": str(other)}).status_code == 200
    refused = calls.credentials(held)
    assert code_of(refused) == "trigger_changed"
    assert "planted" not in refused.text
    Trigger.objects.filter(id=runs.trigger_id).update(
        mcp_url=CONNECTION_URL, connection=None, deleted_at=database_now(), enabled=False
    )
    pass_seconds(5)
    assert code_of(calls.credentials(held)) == "trigger_changed"


def test_a_url_that_only_another_worker_was_handed_shows(
    cast: Cast, calls: WorkerCalls, runs: Runs
) -> None:
    other = cast.register("other")
    pool = add_pool(cast, cast.worker.worker_id, other.worker_id)
    TRIGGERS.update(
        runs.trigger_id,
        values={"worker_id": None, "pool_id": pool},
        actor=TEST_ACTOR,
    )
    run_id: Any = runs.queue()
    assert [run["mcpUrl"] for run in calls.poll().json()["runs"]] == [CONNECTION_URL]
    moved = add_connection(cast, mcp_url="https://mcp.example/another-server")
    url = f"/api/v1/triggers/{runs.trigger_id}"
    patched = cast.client(cast.admin).patch(url, {"connectionId": str(moved)})
    assert patched.status_code == 200
    assert len(WorkerCalls(other).poll().json()["runs"]) == 1
    assert calls.claim(run_id).status_code == 200
    # The worker compares it with the URL that it has, and does not use these headers.
    assert calls.credentials(run_id).json()["mcpUrl"] == "https://mcp.example/another-server"


def test_headers_that_cannot_be_opened_are_a_503(
    calls: WorkerCalls, held: Any, grant: Connection
) -> None:
    Connection.objects.filter(id=grant.id).update(headers=b"tampered with" * 9)
    answer = calls.credentials(held)
    assert code_of(answer, 503) == "encryption_unavailable"
    assert answer["Retry-After"] == "60"


def test_a_worker_that_is_not_approved_gets_no_token_of_a_connection(
    cast: Cast, calls: WorkerCalls, held: Any, runs: Runs
) -> None:
    waiting: Any = runs.queue()
    Worker.objects.update(unapproved_since=database_now())
    assert calls.poll().json()["runs"] == []
    assert code_of(calls.claim(waiting)) == "worker_unapproved"
    assert code_of(calls.credentials(held)) == "worker_unapproved"
