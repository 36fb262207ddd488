"""One mailbox is one account, however its address is written (SPEC §15)."""

import pytest

from accounts.mail.outbox import queue_mail
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


@pytest.mark.parametrize("stored", ['"ada"@example.com', UNICODE, ASCII])
def test_who_registered_with_any_spelling_still_logs_in_with_it(stored):
    UserFactory.create(email=stored)
    assert post("login", email=stored, password=PASSWORD).status_code == 200


def test_an_account_from_before_is_found_by_both_forms_and_keeps_its_address():
    ada = UserFactory.create(email=ASCII)
    finder = browser(session_cookie(UserFactory.create()))
    for each in (ASCII, UNICODE):
        assert post("login", email=each, password=PASSWORD).json()["user"]["email"] == ASCII
        found = finder.get("/api/v1/users/lookup", {"email": each}).json()
        assert found["user"]["id"] == str(ada.id)
        assert User.objects.get_by_natural_key(each) == ada
    taken = post("register", email=UNICODE, **NEW)
    assert (taken.status_code, taken.json()["code"]) == (409, "address_unproved")
    token = token_to(ASCII, "registration")
    new = post("register", email=UNICODE, registrationToken=token, **NEW)
    assert (new.status_code, new.json()["user"]["email"]) == (201, UNICODE)
    ada.refresh_from_db()
    assert not ada.is_active


def test_two_accounts_from_before_with_one_mailbox_both_log_in():
    users = [UserFactory.create(email=each) for each in (ASCII, UNICODE)]
    answers = [post("login", email=user.email, password=PASSWORD).json() for user in users]
    assert [each["user"]["id"] for each in answers] == [str(user.id) for user in users]


def test_an_invitation_to_one_form_is_for_the_account_with_the_other(cast):
    User.objects.filter(id=cast.owner.id).update(email_verified_at="2026-01-01T00:00:00Z")
    ada = UserFactory.create(email=ASCII, email_verified_at="2026-01-01T00:00:00Z")
    url = f"/api/v1/environments/{cast.environment.id}/invitations"
    body = {"email": ASCII, "role": "viewer"}
    assert cast.client(cast.owner).post(url, body).json()["email"] == UNICODE
    accepted = cast.client(ada).post(
        "/api/v1/invitations/accept", {"token": token_to(UNICODE, "invitation")}
    )
    assert accepted.status_code == 200
    assert Membership.objects.filter(user=ada).exists()
    assert cast.client(cast.owner).post(url, body).json()["code"] == "already_member"


def test_a_mailbox_gets_five_mails_an_hour_however_its_address_is_written(settings):
    settings.THROTTLES_ENABLED = True
    spelled = ["ada@example.com", '"ada"@example.com', '"\\ada"@example.com', '"a\\da"@example.com']
    for address in spelled * 2:
        queue_mail(AccountMail.Purpose.VERIFY, address=address, user_id=None)
    for address in [UNICODE, ASCII] * 4:
        queue_mail(AccountMail.Purpose.VERIFY, address=address, user_id=None)
    assert AccountMail.objects.count() == 10
