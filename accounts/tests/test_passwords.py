"""Argon2, a few at a time: beyond the bound the answer is 503 at once (SPEC §3)."""

import threading

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher, identify_hasher

from accounts import passwords
from accounts.factories import PASSWORD, UserFactory
from testing.cast import browser, session_cookie

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
    """A single turn, so that one hash is as many as there may be."""
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(passwords, "_turns", turns)
    return turns


@pytest.mark.parametrize("name", CALLS)
def test_beyond_the_bound_it_is_503(call, turns, name):
    turns.acquire()
    response = call(name)
    assert response.status_code == 503
    assert response.json() == {"error": "Too many logins at this moment: try again in a second."}
    assert response["Retry-After"] == "1"


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


def test_half_of_the_threads_may_hash_so_that_the_others_answer(settings):
    assert vars(passwords._turns)["_initial_value"] == max(1, settings.WEB_THREADS // 2)


def test_the_hash_is_argon2s():
    hasher = identify_hasher(passwords.hash_password(PASSWORD))
    assert isinstance(hasher, Argon2PasswordHasher)
