"""What is stored of a token, and when it is to be refreshed."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from pipedai.outgoing.oauth import UNSAID_LIFE, Tokens
from pipedai.sql import database_now
from testing.world.connections import ACCESS_TOKEN, REFRESH_TOKEN, add_oauth_connection
from workspaces.connections.models import HEADERS
from workspaces.connections.secrets import GrantSecrets, grant_of, store_tokens
from workspaces.encryption.keys import unseal_from


@pytest.mark.parametrize(
    ("lives", "refresh_token", "fresh", "refreshed"),
    [
        (3600, "planted-refresh", 3540, 2400),
        (20, "planted-refresh", 10, 10),
        (90, "planted-refresh", 45, 45),
        # Nobody can refresh it, so a person is called when runs begin to wait.
        (3600, None, 3540, 3540),
    ],
)
def test_a_token_is_fresh_and_refreshed_by_its_life(cast, lives, refresh_token, fresh, refreshed):
    connection: Any = add_oauth_connection(cast, lives=lives, refresh_token=refresh_token)
    since = connection.connected_at
    assert connection.access_expires_at - since == timedelta(seconds=lives)
    assert connection.fresh_until - since == timedelta(seconds=fresh)
    assert connection.refresh_at - since == timedelta(seconds=refreshed)


def test_a_token_without_life_and_refresh_token_lives_until_it_is_revoked(cast):
    for refresh_token, days in (("planted-refresh", 0), (None, 366)):
        connection: Any = add_oauth_connection(cast)
        tokens = Tokens("planted-access", refresh_token, UNSAID_LIFE, says_life=False)
        with transaction.atomic():
            store_tokens(connection, tokens, kept=GrantSecrets(), since=connection.connected_at)
        assert (connection.access_expires_at - connection.connected_at).days == days


@pytest.mark.parametrize("sent", [None, "planted-newer-refresh"])
def test_a_refresh_token_stays_until_another_one_comes(cast, sent):
    connection = add_oauth_connection(cast)
    assert _secrets(connection) == ({"Authorization": f"Bearer {ACCESS_TOKEN}"}, REFRESH_TOKEN)
    _, kept = _opened(connection)
    with transaction.atomic():
        newer = Tokens("planted-newer-access", sent, 60)
        store_tokens(connection, newer, kept=kept, since=database_now())
    connection.refresh_from_db()
    headers = {"Authorization": "Bearer planted-newer-access"}
    assert _secrets(connection) == (headers, sent or REFRESH_TOKEN)


def test_no_repr_tells_a_secret():
    secrets = GrantSecrets("planted-secret", "planted-refresh", "planted-token", "planted-url")
    assert "planted" not in repr(secrets)
    assert "planted" not in repr(Tokens("planted-access", "planted-refresh", 60))


def _secrets(connection):
    headers, secrets = _opened(connection)
    return headers, secrets.refresh_token


def _opened(connection):
    return json.loads(unseal_from(HEADERS, connection) or b""), grant_of(connection)
