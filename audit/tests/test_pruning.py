"""Only an operator's command drops old months of the audit log."""

import sys
import threading
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction

from audit.models import AuditEntry
from audit.receivers import drop_partitions
from pipedai.ids import new_id
from pipedai.retention import Order, Rounds
from pipedai.sql import execute

OLD = datetime(2020, 3, 5, tzinfo=UTC)
YOUNGER = datetime(2020, 4, 5, tzinfo=UTC)
IN_NO_MONTH = datetime(2019, 1, 1, tzinfo=UTC)


@pytest.fixture
def months(db):
    """Makes partitions for two old months, an entry in each, and an entry of a month without a partition."""
    make_months()


def make_months():
    for moment in (OLD, YOUNGER):
        execute("SELECT audit_add_partition(%(day)s::date)", {"day": moment})
    AuditEntry.objects.bulk_create(
        AuditEntry(
            action="run.created", actor_type="system", target_type="run", target_id=new_id(), created_at=moment
        )
        for moment in (OLD, YOUNGER, IN_NO_MONTH)
    )  # fmt: skip


def partitions():
    return set(connection.introspection.table_names())


def moments():
    return set(AuditEntry.objects.filter(action="run.created").values_list("created_at", flat=True))


def command(*arguments):
    said = StringIO()
    call_command("prune", "--audit", *arguments, stdout=said)
    return said.getvalue()


def test_a_month_that_was_over_goes_whole_and_says_so(months):
    assert [
        batch.removed for batch in drop_partitions(Order(datetime(2020, 4, 1, tzinfo=UTC), 1))
    ] == [1]
    assert moments() == {YOUNGER, IN_NO_MONTH}
    assert "audit_entry_2020_03" not in partitions()
    (row,) = AuditEntry.objects.filter(action="runs.pruned")
    assert (row.actor_type, row.target_type, row.environment_id) == ("system", "audit-log", None)
    assert row.metadata == {"month": "2020_03", "endedAt": "2020-04-01T00:00:00.000Z", "entries": 1}


def test_one_that_was_not_over_stays(months):
    before = datetime(2020, 3, 31, 23, 59, 59, tzinfo=UTC)
    assert list(drop_partitions(Order(before, 1))) == []
    assert moments() == {OLD, YOUNGER, IN_NO_MONTH}


def test_the_command_drops_all_that_are_older_and_no_others(months):
    assert command("--days", "1000", "--yes") == "audit-log: 2 removed, older than 1000 days.\n"
    assert moments() == {IN_NO_MONTH}


def test_a_dry_run_drops_nothing(months):
    before = partitions()
    assert "audit-log: 2 would be removed" in command("--days", "1000", "--dry-run")
    assert partitions() == before
    assert not AuditEntry.objects.filter(action="runs.pruned").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--audit needs --days"),
        (["--days", "91", "--yes"], "kept for at least 92 days"),
        (["--days", "0", "--yes"], "kept for at least 92 days"),
        (["--days", "-5", "--yes"], "kept for at least 92 days"),
        (["--days", "1000"], "say --yes"),
        (["runs", "--days", "1000", "--yes"], "name no other kind"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(months, monkeypatch, arguments, sentence):
    monkeypatch.setattr(sys, "stdin", StringIO())
    with pytest.raises(CommandError, match=sentence):
        command(*arguments)
    assert moments() == {OLD, YOUNGER, IN_NO_MONTH}


@pytest.mark.parametrize(("answer", "drops"), [("yes", True), ("n", False), ("", False)])
def test_on_a_terminal_it_asks(months, monkeypatch, answer, drops):
    monkeypatch.setattr(sys, "stdin", StringIO(f"{answer}\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    if drops:
        command("--days", "1000")
    else:
        with pytest.raises(CommandError, match=r"^Nothing was dropped\.$"):
            command("--days", "1000")
    assert (OLD in moments()) is not drops


def test_other_kinds_and_the_scheduler_leave_it_alone(months, settings):
    settings.RUN_RETENTION_DAYS = 1
    before = partitions()
    call_command("prune", stdout=StringIO())
    rounds = Rounds()
    while rounds.work():
        pass
    assert partitions() == before
    assert moments() == {OLD, YOUNGER, IN_NO_MONTH}


def test_it_waits_for_a_writer_no_longer_than_a_moment_at_a_time(own_database):
    make_months()
    written, done = threading.Event(), threading.Event()

    def write():
        with transaction.atomic():
            AuditEntry.objects.create(action="run.created", actor_type="system", target_type="run")
            written.set()
            done.wait(1)
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    written.wait(10)
    order = Order(datetime.now(UTC) - timedelta(days=1000), 1)
    dropped = sum(batch.removed for batch in drop_partitions(order))
    done.set()
    writer.join()
    assert dropped == 2
