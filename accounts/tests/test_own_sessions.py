"""GET and DELETE /auth/sessions, POST /auth/sessions/revoke-others"""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from accounts.models import Session
from testing.probes.shapes import A_TIME, AN_ID
from testing.world.cast import browser, session_cookie
from testing.world.users import PASSWORD, UserFactory

URL = "/api/v1/auth/sessions"
ME = "/api/v1/auth/me"

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com")


@pytest.fixture
def client(ada):
    client = browser()
    body = {"email": ada.email, "password": PASSWORD}
    agent = "Browser/1\x1b[31m" + "x" * 300
    client.post("/api/v1/auth/login", body, REMOTE_ADDR="198.51.100.7", HTTP_USER_AGENT=agent)
    return client


def test_a_session_shows_where_it_was_opened(client):
    assert client.get(URL).json() == {
        "items": [
            {
                "id": AN_ID,
                "began": "password",
                "createdAt": A_TIME,
                "lastUsedAt": A_TIME,
                "address": "198.51.100.7",
                "userAgent": ("Browser/1 [31m" + "x" * 300)[:255],
                "current": True,
            }
        ],
        "nextCursor": None,
    }


def test_only_ones_own_live_sessions_are_listed(client, ada):
    other = browser(session_cookie(ada))
    session_cookie(UserFactory.create())
    Session.objects.create(user=ada, expires_at=Now())
    Session.objects.create(user=ada, expires_at=Now(), revoked_at=Now())
    items = other.get(URL).json()["items"]
    assert [item["current"] for item in items] == [True, False]


def test_a_session_of_admin_is_none_of_them_and_ends_with_all_others(client, ada):
    admin = Session.objects.create(
        user=ada, expires_at=Now() + timedelta(hours=1), key_digest=b"of its key", data={}
    )
    assert [item["current"] for item in client.get(URL).json()["items"]] == [True]
    assert client.delete(f"{URL}/{admin.id}").status_code == 404
    client.post(f"{URL}/revoke-others")
    admin.refresh_from_db()
    assert admin.revoked_at is not None
    assert admin.data == {}


def test_a_session_ends_at_once(client, ada):
    other = browser(session_cookie(ada))
    (other_id,) = (each["id"] for each in client.get(URL).json()["items"] if not each["current"])
    assert client.delete(f"{URL}/{other_id}").status_code == 204
    assert other.get(ME).status_code == 401
    assert client.delete(f"{URL}/{other_id}").status_code == 404
    assert client.get(ME).status_code == 200


def test_ending_the_present_session_takes_the_cookie_too(client):
    (own,) = client.get(URL).json()["items"]
    answer = client.delete(f"{URL}/{own['id']}")
    assert answer.cookies["auth_token"].value == ""
    assert client.get(ME).status_code == 401


def test_all_others_end(client, ada):
    others = [browser(session_cookie(ada)) for _ in range(2)]
    assert client.post(f"{URL}/revoke-others").status_code == 204
    assert [each.get(ME).status_code for each in others] == [401, 401]
    assert client.get(ME).status_code == 200


def test_the_last_use_is_noted_every_ten_seconds(client, ada):
    Session.objects.update(last_used_at=None)
    client.get(ME)
    noted = Session.objects.get().last_used_at
    assert noted is not None
    client.get(ME)
    assert Session.objects.get().last_used_at == noted
