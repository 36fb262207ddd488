"""The `auth_token` cookie is set with the right name, scope, lifetime and flags."""

import pytest

from accounts import sessions
from testing.world.cast import browser
from testing.world.users import PASSWORD, UserFactory

pytestmark = pytest.mark.django_db

CREDENTIALS = {"email": "ada@example.com", "password": PASSWORD}


@pytest.fixture(params=["register", "login"])
def cookie(request):
    """Returns a function that sends the request and returns the cookie in the answer."""
    if request.param == "login":
        UserFactory.create(email="ada@example.com")

    def send():
        response = browser().post(f"/api/v1/auth/{request.param}", CREDENTIALS)
        return response.cookies["auth_token"]

    return send


def test_scripts_cannot_read_it_and_other_sites_do_not_send_it(cookie):
    attributes = {name: value for name, value in cookie().items() if value != ""}
    del attributes["expires"]
    assert attributes == {
        "httponly": True,
        "max-age": 7 * 24 * 3600,
        "path": "/",
        "samesite": "Lax",
    }


def test_in_production_it_goes_over_https_alone(cookie, settings):
    settings.PRODUCTION = True
    assert cookie()["secure"] is True


def test_it_goes_over_https_alone_if_other_sites_may_send_it(cookie, settings, monkeypatch):
    settings.COOKIE_SAMESITE = "None"
    monkeypatch.setattr(sessions, "_SAME_SITE", "None")
    sent = cookie()
    assert (sent["secure"], sent["samesite"]) == (True, "None")
