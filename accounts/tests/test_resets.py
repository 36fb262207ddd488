"""POST /auth/forgot-password and /auth/reset-password."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import AccountMail
from testing.probes.shapes import invalid
from testing.world.cast import browser, session_cookie
from testing.world.mails import MAIL_SERVER, issue_token, mails_to, prove, token_to
from testing.world.users import PASSWORD, UserFactory

AUTH = "/api/v1/auth"
FRESH = "a fresh horse battery"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _mail_server(settings):
    settings.EMAIL_URL = MAIL_SERVER


@pytest.fixture
def ada():
    user = UserFactory.create(email="ada@example.com")
    prove(user)
    return user


def forget(email):
    return browser().post(f"{AUTH}/forgot-password", {"email": email})


def reset(token, password=FRESH):
    return browser().post(f"{AUTH}/reset-password", {"token": token, "newPassword": password})


def log_in_with(password):
    body = {"email": "ada@example.com", "password": password}
    return browser().post(f"{AUTH}/login", body).status_code


def test_the_mail_gives_a_new_password_once_and_ends_all_sessions(ada):
    old = browser(session_cookie(ada))
    assert forget(" ADA@example.com").status_code == 202
    token = token_to("ada@example.com", "reset")
    assert reset(token).status_code == 204
    assert (log_in_with(FRESH), log_in_with(PASSWORD)) == (200, 401)
    assert old.get(f"{AUTH}/me").status_code == 401
    assert reset(token, "another fresh horse").json()["code"] == "link_unusable"


def test_a_weak_password_does_not_use_the_token_up(ada):
    token = issue_token("reset", ada.email, ada)
    assert reset(token, "password123").json() == invalid(
        {"newPassword": ["This password is too common."]}
    )
    assert reset(token).status_code == 204


def test_a_reset_makes_the_other_links_to_a_new_password_void(ada):
    first, second = (issue_token("reset", ada.email, ada) for _ in range(2))
    assert reset(second).status_code == 204
    assert reset(first).json()["code"] == "link_unusable"


def test_a_deactivated_user_gets_no_new_password(ada):
    token = issue_token("reset", ada.email, ada)
    ada.is_active = False
    ada.save()
    assert reset(token).json()["code"] == "link_unusable"


def test_whoever_asks_gets_the_same_answer_by_the_same_statements(ada):
    gone = UserFactory.create(email="gone@example.com", is_active=False)
    prove(gone)
    UserFactory.create(email="unproved@example.com")
    seen = []
    for email in ("ada@example.com", "nobody@example.com", gone.email, "unproved@example.com"):
        with CaptureQueriesContext(connection) as queries:
            answer = forget(email)
        seen.append(
            (answer.status_code, answer.content, [each["sql"].split()[0] for each in queries])
        )
    assert seen == [seen[0]] * 4
    assert seen[0][:2] == (202, b"")
    assert AccountMail.objects.filter(user__isnull=True, purpose="reset").count() == 2
    assert mails_to("unproved@example.com") == ["registration"]


def test_the_limit_of_mails_shows_nobody_who_has_an_account(ada):
    for email in ("ada@example.com", "nobody@example.com"):
        assert [forget(email).status_code for _ in range(8)] == [202] * 8
        assert len(mails_to(email)) == 5


def test_an_unproved_account_is_never_reset(settings):
    user = UserFactory.create(email="ada@example.com")
    settings.EMAIL_URL = ""
    forget(user.email)
    token = token_to(user.email, "reset")
    settings.EMAIL_URL = MAIL_SERVER
    assert reset(token).json()["code"] == "link_unusable"
    settings.EMAIL_URL = ""
    assert reset(token).status_code == 204
