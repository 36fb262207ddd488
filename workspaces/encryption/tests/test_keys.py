"""A value that is sealed under an environment's data key opens only in its own place."""

import base64

import pytest
from django.db.models.functions import Now
from structlog.testing import capture_logs

from pipedai.crypto import CannotOpen
from pipedai.ids import new_id
from testing.probes.statement_count import counted
from workspaces.encryption import keys
from workspaces.encryption.check import check_keys
from workspaces.encryption.rotation import plan_data_rotation, rotate_data_keys
from workspaces.models import DataKey, Environment
from workspaces.tenant_columns import SealedField

SECRET = b"planted-secret"
FIELD = SealedField("trigger", "mcp_headers", "mcp_key_id")


@pytest.fixture
def row_id():
    return new_id()


@pytest.fixture
def sealed(cast, row_id):
    return keys.seal(FIELD, cast.environment.id, row_id, SECRET)


def wrapped(environment):
    row = DataKey.objects.get(environment=environment, retired_at__isnull=True)
    return keys.WrappedKey(row.id, bytes(row.wrapped), row.master_key_id)


def test_what_was_sealed_opens_at_its_place(cast, row_id, sealed):
    key = wrapped(cast.environment)
    assert sealed.data_key_id == key.id
    assert keys.unseal(FIELD, cast.environment.id, row_id, sealed.box, key) == SECRET


def test_sealing_costs_one_statement_and_opening_none(cast, row_id):
    with counted() as sealing:
        sealed = keys.seal(FIELD, cast.environment.id, row_id, SECRET)
    key = wrapped(cast.environment)
    with counted() as opening:
        keys.unseal(FIELD, cast.environment.id, row_id, sealed.box, key)
    assert (len(sealing), len(opening)) == (1, 0)


@pytest.mark.parametrize(
    "moved",
    [
        {"sealed_field": SealedField("worker", "mcp_headers", "mcp_key_id")},
        {"sealed_field": SealedField("trigger", "webhook_secret", "mcp_key_id")},
        {"row_id": new_id()},
    ],
    ids=["table", "field", "row"],
)
def test_moved_to_another_place_it_does_not_open(cast, row_id, sealed, moved):
    place = {"sealed_field": FIELD, "row_id": row_id, **moved}
    with pytest.raises(CannotOpen):
        keys.unseal(
            **place,
            environment_id=cast.environment.id,
            box=sealed.box,
            key=wrapped(cast.environment),
        )


@pytest.mark.parametrize("key_of", ["environment", "strange_environment"])
def test_moved_to_another_environment_it_does_not_open(cast, row_id, sealed, key_of):
    with pytest.raises(CannotOpen):
        keys.unseal(
            FIELD,
            cast.strange_environment.id,
            row_id,
            sealed.box,
            wrapped(getattr(cast, key_of)),
        )


def test_a_data_key_does_not_open_in_another_environments_row(cast):
    """Somebody who can write to the table can't make one environment's values open with another's key."""
    foreign = wrapped(cast.environment)
    with pytest.raises(CannotOpen):
        keys.unseal(FIELD, cast.strange_environment.id, new_id(), b"\x01" * 60, foreign)


def test_without_the_master_key_nothing_opens(cast, row_id, sealed, settings):
    key = wrapped(cast.environment)
    other = base64.b64encode(b"k" * 32).decode()
    for masters in ([f"other:{other}"], [f"dev:{other}"]):
        settings.MASTER_KEYS = masters
        with pytest.raises(CannotOpen):
            keys.unseal(FIELD, cast.environment.id, row_id, sealed.box, key)


def test_a_newer_master_key_beside_the_old_one_changes_nothing(cast, row_id, sealed, settings):
    new = f"new:{base64.b64encode(b'k' * 32).decode()}"
    settings.MASTER_KEYS = [new, *settings.MASTER_KEYS]
    key = wrapped(cast.environment)
    assert keys.unseal(FIELD, cast.environment.id, row_id, sealed.box, key) == SECRET
    # A new environment's data key is wrapped under the newest master key.
    made = keys.create_data_key
    DataKey.objects.filter(environment=cast.environment).update(retired_at="2026-01-01T00:00:00Z")
    assert made(cast.environment.id).master_key_id == "new"


class TestAnEnvironmentWithoutADataKey:
    """Somebody retired the data key by hand, without the commands."""

    @pytest.fixture(autouse=True)
    def _retired(self, cast):
        DataKey.objects.filter(environment=cast.environment).update(retired_at=Now())

    def test_writing_a_secret_is_503_and_alarms(self, cast):
        path = f"/api/v1/triggers/{cast.trigger_id}"
        with capture_logs() as logs:
            answer = cast.client(cast.owner).patch(path, {"mcpHeaders": {"x-api-key": "planted"}})
        assert answer.status_code == 503
        assert answer["Retry-After"] == "1"
        (alarm,) = [line for line in logs if line["event"] == "secret.cannot_open"]
        assert (alarm["table"], alarm["row_id"], alarm["field"], alarm["wrapped_under"]) == (
            "environment",
            str(cast.environment.id),
            "data_key",
            None,
        )
        assert alarm["reason"] == "the environment has no data key in use"

    def test_check_keys_names_it_and_a_rotation_gives_it_one(self, cast):
        (broken,) = check_keys().broken
        place = f"environment {cast.environment.id}"
        assert broken.startswith(f"does not open: {place}, data_key ({place})")
        assert broken.endswith(": the environment has no data key in use")

        assert plan_data_rotation(cast.environment.id).environments == 1
        assert rotate_data_keys(environment_id=cast.environment.id).new_keys == 1

        assert check_keys().broken == []
        path = f"/api/v1/triggers/{cast.trigger_id}"
        body = {"mcpHeaders": {"x-api-key": "planted"}}
        assert cast.client(cast.owner).patch(path, body).status_code == 200

    def test_nobody_misses_a_deleted_ones(self, cast):
        Environment.objects.filter(id=cast.environment.id).update(deleted_at=Now())
        assert check_keys().broken == []
        assert plan_data_rotation(None).environments == 2  # it has a retired data key to delete
