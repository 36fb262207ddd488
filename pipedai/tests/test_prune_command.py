"""`manage.py prune` reports its work, refuses bad arguments, and leaves nothing half done when it is killed."""

import os
import random
import threading
import time
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction
from psycopg.errors import LockNotAvailable

from audit.models import AuditEntry
from pipedai import retention
from pipedai.sql import database_now, execute
from testing.processes.warm_start import SERVICE
from testing.processes.web_process import url_of
from testing.world.old_runs import add_old_runs
from testing.world.runs import NOON, Runs
from triggers.models import Delivery, DeliveryAttempt, Run, RunText, Tick


def command(*arguments):
    said = StringIO()
    call_command("prune", *arguments, stdout=said)
    return said.getvalue()


@pytest.fixture
def old_runs(cast):
    add_old_runs(cast.trigger_id, 12, NOON)


def test_without_settings_no_run_is_removed(old_runs):
    said = command()
    assert "runs: kept for ever.\ndeliveries: kept for ever.\n" in said
    assert "sessions: 0 removed, older than 30 days.\n" in said
    assert Run.objects.count() == 12


def test_a_kind_that_is_in_use_keeps_no_other_from_being_pruned(cast, monkeypatch, capfd):
    def held(_):
        raise retention.InUse("Somebody uses it.")

    def free(_):
        return iter([retention.Batch(7, 7)])

    kinds = {
        name: retention.Retention(name, name, lambda: 1, prune)
        for name, prune in (("held", held), ("free", free))
    }
    monkeypatch.setattr(retention, "_registered", kinds)
    said = StringIO()
    with pytest.raises(CommandError, match="held: Somebody uses it"):
        call_command("prune", stdout=said)
    assert said.getvalue() == "free: 7 removed, older than 1 day.\n"


def test_a_setting_gives_a_kind_its_retention(old_runs, settings):
    settings.RUN_RETENTION_DAYS = 30
    assert "runs: 12 removed, older than 30 days.\n" in command()
    assert Run.objects.count() == 0


def test_a_kind_and_days_overrule_the_settings(old_runs):
    assert command("runs", "--days", "30", "--batch-size", "5") == (
        "runs: 12 removed, older than 30 days.\n"
    )
    assert Run.objects.count() == 0


def test_a_dry_run_removes_nothing(old_runs):
    before = AuditEntry.objects.count()
    assert command("runs", "--days", "30", "--dry-run") == (
        "runs: 12 would be removed, older than 30 days.\n"
    )
    assert Run.objects.count() == 12
    assert AuditEntry.objects.count() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--days", "5"], r"^--days needs a KIND to which it applies\.$"),
        (["runs", "--days", "0"], "kept for at least 1 day"),
        (["sessions", "--days", "29"], "kept for at least 30 days"),
        (["runs", "--days", "36501"], r"^--days must not be over 36500\.$"),
        (["runs", "--days", "9" * 30], r"^--days must not be over 36500\.$"),
        (["--audit", "--days", "36501"], r"^--days must not be over 36500\.$"),
        (["users"], "There is no kind 'users': choose from"),
        (["audit-log", "--days", "400"], "There is no kind 'audit-log'"),
        (["--batch-size", "0"], "--batch-size must be between 1 and 10000"),
        (["--pause-ms", "-1"], "--pause-ms must not be negative"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(db, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        command(*arguments)


def test_its_help_ends_with_examples(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    assert "manage.py prune --audit --days 400" in capsys.readouterr().out


@pytest.mark.long
def test_killed_at_any_point_and_started_again_it_ends_right(own_database, committed_cast):
    runs = Runs.of(committed_cast, webhook_url=None, max_retries=0)
    add_old_runs(runs.trigger_id, 2500, NOON)
    runs.wait(days=10)
    young = runs.ended()
    unfinished = Runs.of(committed_cast, webhook_url=None).queue()
    rows_before = list(AuditEntry.objects.order_by("created_at", "id").values())
    days = str(days_since(NOON + timedelta(days=5)))
    call = ["manage.py", "prune", "runs", "--days", days, "--batch-size"]
    environment = {**os.environ, "DATABASE_URL": url_of(own_database)}
    left = [old_ones().count()]

    with beside(runs, young) as neighbour, Path(os.devnull).open("wb") as nowhere:
        for _ in range(4):
            # The batches are so small that there is still much to do when the kill comes, however late.
            process = SERVICE.start([*call, "5"], environment=environment, output=nowhere.fileno())
            wait_until_fewer(left[-1])
            time.sleep(random.uniform(0, 0.3))
            process.kill()
            assert process.wait() != 0
            left.append(old_ones().count())
            look_for_halves()
        assert left == sorted(left, reverse=True)
        assert left[-1] > 0
        assert SERVICE.run([*call, "40"], environment).returncode == 0

    assert neighbour.done > 20
    assert neighbour.errors == []
    assert neighbour.waits <= 2, "one that stood still with a lock is no rule"
    assert set(Run.objects.values_list("id", flat=True)) == {young, unfinished, *neighbour.runs}
    look_for_halves()
    told = AuditEntry.objects.filter(action="runs.pruned").values_list("metadata", flat=True)
    assert sum(metadata["runs"] for metadata in told) == 2500
    kept = AuditEntry.objects.filter(id__in=[row["id"] for row in rows_before])
    assert list(kept.order_by("created_at", "id").values()) == rows_before


def old_ones():
    return Run.objects.filter(ended_at__lt=NOON + timedelta(days=5))


def days_since(moment):
    return (database_now() - moment).days


def wait_until_fewer(count):
    deadline = time.monotonic() + 60
    while old_ones().count() >= count:
        assert time.monotonic() < deadline, "nothing was removed"
        time.sleep(0.05)


def look_for_halves():
    """Asserts that each remaining run has all of its rows, and that no row of a deleted run is left."""
    runs = old_ones()
    assert RunText.objects.filter(run__in=runs).count() == runs.count()
    assert Tick.objects.count() == runs.filter(source="schedule").count()
    assert DeliveryAttempt.objects.count() == Delivery.objects.count()
    assert not runs.filter(attempt=2).exclude(retry_of__in=Run.objects.all()).exists()
    failed = runs.filter(fault_class="infra")
    assert failed.count() == runs.filter(retry_of__in=failed).count()


class beside(threading.Thread):  # noqa: N801 - used like a function
    """Writes runs for the time of the block, and counts the writes that waited longer than 200 ms for a lock."""

    def __init__(self, runs, run_id):
        super().__init__()
        self.stopped = threading.Event()
        self.errors, self.runs, self.done, self.waits = [], [], 0, 0
        self._by, self._run_id = runs, run_id

    def run(self):
        execute("SET lock_timeout = '200ms'", {})
        waited = False
        while not self.stopped.wait(0.05):
            try:
                self.runs.append(self._by.queue())
                with transaction.atomic():
                    execute("UPDATE run SET exit_code = %(n)s WHERE id = %(id)s",
                            {"n": self.done, "id": self._run_id})  # fmt: skip
                self.done += 1
                waited = False
            except OperationalError as error:
                if not isinstance(error.__cause__, LockNotAvailable):
                    self.errors.append(error)
                self.waits += not waited
                waited = True
            except Exception as error:
                self.errors.append(error)
        connections.close_all()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()
