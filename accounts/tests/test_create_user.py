"""`manage.py create_user` makes a user by a password or by a link, also where nobody may register."""

import io
import sys

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AccountMail, User
from audit.models import AuditEntry
from testing.world.cast import browser
from testing.world.mails import MAIL_SERVER
from testing.world.users import PASSWORD, UserFactory

EMAIL = "ada@example.com"

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(settings, monkeypatch, capsys):
    """Returns a function that runs the command with a password on standard input and returns its output."""
    settings.REGISTRATION = "closed"

    def run(*arguments, typed=f"{PASSWORD}\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        call_command("create_user", *arguments)
        return capsys.readouterr().out

    return run


def log_in(password):
    body = {"email": EMAIL, "password": password}
    return browser().post("/api/v1/auth/login", body).status_code


def test_the_password_comes_from_standard_input(run):
    assert run(" Ada@Example.com ", "--name", "Ada") == f"{EMAIL} has an account now.\n"
    user = User.objects.get()
    assert (user.name, user.is_staff, user.has_proved_email) == ("Ada", False, True)
    assert log_in(PASSWORD) == 200
    row = AuditEntry.objects.get(action="user.registered")
    assert (row.actor_type, row.target_id) == ("system", user.id)


@pytest.mark.parametrize("mail_server", ["", MAIL_SERVER])
def test_its_owner_sets_the_password_by_the_link_once(run, settings, mail_server):
    settings.PRODUCTION, settings.EMAIL_URL = True, mail_server
    settings.PUBLIC_URL = "https://api.example.com"
    link = run(EMAIL, "--link", typed="").split()[-1]
    page, _, token = link.partition("#token=")
    assert page == "https://api.example.com/console/account/reset"
    body = {"token": token, "newPassword": PASSWORD}
    reset = "/api/v1/auth/reset-password"
    assert browser().post(reset, body).status_code == 204
    assert browser().post(reset, body).json()["code"] == "link_unusable"
    assert log_in(PASSWORD) == 200
    # Nobody gets a mail.
    assert AccountMail.objects.get().status == "handed"


@pytest.mark.parametrize("how", [[], ["--link"]])
def test_a_user_who_exists_is_left_alone(run, how):
    user = UserFactory.create(email=EMAIL, name="Before")
    with pytest.raises(CommandError, match=r"already registered\.$"):
        run(EMAIL, *how)
    user.refresh_from_db()
    assert user.name == "Before"
    assert not AccountMail.objects.exists()
    assert not AuditEntry.objects.exists()
