"""Nobody can change or delete a row of the audit log, not even the application itself."""

import pytest
from django.db import DatabaseError, connection, transaction

from audit.models import AuditEntry
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id


def partitions():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'audit_entry'::regclass ORDER BY 1"
        )
        return [name for (name,) in cursor.fetchall()]


@pytest.fixture
def entry(db):
    """Writes a row in the partition of this month."""
    with transaction.atomic():
        emit(Event("run.created", Actor("system"), None, "run", new_id()))
    return AuditEntry.objects.get()


def refused(statement):
    """Checks that the database refuses the statement and says that the log is append-only. Returns True."""
    with (
        pytest.raises(DatabaseError, match="the audit log is append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    return True


CHANGES = {
    "update": "UPDATE {table} SET action = 'run.lost'",
    "update of one row": "UPDATE {table} SET metadata = '{{}}' WHERE id = '{id}'",
    "update of nothing": "UPDATE {table} SET action = 'run.lost' WHERE false",
    "delete": "DELETE FROM {table}",
    "delete of one row": "DELETE FROM {table} WHERE id = '{id}'",
    "delete in a CTE": "WITH gone AS (DELETE FROM {table} RETURNING *) SELECT count(*) FROM gone",
    "upsert": (
        "INSERT INTO {table} SELECT * FROM {table} ON CONFLICT (created_at, id)"
        " DO UPDATE SET action = 'run.lost'"
    ),
    "merge": ("MERGE INTO {table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE"),
    "truncate": "TRUNCATE {table}",
    "truncate with cascade": "TRUNCATE {table} CASCADE",
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_table_refuses(entry, change):
    assert refused(CHANGES[change].format(table="audit_entry", id=entry.id))
    assert AuditEntry.objects.get().action == "run.created"


@pytest.mark.parametrize("change", CHANGES)
def test_each_partition_refuses(entry, change):
    names = partitions()
    assert "audit_entry_default" in names
    assert len(names) >= 3
    for name in names:
        assert refused(CHANGES[change].format(table=name, id=entry.id)), name


def test_a_partition_made_later_refuses(db):
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit_add_partition('2100-05-17')")
    for change in ("update", "delete", "truncate"):
        assert refused(CHANGES[change].format(table="audit_entry_2100_05"))


def test_the_orm_is_refused_too(entry):
    for act in (
        lambda: AuditEntry.objects.update(action="run.lost"),
        lambda: AuditEntry.objects.all().delete(),
        entry.delete,
        entry.save,
    ):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            act()


def test_also_as_a_replica_where_the_role_may_pass_for_one(entry):
    """`session_replication_role = replica` turns ordinary triggers off, so ours are `ENABLE ALWAYS`."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
    except DatabaseError as error:
        assert "permission denied" in str(error)  # noqa: PT017 - the other way to be safe
    else:
        for name in ("audit_entry", *partitions()):
            for change in ("update", "delete", "truncate"):
                statement = CHANGES[change].format(table=name)
                assert refused(f"SET LOCAL session_replication_role = replica; {statement}")


def test_its_triggers_fire_always_on_every_partition(db):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgrelid::regclass::text, tgenabled FROM pg_trigger"
            " WHERE tgname = 'audit_append_only' AND NOT tgisinternal"
        )
        fires = dict(cursor.fetchall())
    assert fires == dict.fromkeys(["audit_entry", *partitions()], "A")


def test_no_foreign_key_and_so_no_cascade_reaches_it(db):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_constraint WHERE contype = 'f'"
            " AND 'audit_entry'::regclass IN (conrelid, confrelid)"
        )
        assert cursor.fetchone() == (0,)


def test_rows_outlive_what_they_tell_of(cast):
    before = AuditEntry.objects.filter(target_id=cast.stranger.id).count()
    with transaction.atomic():
        emit(Event("user.deactivated", Actor("system"), None, "user", cast.stranger.id))
    cast.stranger.sessions.all().delete()
    assert AuditEntry.objects.filter(target_id=cast.stranger.id).count() == before + 1


@pytest.mark.parametrize("kind", ["user", "api_key", "worker", "staff", "system"])
def test_these_may_act(db, kind):
    with transaction.atomic():
        emit(Event("run.created", Actor(kind, new_id()), None, "run", new_id()))
    assert AuditEntry.objects.get().actor_type == kind


def test_nobody_else_may(db):
    with pytest.raises(DatabaseError, match="actor_type"), transaction.atomic():
        emit(Event("run.created", Actor("robot"), None, "run", new_id()))  # type: ignore[arg-type]
