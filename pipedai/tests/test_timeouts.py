"""The right sessions have time-outs, and work that must not be lost goes on in spite of them."""

import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction

from pipedai import timeouts
from pipedai.loop import Job, registered_jobs, run_jobs
from pipedai.management.operator_command import OperatorCommand
from pipedai.outgoing import attempts
from pipedai.outgoing.pool import Senders
from pipedai.outgoing.posts import Answer
from pipedai.sql import database_now, execute, fetch_one
from pipedai.timeouts import (
    COMMAND,
    SENDER,
    WEB,
    Timeouts,
    overriding,
    session_timeouts,
    session_without_timeouts,
    set_timeouts_of_role,
)
from testing.processes.racing import Started, accepted
from testing.processes.stuck_rows import (
    all_rows_of,
    held,
    shorten_timeouts,
    wait_until_somebody_waits,
)
from testing.processes.web_process import url_of
from testing.processes.worker_process import until
from testing.world.runs import Runs
from triggers.models import Delivery, Run
from triggers.webhooks.sending import WEBHOOKS

RENAME = "UPDATE environment SET name = 'new'"


def in_transaction():
    with transaction.atomic():
        execute(RENAME, {})


def by_itself():
    execute(RENAME, {})


def the_orm():
    with transaction.atomic():
        Run.objects.select_for_update().first()
        execute(RENAME, {})


def sleep():
    fetch_one("SELECT pg_sleep(0.7)", {})


def test_sessions_of_the_role_begin_with_them_in_this_database_alone(own_database):
    before = session_timeouts()
    set_timeouts_of_role()
    assert session_timeouts() == before, "what is open keeps what it began with"
    connection.close()
    assert session_timeouts() == WEB == Timeouts("2s", "10s")
    elsewhere = connection.copy()
    elsewhere.settings_dict["NAME"] = "postgres"
    try:
        assert session_timeouts(elsewhere) == before
    finally:
        elsewhere.close()


def test_a_release_waits_for_locks_less_long_than_those_that_queue_up_behind_it(own_database):
    set_timeouts_of_role()
    connection.close()
    row = fetch_one(
        "SELECT setting::int / 1000.0 AS seconds FROM pg_settings WHERE name = 'lock_timeout'", {}
    )
    assert row is not None
    assert row["seconds"] > timeouts.LOCK_SECONDS


@pytest.mark.parametrize("work", [in_transaction, by_itself, the_orm])
def test_background_work_waits_longer_for_a_row_than_the_role_does(committed_cast, work):
    shorten_timeouts(lock="100ms")

    def background():
        with overriding(SENDER):
            work()
        return session_timeouts()

    with held(all_rows_of("environment")):
        with pytest.raises(OperationalError, match="lock timeout"):
            work()
        started = Started(background)
        started.wait_until_blocked()
        wait_until_somebody_waits(0.4)
    (session,) = accepted([started.answer()])
    assert session.lock == "100ms", "the session itself is as it was"
    row = fetch_one("SELECT name FROM environment LIMIT 1", {})
    assert row == {"name": "new"}


def test_a_job_that_lacks_a_lock_goes_on_at_a_later_turn_and_makes_no_other_wait(committed_cast):
    runs = Runs.of(committed_cast)
    runs.now = database_now() - timedelta(hours=2)
    lost = runs.running()
    (expire,) = (job for job in registered_jobs() if job.name == "expire-runs")
    stop, others = threading.Event(), []

    def work():
        if done := expire.work():
            stop.set()
        return done

    def other():
        others.append(0)
        return 0

    jobs = [Job("expire-runs", 0.01, work), Job("other", 0.01, other)]
    with held(all_rows_of("environment")):
        started = Started(lambda: run_jobs(jobs, stop))
        until(lambda: len(others) > 3)
        assert Run.objects.get(id=lost).status == "running"
    assert started.answer() == {"expire-runs": 1}
    assert Run.objects.get(id=lost).status == "failed"
    assert Run.objects.filter(retry_of=lost).count() == 1


def test_what_came_of_a_webhook_is_written_down_however_long_its_row_is_held(
    committed_cast, monkeypatch
):
    """In a thread of the senders', which keeps a connection of its own."""
    runs = Runs.of(committed_cast)
    runs.now = database_now()
    runs.ended()
    shorten_timeouts(lock="100ms")
    is_held = threading.Event()

    def send(_kind, _delivery):
        assert is_held.wait(60)
        return Answer(200, 1, None)

    monkeypatch.setattr(attempts, "send", send)
    senders = Senders(WEBHOOKS)
    assert senders.top_up() == 1
    with held(all_rows_of("delivery")):
        is_held.set()
        wait_until_somebody_waits(0.4)
    assert senders.wait(60)
    senders.finish()
    assert Delivery.objects.get().status == "delivered"


def test_a_command_takes_as_long_as_it_takes(own_database):
    shorten_timeouts(statement="300ms")

    class Slow(OperatorCommand):
        examples = ""
        requires_system_checks = ()

        def handle(self, *args, **options):
            sleep()
            with transaction.atomic():
                sleep()

    with pytest.raises(OperationalError, match="statement timeout"):
        sleep()
    call_command(Slow())


def test_what_runs_outside_transactions_has_a_session_without_time_outs(own_database):
    shorten_timeouts(statement="300ms")
    with overriding(SENDER), session_without_timeouts():
        assert session_timeouts() == COMMAND
        sleep()
        execute("VACUUM environment", {})
    assert session_timeouts() == Timeouts("500ms", "300ms")


def test_options_of_the_url_stay(own_database, monkeypatch):
    options = {**connection.settings_dict["OPTIONS"], "options": "-c work_mem=5MB"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    with session_without_timeouts():
        row = fetch_one("SELECT current_setting('work_mem') AS work_mem", {})
    assert row == {"work_mem": "5MB"}


@pytest.mark.parametrize(("user", "direct"), [(None, True), ("somebody", False)])
def test_it_is_had_past_a_pooler_with_the_same_role_alone(own_database, settings, user, direct):
    own_url = url_of("postgres")
    role = own_url.partition("://")[2].partition(":")[0]
    settings.DATABASE_LISTEN_URL = own_url.replace(role, user or role, 1)
    connection.settings_dict.setdefault("USER", "")
    kept = connection.settings_dict["USER"]
    connection.settings_dict["USER"] = role
    try:
        with session_without_timeouts():
            row = fetch_one("SELECT current_database() AS name", {})
    finally:
        connection.close()
        connection.settings_dict["USER"] = kept
    assert row == {"name": "postgres" if direct else own_database}


def test_a_pooler_between_is_refused_with_the_remedy(own_database, monkeypatch):
    """The test's pooler accepts the settings, but does not pass them on."""
    shorten_timeouts()
    monkeypatch.setattr(timeouts, "_without_timeouts", lambda ours: ours)
    with pytest.raises(CommandError, match=r"a pooler between.* set DATABASE_LISTEN_URL"):
        call_command("release", verbosity=0)


def test_a_pooler_that_refuses_settings_is_too(own_database, monkeypatch):
    def refuse():
        raise OperationalError("FATAL:  unsupported startup parameter: options")

    monkeypatch.setattr(timeouts, "session_timeouts", refuse)
    with pytest.raises(CommandError, match="a pooler between"):
        call_command("release", verbosity=0)
