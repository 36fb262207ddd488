"""POST /auth/login"""

from datetime import timedelta

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher

from accounts.models import Session
from testing.probes.shapes import A_TIME, invalid
from testing.world.cast import browser, session_cookie
from testing.world.users import PASSWORD, UserFactory

URL = "/api/v1/auth/login"
ME = "/api/v1/auth/me"

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com", name="Ada")


def log_in(client=None, **changes):
    body = {"email": "ada@example.com", "password": PASSWORD, **changes}
    return (client or browser()).post(URL, body)


def test_the_user_is_answered_and_has_a_session(ada):
    client = browser()
    response = log_in(client)
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
    assert client.get(ME).json() == response.json()


@pytest.mark.parametrize("spelling", ["ADA@example.COM", "  ada@example.com "])
def test_the_spelling_of_the_address_does_not_matter(ada, spelling):
    assert log_in(email=spelling).status_code == 200


def test_a_session_lasts_seven_days(ada):
    log_in()
    session = Session.objects.get()
    assert session.user_id == ada.id
    lifetime = session.expires_at - session.created_at
    assert abs(lifetime - timedelta(days=7)) < timedelta(seconds=60)


def test_a_wrong_password_an_unknown_address_and_a_deactivated_user_look_the_same(ada):
    UserFactory.create(email="gone@example.com", is_active=False)
    responses = [
        log_in(password="wrong password"),
        log_in(email="nobody@example.com"),
        log_in(email="gone@example.com"),
    ]
    assert [response.status_code for response in responses] == [401, 401, 401]
    assert {response.content for response in responses} == {
        b'{"error":"The e-mail address or the password is wrong.","code":"wrong_credentials"}'
    }
    assert len({str(response.headers) for response in responses}) == 1
    assert not Session.objects.exists()


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com"])
def test_one_hash_is_computed_whether_or_not_the_user_exists(ada, monkeypatch, email):
    hashed = []

    def count(name):
        original = getattr(Argon2PasswordHasher, name)

        def counting(self, *args):
            hashed.append(name)
            return original(self, *args)

        monkeypatch.setattr(Argon2PasswordHasher, name, counting)

    count("encode")
    count("verify")
    assert log_in(email=email, password="wrong password").status_code == 401
    assert len(hashed) == 1


def test_the_session_presented_with_a_login_ends(ada):
    old = session_cookie(ada)
    assert log_in(browser(old)).status_code == 200
    assert browser(old).get(ME).status_code == 401


def test_other_sessions_live_on(ada):
    other = session_cookie(ada)
    log_in(browser(session_cookie(ada)))
    assert browser(other).get(ME).status_code == 200


def test_a_failed_login_leaves_the_presented_session_alone(ada):
    old = session_cookie(ada)
    assert log_in(browser(old), password="wrong password").status_code == 401
    assert browser(old).get(ME).status_code == 200


def test_one_logs_in_while_an_older_session_has_ended(ada):
    old = session_cookie(ada)
    Session.objects.update(revoked_at="2026-01-01T00:00:00Z")
    for cookie in (old, "no.jwt.atall"):
        assert log_in(browser(cookie)).status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("email", None, "This field may not be null."),
        ("email", "", "This field may not be blank."),
        ("email", 5, "Must be a string."),
        ("email", "a" * 255, "Ensure this field has no more than 254 characters."),
        ("password", None, "This field may not be null."),
        ("password", ["x"], "Must be a string."),
        ("password", "p" * 1025, "Ensure this field has no more than 1024 characters."),
        ("remember", True, "Unknown field."),
    ],
)
def test_a_bad_field_is_named(ada, field, value, message):
    response = log_in(**{field: value})
    assert response.status_code == 400
    assert response.json() == invalid({field: [message]})


def test_both_fields_are_required():
    response = browser().post(URL, {})
    required = ["This field is required."]
    assert response.json() == invalid({"email": required, "password": required})
