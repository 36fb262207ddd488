"""Every sealed column is registered, so that rotations and checks include it."""

from django.apps import apps
from django.db import models

from pipedai.sql import fetch_all
from workspaces.models import DataKey
from workspaces.tenant_columns import sealed_fields

# These binary columns do not contain a tenant's ciphertext, but digests, or values wrapped under a master key.
NOT_SEALED = {
    "account_mail.token_digest",
    "api_key.token_digest",
    "authenticator.secret",
    "connection_authorization.state_digest",
    "data_key.wrapped",
    "enrollment.code_digest",
    "enrollment.user_code_digest",
    "event_key.key",
    "idempotency_key.body_digest",
    "recovery_code.code_digest",
    "run.coalesce_key",
    "session.address_digest",
    "session.key_digest",
    "worker.token_digest",
}

_REFERENCES = """
SELECT c.conrelid::regclass::text AS "table", a.attname AS "column"
FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)
WHERE c.contype = 'f' AND c.confrelid = 'data_key'::regclass AND a.attname <> 'environment_id'
"""


def _columns(kind):
    """Returns every column of this kind of field, with its field."""
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.local_fields:
            if isinstance(field, kind):
                yield f"{model._meta.db_table}.{field.column}", field


def test_every_binary_column_is_registered_or_known_to_hold_no_ciphertext():
    binary = {column for column, _ in _columns(models.BinaryField)}
    registered = {str(field) for field in sealed_fields()}
    assert registered == {
        "trigger.mcp_headers",
        "trigger.webhook_secret",
        "connection.headers",
        "event_source.secrets",
        "connection.grant_secrets",
        "connection_authorization.carried",
        "connection_authorization.secrets",
        "connection_revocation.request",
        "channel.url",
        "channel.secret",
    }
    assert binary - NOT_SEALED == registered


def test_every_reference_to_a_data_key_is_one_registered_fields():
    registered = sorted(f"{field.table}.{field.key_column}" for field in sealed_fields())
    references = [
        column
        for column, field in _columns(models.ForeignKey)
        if field.remote_field.model is DataKey
    ]
    assert sorted(references) == registered


def test_the_database_knows_each_as_a_foreign_key(db):
    """The database refuses to delete a data key under which a value is sealed, even if the code would."""
    found = {f"{row['table']}.{row['column']}" for row in fetch_all(_REFERENCES, {})}
    assert found == {f"{field.table}.{field.key_column}" for field in sealed_fields()}
