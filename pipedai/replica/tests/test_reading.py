"""Lists come from a standby that really streams, and everybody sees what they have just written (docs/scaling.md)."""

from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from django.db import connection, connections, transaction
from django.test import Client

from accounts.emails import Email
from accounts.services import create_staff
from pipedai.admin.tests.conftest import log_in
from pipedai.checks.probes import replica_follows
from pipedai.events import Actor, Event, emit
from pipedai.replica import REPLICA, reading
from pipedai.replica.reading import begin_remembering, fitness, prune_recent_writes, remember
from pipedai.server.ticket import STREAM, EnvironmentStreamTicket
from pipedai.sql import database_now, execute, fetch_all
from testing.processes.standby import as_superuser
from testing.processes.web_process import serve
from testing.world.cast import TEST_ACTOR, make_cast, session_cookie
from testing.world.channels import add_channel
from testing.world.users import PASSWORD, use_instant_passwords

# These tests start two servers of PostgreSQL, which they share. Each takes less than half a second of CPU time besides.


@pytest.fixture
def cast(replicated):
    made = make_cast()
    # What the cast wrote while it was made is old, and the replica has it.
    execute("DELETE FROM recent_write", {})
    begin_remembering()
    replicated.catch_up()
    return made


def runs(client, cast, **query):
    answer = client.get(f"/api/v1/environments/{cast.environment.id}/runs", query)
    assert answer.status_code == 200, answer.json()
    return [item["id"] for item in answer.json()["items"]]


def run_trigger(client, cast):
    answer = client.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}, format="json")
    assert answer.status_code == 201, answer.json()
    return answer.json()["id"]


def total(client, cast):
    return client.get(f"/api/v1/environments/{cast.environment.id}/dashboard/overview").json()[
        "todaysRuns"
    ]


def test_who_has_written_sees_it_at_once_and_others_read_the_replica(replicated, cast):
    owner, viewer, key = cast.client(cast.owner), cast.client(cast.viewer), cast.key_client()
    with replicated.standing_still():
        by_owner, by_key = run_trigger(owner, cast), run_trigger(key, cast)
        # Both wrote, so both read the primary, where the other's run is too.
        assert runs(owner, cast) == [by_key, by_owner]
        assert runs(key, cast) == [by_key, by_owner]
        assert total(owner, cast) == 2
        # Another browser of the same user sees it as well.
        assert runs(cast.client(cast.owner), cast) == [by_key, by_owner]
        # The viewer's lists come from the replica, which has not replayed that.
        assert runs(viewer, cast) == []
        assert total(viewer, cast) == 0
    replicated.catch_up()
    assert runs(viewer, cast) == [by_key, by_owner]
    # When the replica has replayed what the owner wrote, the owner's lists come from it.
    with replicated.standing_still():
        run_trigger(key, cast)
        assert runs(owner, cast) == [by_key, by_owner]


def test_each_list_and_figure_that_the_replica_answers_reads_it(replicated, cast):
    viewer, environment = cast.client(cast.admin), f"/api/v1/environments/{cast.environment.id}"
    pages = [
        f"{environment}/runs",
        f"{environment}/triggers",
        f"{environment}/audit-log",
        f"{environment}/incidents",
        f"{environment}/stats?groupBy=trigger",
        f"{environment}/dashboard/overview",
        f"/api/v1/triggers/{cast.trigger_id}/runs",
        f"/api/v1/triggers/{cast.trigger_id}/ticks",
        f"/api/v1/triggers/{cast.trigger_id}/deliveries",
        f"/api/v1/channels/{add_channel(cast).id}/notices",
    ]
    replicated.catch_up()
    for page in pages:
        asked: dict[str, list[str]] = {alias: [] for alias in ("default", REPLICA)}

        def note(execute, sql, params, many, context, asked=asked):
            asked[context["connection"].alias].append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note), connections[REPLICA].execute_wrapper(note):
            assert viewer.get(page).status_code == 200, page
        # The first statement asks for the replica's position, and the others read.
        assert len(asked[REPLICA]) >= 2, page
        # What waits at this moment is no figure of the past.
        present = ("AS online_workers", "AS total")
        of_the_past = [sql for sql in asked["default"] if not any(word in sql for word in present)]
        assert not [sql for sql in of_the_past if " FROM run" in sql or "audit_entry" in sql]


def test_the_stream_of_changes_makes_its_reader_see_what_it_tells(replicated, cast):
    viewer = cast.client(cast.viewer)
    with replicated.standing_still():
        run = run_trigger(cast.key_client(), cast)
        assert runs(viewer, cast) == []
        ticket = EnvironmentStreamTicket(asked_at=database_now(), changed={("run", UUID(run))})
        page = f"/api/v1/environments/{cast.environment.id}/events/stream"
        told = viewer.get(page, **{"asgi.scope": {STREAM: ticket}})
        assert run in told.content.decode()
        assert runs(viewer, cast) == [run]


def test_a_list_of_admin_comes_from_the_replica_unless_its_reader_has_just_written(
    replicated, cast, settings
):
    use_instant_passwords(settings)
    staff = create_staff(
        email=Email("staff@example.com"), password=PASSWORD, name="Staff", actor=TEST_ACTOR
    )
    desk, page = Client(), "/admin/triggers/run/"
    assert log_in(desk).status_code == 302
    with replicated.standing_still():
        run = run_trigger(cast.key_client(), cast)
        assert run not in desk.get(page).content.decode()
        with transaction.atomic():
            emit(Event("user.deactivated", Actor("staff", staff.id), None, "user", cast.viewer.id))
        assert run in desk.get(page).content.decode()


def test_a_row_that_the_replica_lacks_is_looked_for_at_the_primary(replicated, cast):
    viewer = cast.client(cast.viewer)
    with replicated.standing_still():
        # Somebody else's new trigger, which the viewer may know from a colleague.
        trigger_id = cast.add_trigger()
        page = f"/api/v1/environments/{cast.environment.id}/runs"
        assert viewer.get(page, {"triggerId": str(trigger_id)}).status_code == 200
        assert viewer.get(page, {"triggerId": str(uuid4())}).status_code == 400
        assert viewer.get(page, {"cursor": "nonsense"}).status_code == 400


def test_a_replica_that_is_too_far_behind_is_passed_over(replicated, cast, monkeypatch, capsys):
    viewer = cast.client(cast.viewer)
    with replicated.standing_still():
        run = run_trigger(cast.key_client(), cast)
        assert runs(viewer, cast) == []
        assert viewer.get("/api/v1/health").json()["replica"] == "ok"
        monkeypatch.setattr(reading, "MOST_BEHIND", timedelta(0))
        assert runs(viewer, cast) == [run]
        assert viewer.get("/api/v1/health").json()["replica"] == "behind"
        assert "because the replica is behind" in replica_follows().msg
        monkeypatch.setattr(reading, "MOST_BEHIND", timedelta(seconds=30))
        # For a moment nobody asks it again.
        assert runs(viewer, cast) == [run]
    fitness.try_again()
    replicated.catch_up()
    assert viewer.get("/api/v1/health").json() == {
        **viewer.get("/api/v1/health/live").json(),
        "replica": "ok",
    }
    assert not replica_follows().is_serious()
    said = capsys.readouterr().out
    assert said.count("replica.passed_over") == 1
    assert said.count("replica.used_again") == 1


def test_a_server_that_is_no_standby_is_not_read(replicated, cast):
    connections.databases[REPLICA].update(HOST=replicated.primary.connection_params()["host"])
    assert runs(cast.client(cast.viewer), cast) == []
    assert fitness.state == "behind"


def test_a_server_that_can_not_tell_its_position_is_not_read(replicated, cast, monkeypatch):
    """As readers of Amazon Aurora, which support no such function."""
    monkeypatch.setattr(reading, "_REACHED", "SELECT pg_no_such_function()")
    assert runs(cast.client(cast.viewer), cast) == []
    assert fitness.state == "behind"


def test_without_the_replica_the_primary_answers_and_health_says_so(replicated, cast):
    viewer = cast.client(cast.viewer)
    replicated.catch_up()
    assert runs(viewer, cast) == []
    replicated.standby.stop()
    try:
        run = run_trigger(cast.key_client(), cast)
        # The kept connection breaks, and then no new one is made.
        assert runs(viewer, cast) == [run]
        answer = viewer.get("/api/v1/health")
        assert (answer.status_code, answer.json()["replica"]) == (200, "unreachable")
        assert runs(viewer, cast) == [run]
    finally:
        replicated.standby.ensure_running()
    fitness.try_again()
    run_trigger(cast.key_client(), cast)  # a commit, by which the standby's lag can be told
    replicated.catch_up()
    assert viewer.get("/api/v1/health").json()["replica"] == "ok"


def test_a_statement_that_the_replica_cancels_is_asked_at_the_primary(replicated, cast, capsys):
    viewer = cast.client(cast.viewer)
    calls = []

    def work():
        calls.append(1)
        if len(calls) == 1:
            # As when a statement conflicts with what the primary has removed meanwhile.
            fetch_all("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", {})
        return len(calls)

    replicated.catch_up()
    assert reading.read_for(cast.viewer.id, work) == 2
    assert "replica.failed" in capsys.readouterr().out
    assert runs(viewer, cast) == []
    assert fitness.state == "ok"


def test_nothing_is_written_through_the_replica(replicated, cast):
    """A write in an action that reads goes to the primary by Django's router, and fails on the standby as raw SQL."""
    replicated.catch_up()
    tried = []

    def work():
        tried.append(1)
        return execute("DELETE FROM recent_write WHERE written_at IS NULL", {})

    assert reading.read_for(cast.viewer.id, work) == 0
    assert len(tried) == 2


def test_positions_of_writers_are_removed_after_two_hours(replicated, cast):
    run_trigger(cast.client(cast.owner), cast)
    assert prune_recent_writes() == 0
    old = "UPDATE recent_write SET written_at = written_at - interval '3 hours'"
    assert as_superuser(replicated.primary, old) == []
    assert prune_recent_writes() == 2


def test_a_process_that_knows_of_no_replica_remembers_who_writes_once_another_reads_one(
    replicated, cast
):
    """The first reader after a time without one reads the primary, as what was written before is not remembered."""
    execute("DELETE FROM recent_write", {})
    owner, viewer = cast.client(cast.owner), cast.client(cast.viewer)
    with replicated.standing_still():
        before = run_trigger(owner, cast)
        assert fetch_all("SELECT FROM recent_write", {}) == []
        assert runs(owner, cast) == [before]
        # The replica may have to show something that was not remembered, so nobody's lists come from it yet.
        assert runs(viewer, cast) == [before]
    replicated.catch_up()
    with replicated.standing_still():
        by_owner = run_trigger(owner, cast)
        assert runs(owner, cast) == [by_owner, before]
        assert runs(viewer, cast) == [before]


def test_a_readers_row_that_grows_old_is_written_anew(replicated, cast):
    execute("UPDATE recent_write SET written_at = written_at - interval '90 minutes'", {})
    runs(cast.client(cast.owner), cast)
    assert fetch_all("SELECT FROM recent_write WHERE written_at > now() - interval '1 hour'", {})


def test_the_settings_switch_it_on_for_a_served_api(replicated, cast, tmp_path):
    """Two processes of the real web server share what each caller has written."""
    owner, viewer = (session_cookie(user) for user in (cast.owner, cast.viewer))
    page = f"/environments/{cast.environment.id}/runs"
    log = tmp_path / "web.log"
    urls = {
        "DATABASE_URL": replicated.primary.url(),
        "REPLICA_DATABASE_URL": replicated.standby.url(),
        "WEB_CONCURRENCY": "2",
    }
    with (
        serve("", log=log, **urls) as server,
        httpx.Client(base_url=server.api) as client,
        replicated.standing_still(),
    ):
        assert client.get("/health").json()["replica"] == "ok"
        run = client.post(
            f"/triggers/{cast.trigger_id}/run",
            json={},
            headers={"Cookie": f"auth_token={owner}", "Origin": server.url},
        )
        assert run.status_code == 201, run.text
        for _ in range(4):
            # A new connection each time, so that both processes answer.
            seen = [
                httpx.get(server.api + page, headers={"Cookie": f"auth_token={who}"}).json()
                for who in (owner, viewer)
            ]
            assert [len(each["items"]) for each in seen] == [1, 0]


def test_of_two_positions_that_arrive_in_the_wrong_order_the_later_one_stays(db):
    begin_remembering()
    caller, later = uuid4(), 2**62
    insert = "INSERT INTO recent_write VALUES (%(id)s, %(later)s, statement_timestamp())"
    execute(insert, {"id": caller, "later": later})
    remember([caller])
    found = "SELECT position FROM recent_write WHERE principal_id = %(id)s"
    assert fetch_all(found, {"id": caller}) == [{"position": later}]
