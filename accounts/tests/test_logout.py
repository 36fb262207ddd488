"""POST /auth/logout"""

import pytest

from accounts.models import Session
from testing.world.cast import browser, session_cookie
from testing.world.users import UserFactory

URL = "/api/v1/auth/logout"
ME = "/api/v1/auth/me"

pytestmark = pytest.mark.django_db


@pytest.fixture
def cookie():
    return session_cookie(UserFactory.create())


def test_it_answers_nothing_and_has_the_browser_forget(cookie):
    response = browser(cookie).post(URL)
    assert response.status_code == 204
    assert response.content == b""
    assert response["Clear-Site-Data"] == '"cache"'
    cleared = response.cookies["auth_token"]
    assert cleared.value == ""
    assert cleared["max-age"] == 0
    assert cleared["path"] == "/"
    assert cleared["samesite"] == "Lax"


def test_a_copy_of_the_cookie_is_dead_afterwards(cookie):
    browser(cookie).post(URL)
    response = browser(cookie).get(ME)
    assert response.status_code == 401
    assert response.json() == {
        "error": "The session has ended. Log in again.",
        "code": "invalid_token",
    }


def test_other_sessions_of_the_user_live_on(cookie):
    other = session_cookie(Session.objects.get().user)
    browser(cookie).post(URL)
    assert browser(other).get(ME).status_code == 200


@pytest.mark.parametrize("cookie_sent", [None, "", "garbage", "a.b.c"])
def test_without_a_session_it_is_as_good(cookie_sent):
    assert browser(cookie_sent).post(URL).status_code == 204


def test_a_second_logout_is_as_good(cookie):
    assert [browser(cookie).post(URL).status_code for _ in range(2)] == [204, 204]
