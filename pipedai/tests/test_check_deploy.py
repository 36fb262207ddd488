"""`manage.py check_deploy` finds what is wrong with a deployment, and says how to fix it."""

import base64
import json
import os
import re
import socket
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection

from pipedai import env
from pipedai.checks import probes
from pipedai.ids import new_id
from pipedai.server.listen import listen_params
from pipedai.timeouts import set_timeouts_of_role
from testing.processes import warm_start
from testing.processes.web_process import url_of
from testing.world.connections import add_oauth_connection, ago, claim_due
from testing.world.runs import Runs
from triggers.heartbeats import Heartbeat
from triggers.models import Run, Trigger, WebHeartbeat

ANOTHER_KEY = base64.b64encode(bytes(range(60, 92))).decode()
# The newest migration of an app.
NEWEST = max(path.stem for path in (env.BASE_DIR / "notices" / "migrations").glob("0*.py"))
NAMES = [
    "settings",
    "public URL",
    "time zones",
    "static files",
    "mail",
    "registration",
    "database",
    "version",
    "migrations",
    "time-outs",
    "commits",
    "plans",
    "clocks",
    "notifications",
    "keys",
    "schedulers",
    "background",
    "audit log",
]


def execute(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def fit(settings, tmp_path, monkeypatch):
    """Sets the settings of a production with which nothing is wrong."""
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE"):
        monkeypatch.delenv(name, raising=False)
    settings.PRODUCTION = True
    settings.SECRET_KEY = base64.b64encode(bytes(range(100, 148))).decode()
    settings.MASTER_KEYS = [f"k1:{base64.b64encode(bytes(range(200, 232))).decode()}"]
    settings.PUBLIC_URL = "https://api.example.com"
    settings.ALLOWED_HOSTS = ["api.example.com"]
    settings.STATIC_ROOT = tmp_path
    (tmp_path / "staticfiles.json").write_text("{}")
    return settings


@pytest.fixture
def deployment(fit, committed_cast):
    """Makes a deployment with which nothing is wrong: the cast's data, the role's time-outs, and a scheduler."""
    set_timeouts_of_role()
    # The suite's own server runs without it, to be fast.
    execute(f'ALTER DATABASE "{connection.settings_dict["NAME"]}" SET synchronous_commit = on')
    connection.close()
    Heartbeat().beat()
    return committed_cast


def problems(capsys):
    """Runs the command, and returns the findings that have a remedy, by name."""
    failed = False
    try:
        call_command("check_deploy", "--json")
    except CommandError:
        failed = True
    found = json.loads(capsys.readouterr().out)
    assert [finding["name"] for finding in found] == NAMES
    troubled = {finding["name"]: finding for finding in found if not finding["ok"]}
    assert failed == bool(troubled)
    assert all(finding["remedy"] for finding in troubled.values())
    return {name: finding["says"] for name, finding in troubled.items()}


def test_a_deployment_that_lacks_nothing_passes(deployment, capsys):
    assert problems(capsys) == {}


def test_the_table_says_what_is_wrong_and_what_to_do(deployment, settings, capsys):
    settings.PUBLIC_URL = "https://elsewhere.example.com"
    with pytest.raises(CommandError, match=r"^1 of 18 need attention\.$"):
        call_command("check_deploy", no_color=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok      settings       They are fit for production."
    assert lines[1].startswith(
        "problem public URL     PUBLIC_URL is https://elsewhere.example.com,"
    )
    assert lines[2].strip().startswith("→ Set PUBLIC_URL to where clients reach the service")


def test_no_mail_and_open_registration_are_warnings_and_no_problems(deployment, settings, capsys):
    call_command("check_deploy", no_color=True)
    lines = capsys.readouterr().out.splitlines()
    assert "warning mail           No mail is sent: EMAIL_URL is not set." in lines
    open_ = "Anybody who reaches the service may register: REGISTRATION is open."
    assert f"warning registration   {open_}" in lines
    settings.REGISTRATION = "invited"
    call_command("check_deploy", "--json")
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert (found["mail"]["ok"], found["mail"]["warning"]) == (True, True)
    said = found["registration"]
    assert (said["warning"], said["says"]) == (False, "Only who is invited may register.")


def test_with_a_mail_server_that_is_away(deployment, settings, capsys):
    settings.EMAIL_URL, settings.EMAIL_FROM = "smtp://127.0.0.1:1", "noreply@example.com"
    said = "The mail server that EMAIL_URL names can't be used: could not connect."
    assert problems(capsys) == {"mail": said}


def test_without_a_scheduler(deployment, capsys):
    execute("UPDATE scheduler_heartbeat SET beat_at = now() - interval '31 seconds'")
    (said,) = problems(capsys).items()
    assert re.fullmatch(r"schedulers: None is alive; last heartbeat: 3\d s ago\.", ": ".join(said))
    execute("DELETE FROM scheduler_heartbeat")
    assert problems(capsys) == {"schedulers": "None is alive; last heartbeat: none."}


def test_with_a_missing_migration(deployment, capsys):
    execute(f"DELETE FROM django_migrations WHERE app = 'notices' AND name = '{NEWEST}'")
    assert problems(capsys) == {"migrations": f"Migrations are not applied: notices.{NEWEST}."}


def test_with_commits_that_a_crash_would_lose(deployment, capsys):
    execute("SET synchronous_commit = off")
    assert problems(capsys) == {
        "commits": "A crash of the database loses runs: synchronous_commit is off."
    }


def test_at_a_node_that_takes_no_writes(deployment, capsys):
    execute("SET default_transaction_read_only = on")
    assert problems(capsys) == {
        "commits": "This node of the database is read-only: it is a standby, or an operator made it so."
    }


def test_with_a_role_that_may_make_no_temporary_tables(deployment, capsys):
    with connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_database())")
        (name,) = cursor.fetchone()
    execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC, CURRENT_USER")
    assert problems(capsys) == {
        "plans": "Plans of files fail: the database's role may not make temporary tables."
    }


def test_a_table_that_a_migration_would_make_is_no_further_problem(deployment, capsys):
    execute(f"DELETE FROM django_migrations WHERE app = 'notices' AND name = '{NEWEST}'")
    execute("ALTER TABLE scheduler_heartbeat RENAME TO not_yet")
    try:
        with pytest.raises(CommandError, match=r"^1 of 18 need attention\. 1 more can't be looked"):
            call_command("check_deploy", no_color=True)
    finally:
        execute("ALTER TABLE not_yet RENAME TO scheduler_heartbeat")
    lines = capsys.readouterr().out.splitlines()
    assert "unknown schedulers     Unknown until the migrations are applied." in lines


def test_with_a_half_made_index(deployment, capsys):
    Heartbeat().beat()
    with pytest.raises(IntegrityError):
        execute("CREATE UNIQUE INDEX CONCURRENTLY half_made ON scheduler_heartbeat (host)")
    assert problems(capsys) == {"migrations": "Indexes were left half-made: half_made."}


@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
def test_with_a_role_that_lacks_a_time_out(deployment, capsys, setting):
    database = connection.settings_dict["NAME"]
    execute(f'ALTER ROLE CURRENT_USER IN DATABASE "{database}" RESET {setting}')
    (said,) = problems(capsys).items()
    assert said[0] == "time-outs"
    assert f"begin with {'lock_timeout = 0' if setting == 'lock_timeout' else ''}" in said[1]
    assert said[1].endswith(", and not with 2s and 10s.")
    call_command("release", verbosity=0)
    assert problems(capsys) == {}


def test_with_a_master_key_that_is_missing(deployment, settings, capsys):
    settings.MASTER_KEYS = [f"k2:{ANOTHER_KEY}"]
    assert problems(capsys)["keys"].startswith(
        "Data keys lie under master keys that are not at hand: k1 ("
    )


def test_with_another_master_key_of_the_same_id(deployment, settings, capsys):
    settings.MASTER_KEYS = [f"k1:{ANOTHER_KEY}"]
    assert problems(capsys) == {"keys": "Data keys under k1 do not open."}


def test_with_master_keys_that_are_malformed(deployment, settings, capsys):
    settings.MASTER_KEYS = ["k1"]
    found = problems(capsys)
    assert set(found) == {"settings", "keys"}
    assert found["keys"] == "Each of MASTER_KEYS must be <id>:<base64 of 32 random bytes>."


def test_listening_to_another_database(deployment, settings, capsys):
    settings.DATABASE_LISTEN_URL = url_of("postgres")
    assert set(problems(capsys)) == {"notifications"}


def test_with_nobody_to_listen_to(deployment, settings, capsys):
    settings.DATABASE_LISTEN_URL = "postgres://nobody:hunter2@127.0.0.1:1/nowhere"
    said = problems(capsys)["notifications"]
    assert said.startswith("There is no connection to LISTEN on: ")
    assert "hunter2" not in said


def test_with_work_that_is_overdue(deployment, capsys):
    deployment.add_trigger(schedule="* * * * *")
    Trigger.objects.filter(schedule__isnull=False).update(
        next_run_at=datetime.now(UTC) - timedelta(minutes=2)
    )
    Runs.of(deployment).running()
    ago(add_oauth_connection(deployment), 2500)
    said = "Overdue by more than 60 s: 1 tick, 1 run, 1 connection."
    assert problems(capsys) == {"background": said}
    claim_due()
    assert problems(capsys) == {"background": "Overdue by more than 60 s: 1 tick, 1 run."}


def test_with_a_lease_that_ran_out_while_no_worker_could_renew_it(deployment, capsys):
    run_id = Runs.of(deployment).running()
    Run.objects.filter(id=run_id).update(deadline_at=datetime.now(UTC) + timedelta(hours=1))
    WebHeartbeat.objects.all().delete()
    assert problems(capsys) == {}


def test_without_a_partition_for_the_next_month(deployment, capsys):
    execute("SELECT audit_add_partition((now() + interval '1 month')::date)")
    next_month = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).strftime("%Y_%m")
    execute(f"DROP TABLE audit_entry_{next_month}")
    assert problems(capsys) == {"audit log": "This month or the next has no partition of its own."}


def test_with_rows_of_this_month_in_the_default_partition(deployment, capsys):
    execute(f"DROP TABLE audit_entry_{datetime.now(UTC):%Y_%m}")
    execute(
        "INSERT INTO audit_entry (id, action, actor_type, target_type, metadata)"
        f" VALUES ('{new_id()}', 'demo.seeded', 'system', 'workspace', '{{}}')"
    )
    assert "audit log" in problems(capsys)


@pytest.mark.parametrize(("seconds", "word"), [(-9, "behind"), (9, "ahead of")])
def test_with_a_clock_that_is_wrong(db, seconds, word):
    found = probes.clocks_agree(lambda: datetime.now(UTC) + timedelta(seconds=seconds))
    assert found.is_serious()
    assert f"s {word} the database's" in found.msg
    assert not probes.clocks_agree().is_serious()


def check_deploy(*options, **environment):
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    given = {**kept, "PIPEDAI_ENV": "production", **environment}
    return warm_start.run(["manage.py", "check_deploy", *options], given)


def test_without_a_database_the_rest_is_said_to_be_unknown():
    """The command runs even with settings with which no other process would start."""
    answer = check_deploy("--json", DATABASE_URL="postgres://nobody@127.0.0.1:1/nowhere")
    assert answer.returncode == 1
    found = {finding["name"]: finding for finding in json.loads(answer.stdout)}
    assert list(found) == NAMES
    assert "SECRET_KEY" in found["settings"]["remedy"]
    assert found["database"]["says"].startswith("The database does not answer: ")
    assert {found[name]["says"] for name in NAMES[7:]} == {"Unknown without the database."}
    assert all(found[name]["unknown"] and not found[name]["ok"] for name in NAMES[7:])
    causes = [name for name in NAMES if not (found[name]["ok"] or found[name]["unknown"])]
    assert causes[-1] == "database"
    assert answer.stderr == (
        f"CommandError: {len(causes)} of 18 need attention. 11 more can't be looked at until then.\n"
    )


def test_a_database_that_says_nothing_is_given_up():
    """A firewall that drops all packets looks like this to the client."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgres://nobody@127.0.0.1:{silent.getsockname()[1]}/nowhere?connect_timeout=2"
        answer = check_deploy("--json", DATABASE_URL=url)
    found = {finding["name"]: finding["says"] for finding in json.loads(answer.stdout)}
    assert "timeout" in found["database"]


@pytest.mark.parametrize(("more", "seconds"), [("", 5), ("?connect_timeout=9", 9)])
def test_connections_are_given_up_soon_unless_the_url_says_otherwise(settings, more, seconds):
    url = f"postgres://nobody@db.example.com/pipedai{more}"
    assert env.database_config(url)["OPTIONS"]["connect_timeout"] == seconds
    settings.DATABASE_LISTEN_URL = url
    params = listen_params()
    assert (params["connect_timeout"], params["tcp_user_timeout"]) == (seconds, 30_000)


def test_an_embedded_database_is_neither_made_nor_started(tmp_path):
    answer = check_deploy(PIPEDAI_DATA_DIR=str(tmp_path))
    assert answer.returncode == 1
    assert f"problem database       There is no database in {tmp_path}: set" in answer.stdout
    assert "unknown version        Unknown without the database." in answer.stdout
    assert list(tmp_path.iterdir()) == []
    cluster = tmp_path / "postgres"
    cluster.mkdir()
    said = check_deploy(PIPEDAI_DATA_DIR=str(tmp_path)).stdout
    assert f"problem database       The embedded PostgreSQL in {tmp_path} does not run." in said
    assert list(cluster.iterdir()) == []
