"""Tables that change much are vacuumed after a hundredth of their rows changed."""

import pytest

from pipedai.sql import fetch_one
from testing.world.cases import cases

TABLES = ("run", "run_text", "run_result", "tick", "delivery")
EARLY = {
    "autovacuum_vacuum_scale_factor=0.01",
    "autovacuum_vacuum_insert_scale_factor=0.01",
    "autovacuum_analyze_scale_factor=0.01",
}


@pytest.mark.django_db
@cases("table", TABLES)
def test_it_has_settings_of_its_own(table):
    row = fetch_one(
        "SELECT reloptions FROM pg_class WHERE oid = %(table)s::regclass", {"table": table}
    )
    assert row is not None
    assert set(row["reloptions"]) >= EARLY
