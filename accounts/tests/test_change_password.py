"""POST /auth/change-password"""

import pytest

from accounts.models import Session, User
from pipedai.api.authentication import AUTH_COOKIE
from testing.probes.audited import audited
from testing.probes.shapes import invalid
from testing.probes.tables import columns_with
from testing.world.cast import browser, session_cookie
from testing.world.users import PASSWORD, UserFactory

URL, LOGIN, ME = (f"/api/v1/auth/{name}" for name in ("change-password", "login", "me"))
NEW = "a planted new password"

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com")


@pytest.fixture
def client(ada):
    return browser(session_cookie(ada))


def change(client, **body):
    return client.post(URL, {"currentPassword": PASSWORD, "newPassword": NEW, **body})


def log_in(password):
    return browser().post(LOGIN, {"email": "ada@example.com", "password": password}).status_code


def test_the_new_password_counts_and_the_old_one_no_more(client):
    response = change(client)
    assert (response.status_code, response.content) == (204, b"")
    assert (log_in(NEW), log_in(PASSWORD)) == (200, 401)


def test_other_sessions_die_and_this_one_gets_a_new_cookie(ada, client):
    elsewhere, old = browser(session_cookie(ada)), client.cookies[AUTH_COOKIE].value
    cookie = change(client).cookies[AUTH_COOKIE]
    assert cookie["httponly"]
    assert cookie["path"] == "/"
    assert cookie.value != old
    assert client.get(ME).status_code == 200
    assert elsewhere.get(ME).status_code == 401
    assert browser(old).get(ME).status_code == 401
    assert Session.objects.filter(user=ada, revoked_at__isnull=True).count() == 1


def test_the_sessions_of_others_live_on(client):
    other = browser(session_cookie(UserFactory.create()))
    change(client)
    assert other.get(ME).status_code == 200


def test_it_is_audited_without_either_password(ada, client):
    with audited() as rows:
        change(client)
    metadata = rows.the_only(
        "user.password-changed", by=("user", ada.id), on=("user", ada.id), within=None
    )
    assert metadata == {}
    assert columns_with(NEW, PASSWORD) == []


def test_a_wrong_current_password_is_a_field_error(ada, client):
    with audited() as rows:
        response = change(client, currentPassword="not it at all")
    assert response.status_code == 400
    assert response.json() == invalid({"currentPassword": ["Not your password."]})
    assert rows == []
    assert client.get(ME).status_code == 200
    assert log_in(PASSWORD) == 200


@pytest.mark.parametrize(
    "weak", ["Tr0ub4dor", "password123", "1234567890123", "ada@example.com", "x" * 1025]
)
def test_a_weak_new_password_is_a_field_error(client, weak):
    response = change(client, newPassword=weak)
    assert response.status_code == 400
    assert list(response.json()["details"]["fieldErrors"]) == ["newPassword"]
    assert weak not in response.content.decode()
    assert log_in(PASSWORD) == 200


def test_the_wrong_current_password_is_told_before_the_weak_new_one(client):
    response = change(client, currentPassword="not it at all", newPassword="short")
    assert list(response.json()["details"]["fieldErrors"]) == ["currentPassword"]


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        (
            {},
            {
                "currentPassword": ["This field is required."],
                "newPassword": ["This field is required."],
            },
        ),
        (
            {"currentPassword": None, "newPassword": NEW},
            {"currentPassword": ["This field may not be null."]},
        ),
        (
            {"currentPassword": 5, "newPassword": NEW},
            {"currentPassword": ["Must be a string."]},
        ),
        (
            {"currentPassword": PASSWORD, "newPassword": NEW, "email": "x"},
            {"email": ["Unknown field."]},
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_field_is_named(client, body, errors):
    response = client.post(URL, body)
    assert (response.status_code, response.json()) == (400, invalid(errors))


def test_spaces_at_the_ends_are_part_of_a_password(client):
    change(client, newPassword=f"  {NEW} ")
    assert (log_in(NEW), log_in(f"  {NEW} ")) == (401, 200)


def test_a_deactivated_user_has_no_password_to_change(ada, client):
    User.objects.update(is_active=False)
    assert change(client).status_code == 401
    ada.refresh_from_db()
    assert ada.check_password(PASSWORD)
