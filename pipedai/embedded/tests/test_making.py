"""Commands of manage.py make no database by accident."""

import os
import subprocess
import sys

import pytest

from pipedai.embedded.tests.processes import PROJECT

pytestmark = pytest.mark.long


def manage(data_dir, *arguments):
    """Run manage.py on a data directory, and return its exit code, its output and its errors."""
    return python(data_dir, "manage.py", *arguments)


def python(data_dir, *arguments):
    environment = {**os.environ, "PIPEDAI_DATA_DIR": str(data_dir), "DATABASE_URL": ""}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


# They ask for a database in different ways: by Django's own command, as a command for operators, by psql, by the API,
# by the command that makes one unless it only looks, and as processes that wait for a database that is away.
@pytest.mark.parametrize(
    "command",
    [
        "manage.py showmigrations",
        "manage.py create_user ada@example.com --link",
        "manage.py dbshell",
        "manage.py pg dump x",
        "manage.py migrate --check",
        "manage.py runscheduler",
        "-m pipedai.server",
    ],
)
def test_without_a_database_a_command_refuses_in_one_sentence(data_dir, command):
    code, out, err = python(data_dir, *command.split())
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"There is no database in {data_dir}: set PIPEDAI_DATA_DIR" in err
    assert "bin/run" in err
    assert not data_dir.exists()


def test_makemigrations_needs_none(data_dir):
    code, out, err = manage(data_dir, "makemigrations", "--check")
    assert (code, out, err) == (0, "No changes detected\n", "")
    assert not data_dir.exists()


def test_migrate_makes_one_and_later_commands_start_it(data_dir, server):
    assert manage(data_dir, "migrate", "contenttypes", "-v0") == (0, "", "")
    pid = server.status().pid
    code, out, _ = manage(data_dir, "showmigrations", "contenttypes")
    assert (code, out.count("[X]"), server.status().pid) == (0, 2, pid)
    server.stop()
    assert manage(data_dir, "showmigrations", "contenttypes")[0] == 0
    assert server.status().running
