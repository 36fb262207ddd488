"""Our loader reads times as Django's does: aware, in UTC, and to the microsecond."""

from datetime import UTC, datetime

import pytest
from django.db import connection
from django.db.backends.postgresql.base import TIMESTAMPTZ_OID
from psycopg.pq import Format

from pipedai.database.base import TimeLoader
from pipedai.sql import fetch_one
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-25 03:10:34.180123+00", datetime(2026, 11, 25, 3, 10, 34, 180123, UTC)),
        ("2026-03-29 02:30:00+02", datetime(2026, 3, 29, 0, 30, tzinfo=UTC)),
        ("0001-01-01 00:00:00+00", datetime(1, 1, 1, tzinfo=UTC)),
        (None, None),
    ],
)
def test_a_time_is_in_utc(written, read):
    row = fetch_one("SELECT %(written)s::timestamptz AS moment", {"written": written})
    assert row == {"moment": read}
    assert read is None or row["moment"].tzinfo is UTC


def test_the_orm_reads_times_so_too(cast):
    row = Workspace.objects.get(id=cast.workspace.id)
    assert row.created_at.tzinfo is UTC
    loader = connection.connection.adapters.get_loader(TIMESTAMPTZ_OID, Format.TEXT)
    assert loader is TimeLoader
