"""`manage.py create_staff` makes a user staff, checks the password, and writes an audit row."""

import io
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.emails import Email
from accounts.models import User
from accounts.services import create_staff
from audit.models import AuditEntry
from pipedai.api.errors import Conflict
from pipedai.events import SYSTEM
from testing.processes.racing import accepted, at_once
from testing.world.users import PASSWORD, UserFactory

EMAIL = Email("ada@example.com")


class Terminal(io.StringIO):
    """Standard input that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def run(db, monkeypatch):
    """Returns a function that runs the command with a password on standard input and returns its output."""

    def run(*arguments, typed=f"{PASSWORD}\n", stdin=io.StringIO):
        monkeypatch.setattr(sys, "stdin", stdin(typed))
        said = StringIO()
        call_command("create_staff", *arguments, stdout=said)
        return said.getvalue()

    return run


def audit_rows():
    return [
        (row.action, row.actor_type, row.target_id, row.metadata)
        for row in AuditEntry.objects.order_by("id")
    ]


def test_the_password_comes_from_standard_input(run):
    said = run(" Ada@Example.com ", "--name", "Ada")
    user = User.objects.get()
    assert (user.email, user.name, user.is_staff) == (EMAIL, "Ada", True)
    assert user.check_password(PASSWORD)
    assert said == f"{EMAIL} is staff now.\n"
    assert audit_rows() == [("staff.created", "system", user.id, {})]


def test_a_generated_password_is_printed_once_and_works(run):
    said = run(EMAIL, "--generate", typed="")
    password = said.rpartition("Password: ")[2].strip()
    assert said.count(password) == 1
    assert User.objects.get().check_password(password)


def test_on_a_terminal_it_is_asked_for_twice(run, monkeypatch):
    answers = {"Password: ": PASSWORD, "Password again: ": PASSWORD}
    monkeypatch.setattr("getpass.getpass", answers.pop)
    run(EMAIL, stdin=Terminal)
    assert answers == {}
    assert User.objects.get().check_password(PASSWORD)


def test_two_passwords_that_differ_are_refused(run, monkeypatch):
    answers = iter([PASSWORD, "another one altogether"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    with pytest.raises(CommandError, match=r"^The two passwords are not the same\.$"):
        run(EMAIL, stdin=Terminal)
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("email", "typed", "sentence"),
    [
        (EMAIL, "short\n", "password: This password is too short"),
        (EMAIL, "", "password: This field may not be blank"),
        (EMAIL, "ada@example.com\n", "password: The password is too similar"),
        ("nobody", f"{PASSWORD}\n", "email: Enter a valid email address"),
    ],
)
def test_what_is_wrong_is_said_and_nobody_is_made(run, email, typed, sentence):
    with pytest.raises(CommandError, match=sentence) as refusal:
        run(email, typed=typed)
    assert refusal.value.returncode == 1
    assert not User.objects.exists()
    assert audit_rows() == []


def test_a_user_who_exists_is_left_alone(run):
    user = UserFactory.create(email=EMAIL)
    with pytest.raises(CommandError, match="already registered"):
        run(EMAIL, typed="another password entirely\n")
    user.refresh_from_db()
    assert not user.is_staff
    assert user.check_password(PASSWORD)
    assert audit_rows() == []


def test_promoting_keeps_the_password_and_is_done_once(run):
    user = UserFactory.create(email=EMAIL)
    assert run("ADA@example.com", "--promote", typed="") == "ADA@example.com is staff now.\n"
    assert run(EMAIL, "--promote", typed="") == f"{EMAIL} is staff already.\n"
    user.refresh_from_db()
    assert user.is_staff
    assert user.check_password(PASSWORD)
    assert audit_rows() == [("staff.created", "system", user.id, {"promoted": True})]


@pytest.mark.parametrize("user", [None, {"is_active": False}])
def test_nobody_and_the_deactivated_cannot_be_promoted(run, user):
    if user is not None:
        UserFactory.create(email=EMAIL, **user)
    with pytest.raises(CommandError, match=rf"^There is no active user {EMAIL}\."):
        run(EMAIL, "--promote")
    assert not User.objects.filter(is_staff=True).exists()


def test_two_at_once_make_one(own_database):
    def create():
        return create_staff(email=EMAIL, password="a good long password", name="", actor=SYSTEM)

    answers = at_once(create, create)
    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(accepted([answer for answer in answers if answer not in refused])) == 1
    assert len(refused) == 1
    assert len(audit_rows()) == 1


def test_its_help_ends_with_examples(capsys):
    with pytest.raises(SystemExit):
        call_command("create_staff", "--help")
    said = capsys.readouterr().out
    assert "examples:\n  manage.py create_staff ada@example.com --name" in said
