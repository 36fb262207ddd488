"""A grant that is given up is revoked at its server, and its secrets are forgotten then."""

from urllib.parse import parse_qs

import pytest
from django.db import transaction

from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from pipedai.retention import Order
from pipedai.sql import database_now
from testing.world.cast import TEST_ACTOR
from testing.world.connections import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    add_connection,
    add_oauth_connection,
)
from workspaces.connections import secrets
from workspaces.connections.revoking import REVOCATIONS
from workspaces.connections.secrets import GrantSecrets
from workspaces.connections.services import CONNECTIONS
from workspaces.models import Connection, Revocation, RevocationAttempt
from workspaces.ready import prune_revocations

REGISTRATION_TOKEN = "planted-registration-token"


@pytest.fixture
def connection(cast, receiver):
    """Returns a connection whose client the receiver has registered."""
    connection = add_oauth_connection(cast, revocation_endpoint=receiver.url("/revoke"))
    held = GrantSecrets(
        client_secret="planted-client-secret",
        refresh_token=REFRESH_TOKEN,
        registration_token=REGISTRATION_TOKEN,
        registration_url=receiver.url("/client"),
    )
    with transaction.atomic():
        secrets.seal_grant(connection, held)
        connection.save(force_update=True)
    return connection


def delete(connection):
    CONNECTIONS.delete(connection.id, actor=TEST_ACTOR)


def send():
    """Sends what is due, and returns how many requests that were."""
    rows = claim_due(REVOCATIONS, room=9, busy={}, per_host=9)
    for row in rows:
        attempts.record(REVOCATIONS, [(row, attempts.send(REVOCATIONS, row))])
    return len(rows)


def forms(receiver):
    return [
        {name: value for name, (value,) in parse_qs(each.body.decode()).items()}
        for each in receiver.received
    ]


def test_deleting_revokes_the_tokens_and_then_removes_the_client(receiver, connection):
    delete(connection)
    assert receiver.received == []
    assert [send() for _ in range(4)] == [1, 1, 1, 0]
    named = {"client_id": "planted-client-id"}
    assert forms(receiver) == [
        {"token": REFRESH_TOKEN, "token_type_hint": "refresh_token", **named},
        {"token": ACCESS_TOKEN, "token_type_hint": "access_token", **named},
        {},
    ]
    first, _, removal = receiver.received
    assert (first.method, first.path) == ("POST", "/revoke")
    assert first.headers["Authorization"].startswith("Basic ")
    assert (removal.method, removal.path) == ("DELETE", "/client")
    assert removal.headers["Authorization"] == f"Bearer {REGISTRATION_TOKEN}"
    assert list(Revocation.objects.order_by("id").values_list("purpose", "status", "request")) == [
        ("token", "delivered", None),
        ("token", "delivered", None),
        ("client", "delivered", None),
    ]


def test_a_server_that_fails_is_asked_again_and_one_that_refuses_is_left(receiver, connection):
    delete(connection)
    receiver.answer(503, REFRESH_TOKEN.encode())
    assert send() == 1
    (row,) = Revocation.objects.all()
    assert (row.status, row.attempt_count) == ("pending", 1)
    assert RevocationAttempt.objects.get().response_body is None
    Revocation.objects.update(next_attempt_at=row.created_at)
    receiver.answer(400)
    assert send() == 1
    row.refresh_from_db()
    assert (row.status, row.request) == ("dead", None)
    # What follows is sent all the same.
    assert [send() for _ in range(3)] == [1, 1, 0]


def test_without_an_endpoint_only_the_client_is_removed(receiver, connection):
    Connection.objects.update(revocation_endpoint=None)
    delete(connection)
    assert [send() for _ in range(2)] == [1, 0]
    assert [each.method for each in receiver.received] == ["DELETE"]


def test_what_has_no_grant_revokes_nothing(cast):
    CONNECTIONS.delete(add_connection(cast), actor=TEST_ACTOR)
    assert not Revocation.objects.exists()


def test_secrets_that_do_not_open_keep_no_connection_from_being_deleted(settings, connection):
    settings.MASTER_KEYS = ("new:" + "A" * 43 + "=",)
    delete(connection)
    assert not Connection.objects.exists()
    assert not Revocation.objects.exists()


def test_those_that_have_ended_are_pruned(receiver, connection):
    delete(connection)
    send()
    (batch, *_) = prune_revocations(Order(database_now(), 100))
    assert batch.removed == 1
    assert Revocation.objects.get().status == "pending"
    assert not RevocationAttempt.objects.exists()
