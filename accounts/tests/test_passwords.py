"""Only a few passwords are hashed at a time, because Argon2 needs much memory.

test_password_turns.py has the tests of requests that wait for it.
"""

import threading

import pytest
from django.contrib.auth.hashers import identify_hasher

from accounts import passwords
from testing.world.cast import browser, session_cookie
from testing.world.users import PASSWORD, UserFactory

pytestmark = pytest.mark.django_db

CALLS = {
    "login": {"email": "ada@example.com", "password": PASSWORD},
    "login of nobody": {"email": "nobody@example.com", "password": PASSWORD},
    "register": {"email": "bob@example.com", "password": PASSWORD},
    "change-password": {"currentPassword": PASSWORD, "newPassword": "another long one"},
}


@pytest.fixture
def call():
    client = browser(session_cookie(UserFactory.create(email="ada@example.com")))
    return lambda name: client.post(f"/api/v1/auth/{name.split()[0]}", CALLS[name])


@pytest.fixture
def turns(monkeypatch):
    """Allows one hash at a time, and hardly any wait for it. Returns the semaphore."""
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(passwords.PERMITS, "free", turns)
    monkeypatch.setattr(passwords.PERMITS, "_patience", 0.01)
    return turns


@pytest.mark.parametrize("name", CALLS)
def test_where_no_lane_waits_it_is_503_beyond_the_bound(call, turns, name):
    turns.acquire()
    response = call(name)
    assert response.status_code == 503
    assert response.json() == {
        "error": "Too many logins at this moment: try again in a second.",
        "code": "overloaded",
    }
    assert response["Retry-After"] == "1"


def test_where_no_lane_waits_a_thread_does(turns, monkeypatch):
    monkeypatch.setattr(passwords.PERMITS, "_patience", 60)
    turns.acquire()
    waiting = threading.Thread(target=passwords.hash_password, args=[PASSWORD])
    waiting.start()
    turns.release()
    waiting.join(60)
    assert not waiting.is_alive()


@pytest.mark.parametrize("name", CALLS)
def test_a_turn_is_given_back_whatever_comes_of_it(call, turns, name):
    for _ in range(3):
        assert call(name).status_code != 503
    assert turns.acquire(blocking=False)


def test_a_turn_is_given_back_by_a_hash_that_fails(turns, monkeypatch):
    monkeypatch.setattr(passwords, "make_password", None)
    with pytest.raises(TypeError):
        passwords.hash_password(PASSWORD)
    assert turns.acquire(blocking=False)


def test_as_many_hash_as_the_setting_says(settings):
    assert vars(passwords.PERMITS.free)["_initial_value"] == settings.ARGON2_CONCURRENCY


def test_the_hash_is_argon2id_in_46_mib():
    encoded = passwords.hash_password(PASSWORD)
    assert isinstance(identify_hasher(encoded), passwords.PasswordHasher)
    assert encoded.startswith("argon2$argon2id$v=19$m=47104,t=1,p=1$")
