"""`manage.py pg` manages the embedded server, and says so if the settings name another one."""

import psycopg
import pytest
from django.core.management import CommandError, call_command

from bin.suite import copy_cluster
from pipedai.embedded.cluster import APPLICATION, DATABASE, SUPERUSER
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.embedded.tests.conftest import fresh_data_dir
from pipedai.embedded.tests.processes import ask
from pipedai.management.commands.pg import Command

pytestmark = pytest.mark.long


@pytest.fixture
def use(settings, monkeypatch):
    """Return a function that makes the settings name another database."""

    def use(engine, data_dir=None):
        database = {"ENGINE": engine, "DATA_DIR": data_dir}
        monkeypatch.setitem(settings.DATABASES, "default", database)

    return use


@pytest.fixture
def pg(server, use, capsys):
    """Return a function that runs an action on `server` and returns its output."""
    use("pipedai.embedded", server.layout.data_dir)

    def run(*arguments):
        call_command("pg", *map(str, arguments))
        return capsys.readouterr().out.strip()

    return run


@pytest.fixture
def empty_server(made_server):
    """Run a server whose database has no tables."""
    made_server.ensure_running()
    params = made_server.connection_params("template1", role=SUPERUSER)
    with psycopg.connect(**params, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {DATABASE}")
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {APPLICATION}")
    return made_server


def test_start_status_and_stop(pg, made_server):
    with pytest.raises(CommandError, match="is not running") as caught:
        pg("status")
    assert caught.value.returncode == 3
    assert "PostgreSQL is running (pid " in pg("start")
    assert str(made_server.layout.socket_dir) in pg("status")
    assert pg("stop") == "PostgreSQL stopped."
    assert pg("stop") == "PostgreSQL was not running."


def test_url_starts_a_server_that_was_made_and_prints_what_libpq_takes(pg, server, kept_cluster):
    with pytest.raises(CommandError, match="There is no database in"):
        pg("url")
    copy_cluster(kept_cluster, server.layout.data_dir)
    with psycopg.connect(pg("url")) as connection:
        assert connection.info.user == "pipedai"


def test_a_dump_is_restored_into_another_server(pg, empty_server, tmp_path, use):
    file = tmp_path / "pipedai.dump"
    ask(empty_server, "CREATE TABLE kept AS SELECT 7 AS number")
    assert pg("dump", file) == f"The database is in {file}."
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(CommandError, match="exists already"):
        pg("dump", file)
    with pytest.raises(CommandError, match=r"pg_restore failed: .*already exists"):
        pg("restore", file)
    with fresh_data_dir() as other:
        use("pipedai.embedded", other)
        pg("restore", file)
        assert ask(EmbeddedPostgres(other), "SELECT number FROM kept") == 7


def test_what_is_no_dump_changes_nothing(pg, empty_server, tmp_path):
    file = tmp_path / "novel.txt"
    with pytest.raises(CommandError, match=r"pg_restore failed: .*No such file"):
        pg("restore", file)
    file.write_text("It was a dark and stormy night.")
    with pytest.raises(CommandError, match=r"pg_restore failed: .*archive"):
        pg("restore", file)
    with pytest.raises(CommandError, match=r"Cannot write .*: No such file"):
        pg("dump", tmp_path / "no" / "where")
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_is_one_sentence(data_dir, use, capsys):
    data_dir.touch()
    use("pipedai.embedded", data_dir)
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "pg", "start"])
    assert ended.value.code == 1
    assert (
        capsys.readouterr().err.strip()
        == f"CommandError: {data_dir} must be a directory, and no link to one."
    )


@pytest.mark.parametrize("action", ["start", "stop", "status"])
def test_with_a_database_url_there_is_nothing_to_manage(pg, use, action):
    use("django.db.backends.postgresql")
    assert pg(action) == "DATABASE_URL is set, so there is no embedded PostgreSQL to manage."


def test_with_a_database_url_url_prints_it_and_the_rest_does_not_look_done(
    pg, use, settings, tmp_path
):
    use("django.db.backends.postgresql")
    settings.DATABASE_URL = "postgres://somewhere/else"
    assert pg("url") == "postgres://somewhere/else"
    for action in (("dump", tmp_path / "x"), ("restore", tmp_path / "x")):
        with pytest.raises(CommandError, match="DATABASE_URL is set"):
            pg(*action)


def test_help_names_every_action():
    said = Command().create_parser("manage.py", "pg").format_help()
    for action in ("start", "stop", "status", "url", "dump", "restore"):
        assert f"    {action} " in said
