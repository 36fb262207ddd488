"""No audit row contains a token or a secret."""

import json

import pytest
from django.db import transaction

from audit.models import AuditEntry
from pipedai.api import tokens
from pipedai.events import SYSTEM, Event, emit
from pipedai.ids import new_id
from testing.probes.tables import columns_with


def written(metadata):
    with transaction.atomic():
        emit(Event("trigger.updated", SYSTEM, None, "trigger", new_id(), metadata))
    return AuditEntry.objects.latest("created_at").metadata


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["mcpHeaders", "webhookSecret", "password", "token", "apiKey"])
@pytest.mark.parametrize("value", ["planted", ["old", "planted"], {"a": "planted"}])
def test_what_is_secret_by_name_is_redacted(name, value):
    assert written({name: value, "name": "shown"}) == {name: "[redacted]", "name": "shown"}


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["pwk", "wrk", "wkt"])
def test_a_token_is_redacted_wherever_it_stands(kind):
    token = tokens.mint(kind).value
    metadata = written({"name": ["old", f"see {token}!"], token: 1, "deep": {"a": [{"b": token}]}})
    assert token[4:] not in json.dumps(metadata)
    assert metadata["name"][1].startswith("see ")


def test_a_name_that_holds_a_token_is_told_without_it(cast, watch):
    token = tokens.mint("pwk").value
    watch.typed(token)
    for path, body in {
        "workspaces": {"name": f"ws {token}"},
        f"environments/{cast.environment.id}/triggers": {
            "name": f"trigger {token}", "prompt": "x", "mcpUrl": "https://mcp.example/",
        },
        f"environments/{cast.environment.id}/api-keys": {"name": token, "prefix": "pwk"},
    }.items():  # fmt: skip
        assert cast.client(cast.owner).post(f"/api/v1/{path}", body).status_code == 201
    assert "audit_entry.metadata" not in columns_with(token, token[4:])


def test_what_is_minted_appears_by_its_last_four(cast):
    url = f"/api/v1/environments/{cast.environment.id}/api-keys"
    token = cast.client(cast.owner).post(url, {"name": "CI", "prefix": "pwk"}).json()["token"]
    assert AuditEntry.objects.latest("created_at").metadata["lastFour"] == token[-4:]
    assert columns_with(token[4:]) == []


@pytest.mark.django_db
@pytest.mark.parametrize("value", [[2**70, -(2**70)], {"é": '"\\'}, 1.5, None, True, ["a", ["b"]]])
def test_another_value_is_kept_as_it_is(value):
    id_ = new_id()
    assert written({"value": value, "id": id_}) == {"value": value, "id": str(id_)}
