"""Fixtures for the admin's tests: staff users and their browsers."""

import pytest
from django.conf import settings
from django.test import Client

from accounts.emails import Email
from accounts.models import User
from accounts.services import create_staff
from accounts.sessions import Device, open_staff_session
from pipedai.admin.site import page_of
from pipedai.events import SYSTEM
from testing.world.users import PASSWORD, use_instant_passwords

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def _instant_passwords(settings):
    """Makes hashing fast, because other tests cover its slowness."""
    use_instant_passwords(settings)


@pytest.fixture
def staff(db) -> User:
    """Makes a staff user with the password of all test users."""
    return create_staff(
        email=Email("staff@example.com"), password=PASSWORD, name="Staff", actor=SYSTEM
    )


@pytest.fixture
def door():
    """Returns a client that is not logged in, and for which the CSRF check is on."""
    return Client(enforce_csrf_checks=True)


@pytest.fixture
def desk(staff):
    """Returns a client of the staff user's. Whoever tests the login uses `log_in`, which draws two pages."""
    client = Client()
    session = open_staff_session(staff, Device(b"", None, ""))
    client.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)
    return client


def act(model, row_id, action) -> str:
    """Returns the URL of a support action's page."""
    return f"{page_of(model, row_id).removesuffix('change/')}do/{action}/"


def log_in(client, *, email="staff@example.com", password=PASSWORD, code="", **extra):
    """Posts the login form as its page contains it."""
    page = client.get(LOGIN)
    sent = {"email": email, "password": password, "code": code}
    if page.status_code == 200:
        sent["csrfmiddlewaretoken"] = str(page.context["csrf_token"])
    return client.post(LOGIN, sent, **extra)
