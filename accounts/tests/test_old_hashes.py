"""A password hash made under older settings still lets its user in, and is then replaced (SPEC §19)."""

import threading

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher, make_password
from django.test import Client

from accounts import passwords
from accounts.models import Session, User
from accounts.passwords import is_password_of
from accounts.sessions import Device
from accounts.staff_sessions import open_staff_session
from audit.models import AuditEntry
from testing.processes.racing import accepted, at_once
from testing.world.cast import browser, session_cookie
from testing.world.users import PASSWORD, UserFactory

NEW = "argon2$argon2id$v=19$m=47104,t=1,p=1$"
ADA = "ada@example.com"
ME = "/api/v1/auth/me"


def old_hash(number=1):
    """Returns a hash of PASSWORD made under Django's own settings."""
    return Argon2PasswordHasher().encode(PASSWORD, f"a salt of some length {number}")


@pytest.fixture
def ada(db):
    return UserFactory.create(email=ADA, password=old_hash(), is_staff=True)


def log_in(password=PASSWORD, client=None):
    return (client or browser()).post("/api/v1/auth/login", {"email": ADA, "password": password})


def stored():
    return User.objects.get(email=ADA).password


def test_a_login_replaces_it_once_and_the_password_stays(ada):
    assert log_in().status_code == 200
    replaced = stored()
    assert replaced.startswith(NEW)
    assert log_in().status_code == 200
    assert stored() == replaced
    assert log_in("not her password").status_code == 401


@pytest.fixture
def desk(ada):
    """Returns a browser with an admin session that was opened before the hash was replaced."""
    client = Client()
    client.cookies["staff_session"] = str(
        open_staff_session(ada, Device(b"", None, "")).session_key
    )
    return client


def test_it_is_no_change_of_the_password_to_the_log_and_to_sessions(ada, desk):
    browsing = browser(session_cookie(ada))
    assert log_in().status_code == 200
    assert stored().startswith(NEW)
    assert browsing.get(ME).status_code == 200
    assert desk.get("/admin/").status_code == 200
    assert not AuditEntry.objects.filter(action="user.password-changed").exists()


def test_a_session_of_admin_goes_on_under_a_rotated_secret_key(ada, desk, settings):
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the next secret key, as long as any that an operator would choose"
    assert log_in().status_code == 200
    assert desk.get("/admin/").status_code == 200


def test_a_session_that_had_ended_for_another_password_stays_ended(ada, desk):
    ada.set_password("another password entirely")
    ada.save()
    User.objects.filter(email=ADA).update(password=old_hash(2))
    assert log_in().status_code == 200
    assert desk.get("/admin/").status_code == 302


def test_staff_who_log_in_to_admin_replace_it_too(ada):
    sent = {"email": ADA, "password": PASSWORD}
    client = Client()
    assert client.post("/admin/login/", sent).status_code == 302
    assert stored().startswith(NEW)
    assert client.get("/admin/").status_code == 200


def test_a_wrong_password_replaces_nothing(ada):
    assert log_in("not her password").status_code == 401
    assert stored() == old_hash()


def test_nor_does_the_right_one_of_a_deactivated_user(ada):
    User.objects.update(is_active=False)
    assert log_in().status_code == 401
    assert stored() == old_hash()


def test_a_password_that_was_changed_meanwhile_is_not_overwritten(ada):
    changed = make_password("another password entirely")
    User.objects.filter(email=ADA).update(password=changed)
    assert not is_password_of(ada, PASSWORD)  # this object was read before the change
    assert stored() == changed


def test_a_changed_password_replaces_it_whatever_it_was(ada):
    body = {"currentPassword": PASSWORD, "newPassword": "another password entirely"}
    client = browser(session_cookie(ada))
    assert client.post("/api/v1/auth/change-password", body).status_code == 204
    assert log_in().status_code == 401
    assert log_in("another password entirely").status_code == 200


def test_of_several_logins_at_once_one_replaces_it_and_all_come_in(own_database, monkeypatch):
    UserFactory.create(email=ADA, password=old_hash())
    both_verified = threading.Barrier(2)
    outcomes = []
    replace_hash = passwords._replace_hash

    def make_once_both_verified(password):
        both_verified.wait(60)
        return make_password(password)

    def noting(user, encoded):
        outcomes.append(replace_hash(user, encoded))
        return outcomes[-1]

    monkeypatch.setattr(passwords, "make_password", make_once_both_verified)
    monkeypatch.setattr(passwords, "_replace_hash", noting)
    answers = accepted(at_once(log_in, log_in))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted(outcomes) == [False, True]
    assert stored().startswith(NEW)
    assert Session.objects.count() == 2
