"""GET /auth/me, and the conditions under which a session is accepted."""

from datetime import UTC, datetime

import pytest
from django.db.models import F

from accounts.models import Session
from accounts.sessions import new_session_token
from testing.probes.shapes import A_TIME
from testing.world.cast import browser, session_cookie
from testing.world.users import UserFactory

URL = "/api/v1/auth/me"

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com", name="Ada")


def test_it_answers_the_user_of_the_session(ada):
    response = browser(session_cookie(ada)).get(URL)
    assert response.status_code == 200
    assert response.json() == {
        "user": {
            "id": str(ada.id),
            "email": "ada@example.com",
            "emailVerified": False,
            "name": "Ada",
            "timezone": None,
            "hasPassword": True,
            "singleSignOn": None,
            "createdAt": A_TIME,
        }
    }


def test_the_time_is_the_stored_one_in_utc_with_milliseconds(ada):
    ada.__class__.objects.update(created_at=datetime(2026, 11, 24, 15, 29, 30, 123987, tzinfo=UTC))
    response = browser(session_cookie(ada)).get(URL)
    assert response.json()["user"]["createdAt"] == "2026-11-24T15:29:30.123Z"


@pytest.mark.parametrize("cookie", [None, ""])
def test_without_a_session_it_is_401(cookie):
    response = browser(cookie).get(URL)
    assert response.status_code == 401
    assert response.json() == {"error": "Authentication is required.", "code": "unauthenticated"}
    assert response["WWW-Authenticate"] == 'Bearer realm="pipedai"'


def _expire(session):
    session.update(expires_at=F("created_at"))


def _revoke(session):
    session.update(revoked_at=F("created_at"))


def _delete(session):
    session.delete()


def _deactivate(session):
    user = session.get().user
    user.is_active = False
    user.save()


def _hand_to_another(session):
    session.update(user=UserFactory.create())


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (_expire, "token_expired"),
        (_revoke, "invalid_token"),
        (_delete, "invalid_token"),
        (_deactivate, "invalid_token"),
        (_hand_to_another, "invalid_token"),
    ],
)
def test_an_ended_session_is_401(ada, end, code):
    client = browser(session_cookie(ada))
    end(Session.objects.all())
    response = client.get(URL)
    assert response.status_code == 401
    assert response.json() == {"error": "The session has ended. Log in again.", "code": code}
    assert response["WWW-Authenticate"] == 'Bearer realm="pipedai"'


def test_the_session_of_one_user_is_not_anothers(ada):
    session_cookie(ada)
    cookie = new_session_token(UserFactory.create().id, Session.objects.get().id)
    assert browser(cookie).get(URL).status_code == 401
