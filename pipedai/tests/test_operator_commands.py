"""Operators' commands explain in a sentence that the database is away or has not this release's schema."""

import os

import pytest
from django.core.management import CommandError, call_command, get_commands
from django.db import ProgrammingError, connection

from manage import _UNLISTED, Manage
from pipedai.management.operator_command import OperatorCommand
from testing.processes import warm_start

COMMANDS = [
    ("check_keys",),
    ("explain", "01a20e61-ca1d-70a4-93ed-0e69c8149037"),
    ("rotate_keys", "--master"),
    ("rotate_keys", "--data"),
    ("rotate_keys", "--data", "--dry-run"),
    ("prune", "sessions", "--days", "40"),
    ("create_staff", "ada@example.com", "--generate"),
    ("create_staff", "ada@example.com", "--promote"),
    ("create_user", "ada@example.com", "--link"),
    ("seed_demo",),
]


class Calling(OperatorCommand):
    """A command that runs one statement on a given database."""

    examples = ""
    requires_system_checks = ()

    def __init__(self, database, statement="SELECT 1"):
        super().__init__()
        self.database, self.statement = database, statement

    def handle(self, **_options):
        with self.database.cursor() as cursor:
            cursor.execute(self.statement)


@pytest.mark.usefixtures("own_database")
def test_without_migrations_each_says_what_to_call():
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = nowhere")
    try:
        for command in COMMANDS:
            with pytest.raises(CommandError, match=r"not this release's: call `manage.py release`"):
                call_command(*command)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"HOST": "127.0.0.1", "PORT": "1"}, "refused"),
        ({"NAME": "nowhere"}, "nowhere"),
        ({"PASSWORD": "hunter2"}, "password"),
    ],
)
@pytest.mark.django_db
def test_a_database_that_is_not_there_is_one_sentence(changed, said, monkeypatch):
    database = connection.copy()
    params = {**connection.get_connection_params(), "prepare_threshold": None}
    names = {"HOST": "host", "PORT": "port", "NAME": "dbname", "PASSWORD": "password"}
    params |= {names[name]: value for name, value in changed.items()}
    monkeypatch.setattr(database, "get_connection_params", lambda: params)
    with pytest.raises(CommandError) as caught:
        call_command(Calling(database))
    sentence = str(caught.value)
    assert sentence.startswith("The database does not answer: ")
    assert said in sentence
    assert "hunter2" not in sentence
    assert "\n" not in sentence


@pytest.mark.usefixtures("own_database")
@pytest.mark.parametrize("statement", ["SELECT FROM no_such_table", "SELEC 1"])
def test_an_error_of_the_commands_own_is_no_sentence(statement):
    with pytest.raises(ProgrammingError):
        call_command(Calling(connection, statement))


def test_on_the_command_line_it_is_all_that_is_said():
    nowhere = {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/nowhere"}
    answer = warm_start.run(["manage.py", "check_keys"], {**os.environ, **nowhere})
    last = answer.stderr.splitlines()[-1]
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert last.startswith("CommandError: The database does not answer: ")


def test_the_help_lists_only_commands_that_make_sense_here():
    listed = set(Manage(["manage.py"]).main_help_text().split())
    assert set(_UNLISTED) <= set(get_commands())
    assert not set(_UNLISTED) & listed
    assert {"create_user", "release", "migrate"} <= listed
    assert "[auth]" not in listed


def test_createsuperuser_names_the_command_to_call():
    with pytest.raises(
        CommandError, match=r"^There are no superusers here: `manage.py create_staff EMAIL`"
    ):
        call_command("createsuperuser")
