"""The screens for signing in and out, registering, and asking for a new password."""

import re

import pytest

from accounts.models import AccountMail, User
from console.tests.visits import text_of, visitor
from pipedai.server.lanes import may_hash
from pipedai.server.tests.asgi_exchange import http_scope
from testing.world.mails import MAIL_SERVER
from testing.world.users import PASSWORD, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com")


def test_signing_in_opens_the_page_that_was_asked_for(ada):
    client = visitor()
    form = {"email": ada.email, "password": PASSWORD, "next": "/console/environments"}
    wrong = client.post("/console/sign-in", {**form, "password": "a wrong password"})
    assert wrong.status_code == 401
    assert 'value="ada@example.com"' in wrong.content.decode()
    assert 'value="/console/environments"' in wrong.content.decode()
    assert "auth_token" not in client.cookies
    right = client.post("/console/sign-in", form)
    assert (right.status_code, right["Location"]) == (303, "/console/environments")
    assert client.get("/console/account").status_code == 200


def test_signing_out_ends_the_session(ada):
    client = visitor(ada)
    cookie = client.cookies["auth_token"].value
    page = client.post("/console/sign-out")
    assert "You are signed out" in text_of(page)
    assert client.cookies["auth_token"].value == ""
    client.cookies["auth_token"] = cookie
    assert client.get("/console/environments").status_code == 303


def test_registering_signs_in_and_says_what_is_wrong_at_its_field(ada):
    client = visitor()
    form = {"email": "grace@example.com", "name": "Grace", "password": "short"}
    wrong = client.post("/console/register", form)
    assert wrong.status_code == 400
    assert 'id="field-password-error"' in wrong.content.decode()
    taken = client.post("/console/register", {**form, "email": ada.email, "password": PASSWORD})
    assert taken.status_code == 409
    made = client.post("/console/register", {**form, "password": PASSWORD})
    assert (made.status_code, made["Location"]) == (303, "/console/")
    assert User.objects.get(email="grace@example.com").name == "Grace"
    assert client.get("/console/account").status_code == 200


def test_a_forgotten_password_is_asked_for_by_a_mail_whoever_asks(ada, settings):
    settings.EMAIL_URL = MAIL_SERVER
    for address in (ada.email, "nobody@example.com"):
        page = visitor().post("/console/forgot-password", {"email": address})
        assert "a mail is on its way" in text_of(page)
    assert AccountMail.objects.filter(purpose="reset").count() == 1


@pytest.mark.parametrize(
    "path",
    [
        "sign-in",
        "register",
        "account/password",
        "account/email",
        "account/reset",
        "account/register",
        "account/invitation",
    ],
)
def test_a_form_with_a_password_waits_for_its_turn_to_hash_without_a_thread(path):
    assert may_hash(http_scope("POST", f"/console/{path}"))


@pytest.mark.parametrize(
    ("path", "to"),
    [("/login", "/console/sign-in"), ("/account", "/console/account"), ("/console", "/console/")],
)
def test_the_paths_that_people_guess_lead_somewhere(path, to, client):
    assert client.get(path)["Location"] == to


def test_an_account_shows_and_changes_itself(ada, settings):
    settings.EMAIL_URL = MAIL_SERVER
    client, other = visitor(ada), visitor(ada)
    page = text_of(client.get("/console/account"))
    assert "ada@example.com Not confirmed" in page
    confirm = client.post("/console/account/confirm", follow=True)
    assert "on its way to ada@example.com" in text_of(confirm)
    asked = {"newEmail": "ada@example.org", "currentPassword": PASSWORD}
    assert "new e-mail address" in text_of(
        client.post("/console/account/email", asked, follow=True)
    )
    wrong = {"currentPassword": "wrong password", "newPassword": "a fresh horse battery"}
    assert client.post("/console/account/password", wrong).status_code == 400
    right = {**wrong, "currentPassword": PASSWORD}
    assert client.post("/console/account/password", right).status_code == 303
    assert other.get("/console/account").status_code == 303
    assert "This one" in text_of(client.get("/console/account"))


def test_sessions_are_ended_one_by_one_and_all_others_at_once(ada):
    client, second, third = visitor(ada), visitor(ada), visitor(ada)
    page = client.get("/console/account").content.decode()
    named = re.findall(r'name="session" value="([^"]+)"', page)
    assert len(named) == 2
    client.post("/console/account/sessions", {"session": named[0]})
    assert sum(each.get("/console/account").status_code == 200 for each in (second, third)) == 1
    client.post("/console/account/sessions")
    assert [each.get("/console/account").status_code for each in (client, second, third)] == [
        200,
        303,
        303,
    ]
    assert client.post("/console/account/sessions", {"session": "../x"}).status_code == 404
