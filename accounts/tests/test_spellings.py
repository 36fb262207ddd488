"""One mailbox is one account, however its address is written."""

import pytest

from accounts.models import AccountMail, User
from testing.probes.shapes import invalid
from testing.world.cast import browser, session_cookie
from testing.world.mails import MAIL_SERVER, mails_to, token_to
from testing.world.users import PASSWORD, UserFactory
from workspaces.models import Membership

UNICODE, ASCII = "ada@bücher.example", "ada@xn--bcher-kva.example"
NEW = {"password": PASSWORD, "name": "Ada"}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _mail_server(settings):
    settings.EMAIL_URL = MAIL_SERVER


def post(path, client=None, **body):
    return (client or browser()).post(f"/api/v1/auth/{path}", body)


def test_an_address_has_one_form_wherever_it_is_written():
    assert post("register", email=ASCII, **NEW).json()["user"]["email"] == UNICODE
    again = post("register", email=UNICODE, **NEW)
    assert (again.status_code, again.json()["code"]) == (409, "address_unproved")
    logins = [post("login", email=each, password=PASSWORD) for each in (UNICODE, ASCII)]
    assert [login.status_code for login in logins] == [200, 200]
    assert mails_to(UNICODE) == ["verify", "registration"]


@pytest.mark.parametrize(
    "email",
    [
        '"ada"@example.com',
        '"\\ada"@example.com',
        '"ada bob"@example.com',
        "ada@example.com.",
        "ada@xn--a.example",
        "=?utf-8?q?ada?=@example.com",
        "ａda@example.com",
        "ada@ｅxample.com",
        "ada@bu\u0308cher.example",
        "ada(home)@example.com",
    ],
)
def test_another_spelling_is_a_field_error_wherever_an_address_is_new(cast, email):
    said = post("register", email=email, **NEW)
    assert said.status_code == 400
    assert said.json() == invalid({"email": ["Enter a valid email address."]})
    owner = cast.client(cast.owner)
    url = f"/api/v1/environments/{cast.environment.id}"
    body = {"name": "Mail", "kind": "email", "emails": [email]}
    answers = [
        post("change-email", owner, newEmail=email, currentPassword=PASSWORD),
        owner.post(f"{url}/invitations", {"email": email, "role": "viewer"}),
        owner.post(f"{url}/channels", body),
    ]
    assert [answer.status_code for answer in answers] == [400] * 3


def test_an_invitation_to_one_form_is_for_the_account_that_registered_with_the_other(cast):
    User.objects.filter(id=cast.owner.id).update(email_verified_at="2026-01-01T00:00:00Z")
    ada = UserFactory.create(email=UNICODE, email_verified_at="2026-01-01T00:00:00Z")
    url = f"/api/v1/environments/{cast.environment.id}/invitations"
    body = {"email": ASCII, "role": "viewer"}
    assert cast.client(cast.owner).post(url, body).json()["email"] == UNICODE
    accepted = cast.client(ada).post(
        "/api/v1/invitations/accept", {"token": token_to(UNICODE, "invitation")}
    )
    assert accepted.status_code == 200
    assert Membership.objects.filter(user=ada).exists()
    assert cast.client(cast.owner).post(url, body).json()["code"] == "already_member"


def test_a_user_is_found_by_both_forms():
    ada = UserFactory.create(email=UNICODE)
    finder = browser(session_cookie(UserFactory.create()))
    for each in (ASCII, UNICODE):
        found = finder.get("/api/v1/users/lookup", {"email": each}).json()
        assert found["user"]["id"] == str(ada.id)
        assert User.objects.get_by_natural_key(each) == ada


def test_a_mailbox_gets_five_mails_an_hour_however_its_address_is_written(settings):
    settings.THROTTLES_ENABLED = True
    for address in [UNICODE, ASCII] * 4:
        assert post("forgot-password", email=address).status_code == 202
    assert AccountMail.objects.count() == 5
