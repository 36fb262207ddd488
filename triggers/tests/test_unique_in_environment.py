"""Unique constraints of tenants' tables contain the environment, so that it could distribute the tables."""

import pytest

from pipedai.sql import fetch_all

_WITHOUT_ENVIRONMENT = """
SELECT i.indexrelid::regclass::text AS name, array_agg(a.attname::text) AS columns
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid AND NOT t.relispartition
JOIN pg_attribute e ON e.attrelid = t.oid AND e.attname = 'environment_id'
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY(i.indkey)
WHERE t.relnamespace = current_schema()::regnamespace AND i.indisunique AND NOT i.indisprimary
    AND e.attnum <> ALL(i.indkey)
GROUP BY 1 ORDER BY 1
"""


@pytest.mark.django_db
def test_only_those_of_secrets_do_not():
    """A token or code is found by its digest before anybody knows its environment; an invitation, by its mail."""
    found = fetch_all(_WITHOUT_ENVIRONMENT, {})
    assert len(found) >= 3
    others = [
        row["name"] for row in found if not all(c.endswith("_digest") for c in row["columns"])
    ]
    assert others == ["invitation_mail_id_key"]
