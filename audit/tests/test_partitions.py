"""The audit log has one partition for each month, made ahead of time, and one for all other times."""

from datetime import UTC, datetime

import pytest
from django.db import connection

from audit.models import AuditEntry
from audit.receivers import MONTHS_AHEAD, add_partitions, add_partitions_of
from pipedai.api.pagination import before, not_before
from pipedai.ids import new_id
from testing.world.instants import INSTANTS
from testing.world.undone import undone
from triggers.budgets.periods import period_around

pytestmark = pytest.mark.django_db


def query(statement, *params):
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall()


def write(moment):
    entry = AuditEntry(
        action="run.created",
        actor_type="system",
        target_type="run",
        target_id=new_id(),
        created_at=moment,
    )
    AuditEntry.objects.bulk_create([entry])
    return partition_of(entry)


def partition_of(entry):
    ((name,),) = query("SELECT tableoid::regclass::text FROM audit_entry WHERE id = %s", entry.id)
    return name


def expected_names():
    rows = query(
        "SELECT to_char((now() AT TIME ZONE 'UTC') + n * interval '1 month', 'YYYY_MM')"
        " FROM generate_series(0, %s) n",
        MONTHS_AHEAD,
    )
    return {f"audit_entry_{month}" for (month,) in rows}


def names():
    return {
        name
        for (name,) in query(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'audit_entry'::regclass"
        )
    }


def test_those_of_this_and_the_coming_months_are_made():
    add_partitions()
    assert expected_names() <= names()


def test_what_is_made_is_not_made_again():
    add_partitions()
    before = names()
    assert add_partitions() == 0
    assert names() == before


def test_what_is_missing_is_made_and_counted():
    add_partitions()
    last = max(expected_names())
    query_none(f"DROP TABLE {last}")
    assert add_partitions() == 1
    assert last in names()


def test_a_row_lies_in_the_partition_of_its_month():
    add_partitions()
    name = min(expected_names())
    year, month = name.rpartition("entry_")[2].split("_")
    assert write(datetime(int(year), int(month), 1, tzinfo=UTC)) == name
    assert write(datetime(int(year), int(month), 28, 23, 59, 59, 999999, UTC)) == name


def test_months_begin_at_midnight_in_utc():
    query("SELECT audit_add_partition('2100-03-31')")
    query("SELECT audit_add_partition('2100-04-01')")
    assert write(datetime(2100, 3, 31, 23, 59, 59, 999999, UTC)) == "audit_entry_2100_03"
    assert write(datetime(2100, 4, 1, tzinfo=UTC)) == "audit_entry_2100_04"


def test_they_are_made_in_time_at_each_instant_of_the_calendar():
    for now in INSTANTS.values():
        with undone():
            add_partitions(now=now)
            moment = now
            for _ in range(MONTHS_AHEAD + 1):
                assert write(moment) == f"audit_entry_{moment:%Y_%m}"
                _, moment = period_around(moment, "month", "UTC")


def test_the_months_of_rows_in_the_default_partition_are_utc_in_any_session():
    """PostgreSQL would compare a date with times in the zone of the session."""
    evening = datetime(2139, 12, 31, 20, tzinfo=UTC)
    assert write(evening) == "audit_entry_default"
    query_none("SET LOCAL TIME ZONE 'Asia/Tokyo'")
    add_partitions_of([evening, datetime(2140, 1, 1, tzinfo=UTC)])
    assert {"audit_entry_2139_12", "audit_entry_2140_01"} & names() == {"audit_entry_2140_01"}


def test_a_row_of_a_month_without_one_is_kept_all_the_same():
    assert write(datetime(2140, 1, 1, tzinfo=UTC)) == "audit_entry_default"
    assert AuditEntry.objects.filter(created_at__year=2140).count() == 1


def test_a_month_that_has_gone_to_the_default_stays_there():
    add_partitions()
    last = max(expected_names())
    year, month = last.rpartition("entry_")[2].split("_")
    query_none(f"DROP TABLE {last}")
    assert write(datetime(int(year), int(month), 15, tzinfo=UTC)) == "audit_entry_default"
    assert add_partitions() == 0
    assert last not in names()


def query_none(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_page_from_the_past_looks_into_no_later_month_and_one_until_then_into_no_earlier():
    add_partitions()
    first, second, third = (name for name in sorted(expected_names())[:3])
    place = (
        datetime.strptime(f"{second}_15", "audit_entry_%Y_%m_%d").replace(tzinfo=UTC),
        new_id(),
    )
    order, rows = ("created_at", "id"), AuditEntry.objects.all()
    older, newer = (rows.filter(bound(order, place)).explain() for bound in (before, not_before))
    assert [month in older for month in (first, second, third)] == [True, True, False]
    assert [month in newer for month in (first, second, third)] == [False, True, True]
