"""Staff at their browsers."""

import pytest
from django.core.cache import cache
from django.test import Client

from accounts.emails import Email
from accounts.models import User
from accounts.services import create_staff
from pipedai.events import SYSTEM
from testing.world.users import PASSWORD

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def _nothing_remembered():
    """The start page's figures are of this test."""
    cache.clear()


@pytest.fixture(autouse=True)
def _instant_passwords(settings):
    """How slowly passwords are hashed is tested elsewhere."""
    use_instant_passwords(settings)


@pytest.fixture
def staff(db) -> User:
    """A staff user with the password of all test users."""
    return create_staff(
        email=Email("staff@example.com"), password=PASSWORD, name="Staff", actor=SYSTEM
    )


@pytest.fixture
def door():
    """A browser that nobody has logged in with; it takes part in the CSRF check."""
    return Client(enforce_csrf_checks=True)


@pytest.fixture
def desk(staff):
    """The staff user's browser, logged in."""
    client = Client()
    assert log_in(client).status_code == 302
    return client


def use_instant_passwords(settings):
    """Has passwords hashed at once, and those that are hashed properly still verified."""
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]


def log_in(client, *, email="staff@example.com", password=PASSWORD, code="", **extra):
    """Posts the form as its page gives it."""
    page = client.get(LOGIN)
    sent = {"email": email, "password": password, "code": code}
    if page.status_code == 200:
        sent["csrfmiddlewaretoken"] = str(page.context["csrf_token"])
    return client.post(LOGIN, sent, **extra)
