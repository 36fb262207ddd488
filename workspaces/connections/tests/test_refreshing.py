"""Tokens are refreshed before they expire, and no answer of a server, or lack of one, loses a grant."""

import json
from datetime import timedelta
from urllib.parse import parse_qs

import pytest
from django.db import transaction

from audit.models import AuditEntry
from notices.models import Incident, Notice
from pipedai.events import SYSTEM, Event, emit
from pipedai.ids import new_id
from pipedai.outgoing.oauth import UNSAID_LIFE
from testing.world.cast import TEST_ACTOR
from testing.world.channels import add_channel
from testing.world.connections import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    add_oauth_connection,
    ago,
    claim_due,
)
from workspaces.connections import secrets
from workspaces.connections.refreshing import LEASE_SECONDS, ask, record, want_refresh
from workspaces.connections.services import CONNECTIONS
from workspaces.encryption.rotation import rotate_data_keys
from workspaces.models import Connection, Revocation

TOKENS = {
    "access_token": "planted-second-access",
    "refresh_token": "planted-second-refresh",
    "token_type": "Bearer",
    "expires_in": 1200,
}


@pytest.fixture
def due(cast, receiver):
    """Returns a connection at the receiver whose token has a third of its life left."""
    connection = add_oauth_connection(cast, token_endpoint=receiver.url("/token"))
    ago(connection, 2400)
    return connection


def answer(receiver, status=200, **said):
    receiver.answer(status, json.dumps(said or TOKENS).encode())


def claim_it():
    """Claims what is due, which must be something."""
    claim = claim_due()
    assert claim is not None
    return claim


def refresh(claim):
    record(claim, ask(claim))


def look(connection):
    connection.refresh_from_db()
    return connection


def held(connection):
    """Returns the access token and the refresh token."""
    look(connection)
    return secrets.access_token_of(connection), secrets.grant_of(connection).refresh_token


def form_of(received):
    return {name: value for name, (value,) in parse_qs(received.body.decode()).items()}


def test_it_is_refreshed_when_a_third_of_its_life_is_left(receiver, due):
    ago(due, -10)
    assert claim_due() is None
    ago(due, 10)
    claim = claim_it()
    answer(receiver)
    refresh(claim)
    (asked,) = receiver.received
    assert asked.path == "/token"
    assert asked.headers["Authorization"].startswith("Basic ")
    assert form_of(asked) == {
        "client_id": "planted-client-id",
        "grant_type": "refresh_token",
        "refresh_token": REFRESH_TOKEN,
        "resource": due.mcp_url,
    }
    assert held(due) == ("planted-second-access", "planted-second-refresh")
    assert (due.status, due.error, due.lease_id) == ("connected", None, None)
    # Its life counts from when the scheduler asked.
    since = claim["claimed_at"]
    assert due.last_refresh_at == since
    assert due.access_expires_at == since + timedelta(seconds=1200)
    assert due.refresh_at == since + timedelta(seconds=800)
    assert claim_due() is None


@pytest.mark.parametrize(
    ("said", "refresh_token", "lives"),
    [
        ({"refresh_token": None}, REFRESH_TOKEN, 1200),
        ({"refresh_token": REFRESH_TOKEN}, REFRESH_TOKEN, 1200),
        ({"expires_in": 20}, "planted-second-refresh", 20),
        ({"expires_in": None}, "planted-second-refresh", UNSAID_LIFE),
    ],
    ids=["no refresh token", "the same one", "a shorter life", "an unsaid life"],
)
def test_what_a_server_leaves_out_stays_or_counts_as_usual(
    receiver, due, said, refresh_token, lives
):
    answer(receiver, **{**TOKENS, **said})
    claim = claim_it()
    refresh(claim)
    assert held(due) == ("planted-second-access", refresh_token)
    assert due.access_expires_at == claim["claimed_at"] + timedelta(seconds=lives)


def fail(connection, receiver, status=503, **said):
    """Lets a request for tokens fail, and returns for how many seconds the next one is put off."""
    Connection.objects.filter(id=connection.id).update(refresh_at=connection.created_at)
    receiver.answer(status, json.dumps(said).encode())
    claim = claim_it()
    refresh(claim)
    look(connection)
    if connection.refresh_at is None:
        return None
    return round((connection.refresh_at - claim["claimed_at"]).total_seconds())


def test_failures_are_put_off_for_longer_each_time_and_show_from_the_third_on(receiver, due):
    assert [fail(due, receiver) for _ in range(2)] == [5, 10]
    assert (due.status, due.error) == (
        "connected",
        "The authorization server gave no token: HTTP status 503.",
    )
    assert fail(due, receiver, 200, access_token="<html>") == 20
    assert (due.status, due.failures) == ("failing", 3)
    assert due.error == "The authorization server gave no token: the answer has no bearer token."
    # The token goes out as long as it lives.
    assert held(due) == (ACCESS_TOKEN, REFRESH_TOKEN)
    assert [fail(due, receiver) for _ in range(5)] == [40, 80, 160, 300, 300]
    Connection.objects.update(refresh_at=due.created_at)
    answer(receiver)
    refresh(claim_it())
    look(due)
    assert (due.status, due.error, due.failures) == ("connected", None, 0)
    assert not Incident.objects.exists()
    assert not AuditEntry.objects.filter(action="connection.login-needed").exists()


def test_a_refused_one_needs_a_login_of_which_the_owner_is_told_once(cast, receiver, due):
    add_channel(cast, "email")
    assert (
        fail(due, receiver, 400, error="invalid_grant", error_description="planted words") is None
    )
    assert (due.status, due.headers, due.access_expires_at) == ("needs_login", None, None)
    (incident,) = Incident.objects.all()
    assert (incident.kind, incident.subject_type, incident.subject_id) == (
        "connection_needs_login",
        "connection",
        due.id,
    )
    assert incident.message == (
        "The authorization server gave no token: the server refused it (invalid_grant)."
        " Its runs wait until somebody connects it again on its page."
    )
    assert [each.event for each in Notice.objects.all()] == ["connection_needs_login"]
    assert claim_due() is None
    with transaction.atomic():
        emit(Event("connection.authorized", SYSTEM, due.environment_id, "connection", due.id))
    assert Incident.objects.get().closed_at is not None
    assert Notice.objects.filter(event="connection_needs_login.recovered").count() == 1


def test_a_refusal_with_the_status_200_needs_a_login_too(receiver, due):
    assert fail(due, receiver, 200, error="bad_refresh_token") is None
    assert due.status == "needs_login"


def test_the_incident_of_a_deleted_one_is_withdrawn(cast, receiver, due):
    add_channel(cast, "email")
    fail(due, receiver, 400, error="invalid_grant")
    CONNECTIONS.delete(due.id, actor=TEST_ACTOR)
    assert Incident.objects.get().closed_at is not None
    assert Notice.objects.count() == 1


def test_another_refusal_may_be_a_mistake_until_the_third_and_while_the_token_serves(receiver, due):
    refusal = {"status": 401, "error": "invalid_client"}
    assert [fail(due, receiver, **refusal) for _ in range(3)] == [5, 10, 20]
    assert due.status == "failing"
    ago(due, 1200)
    assert fail(due, receiver, **refusal) is None
    assert due.status == "needs_login"


def test_one_without_a_refresh_token_needs_a_login_when_its_token_is_stale(cast, receiver):
    connection = add_oauth_connection(cast, refresh_token=None)
    ago(connection, 3539)
    assert claim_due() is None
    ago(connection, 2)
    refresh(claim_it())
    assert look(connection).status == "needs_login"
    assert connection.error == "The authorization server gave no refresh token."


# --- Claims


def end_lease():
    Connection.objects.update(leased_until=Connection.objects.get().created_at)


@pytest.mark.parametrize(
    ("status", "said", "outcome"),
    [(200, TOKENS, "connected"), (400, {"error": "invalid_grant"}, "needs_login")],
)
def test_a_claim_that_left_no_record_is_tried_once_more_with_the_same_token(
    receiver, due, status, said, outcome
):
    claim_due()
    assert claim_due() is None
    end_lease()
    claim = claim_it()
    assert look(due).is_second_try
    answer(receiver, status, **said)
    refresh(claim)
    assert form_of(receiver.received[0])["refresh_token"] == REFRESH_TOKEN
    assert (look(due).status, due.is_second_try) == (outcome, False)


def test_a_third_claim_asks_for_nothing(receiver, due):
    for _ in range(2):
        claim_due()
        end_lease()
    refresh(claim_it())
    assert receiver.received == []
    assert look(due).status == "needs_login"
    assert due.error == "Two requests for tokens were cut off, so the last token may be lost."


def test_a_failure_is_a_record(receiver, due):
    claim_due()
    end_lease()
    fail(due, receiver)
    answer(receiver)
    Connection.objects.update(refresh_at=due.created_at)
    refresh(claim_it())
    assert look(due).status == "connected"


def test_who_wants_it_makes_it_due_unless_it_is_asked_for_or_waits_after_a_failure(receiver, due):
    ago(due, -10)
    want_refresh([due.id, new_id()])
    claim = claim_it()
    want_refresh([due.id])
    assert claim_due() is None
    receiver.answer(503)
    refresh(claim)
    want_refresh([due.id])
    assert claim_due() is None


def test_the_lease_outlives_a_request(due):
    claim = claim_it()
    look(due)
    assert due.leased_until == claim["claimed_at"] + timedelta(seconds=LEASE_SECONDS)


# --- What happens meanwhile


def test_tokens_of_a_connection_that_was_deleted_meanwhile_are_revoked(cast, receiver, due):
    claim = claim_it()
    CONNECTIONS.delete(due.id, actor=TEST_ACTOR)
    assert Revocation.objects.count() == 1
    answer(receiver)
    refresh(claim)
    assert Revocation.objects.filter(connection_id=due.id).count() == 2


@pytest.mark.parametrize(("client_id", "revoked"), [("another", 1), ("planted-client-id", 0)])
def test_tokens_of_one_that_was_authorized_anew_meanwhile_are_revoked_if_its_client_is_another(
    receiver, due, client_id, revoked
):
    claim = claim_it()
    Connection.objects.update(lease_id=None, leased_until=None, client_id=client_id)
    answer(receiver)
    refresh(claim)
    assert held(due) == (ACCESS_TOKEN, REFRESH_TOKEN)
    assert Revocation.objects.count() == revoked


def test_tokens_of_one_that_was_claimed_again_meanwhile_are_left(receiver, due):
    late = claim_due()
    end_lease()
    claim_due()
    answer(receiver)
    refresh(late)
    assert held(due) == (ACCESS_TOKEN, REFRESH_TOKEN)
    assert not Revocation.objects.exists()


def test_a_data_key_that_is_replaced_meanwhile_seals_the_tokens(receiver, due):
    claim = claim_it()
    before = due.grant_secrets_key_id
    rotate_data_keys(environment_id=due.environment_id)
    answer(receiver)
    refresh(claim)
    assert held(due) == ("planted-second-access", "planted-second-refresh")
    assert before not in {due.grant_secrets_key_id, due.headers_key_id}


def test_secrets_that_do_not_open_are_a_failure(settings, due):
    claim = claim_it()
    kept, settings.MASTER_KEYS = settings.MASTER_KEYS, ("new:" + "A" * 43 + "=",)
    refresh(claim)
    settings.MASTER_KEYS = kept
    assert (look(due).failures, due.error) == (1, "The connection's secrets do not open.")
