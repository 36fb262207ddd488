"""Two attacks on a browser's session fail: planting a session, and setting a second cookie beside ours."""

import pytest

from accounts.models import Session
from accounts.sessions import read_session_token
from testing.world.cast import JSONClient, browser, session_cookie
from testing.world.users import PASSWORD, UserFactory

LOGIN = "/api/v1/auth/login"
ME = "/api/v1/auth/me"


class TestAPlantedSession:
    """Session fixation: the browser has the attacker's session when its owner logs in."""

    @pytest.fixture
    def victim(self, db):
        return UserFactory.create(email="victim@example.com")

    @pytest.fixture
    def planted(self, db):
        return session_cookie(UserFactory.create(email="attacker@example.com"))

    def test_a_login_opens_another_one_and_ends_it(self, victim, planted):
        client = browser(planted)
        response = client.post(LOGIN, {"email": victim.email, "password": PASSWORD})
        opened = response.cookies["auth_token"].value
        assert read_session_token(opened).session_id != read_session_token(planted).session_id
        assert browser(opened).get(ME).json()["user"]["email"] == victim.email
        assert browser(planted).get(ME).status_code == 401

    def test_a_registration_opens_another_one(self, planted):
        body = {"email": "new@example.com", "password": PASSWORD}
        opened = browser(planted).post("/api/v1/auth/register", body).cookies["auth_token"].value
        assert read_session_token(opened).session_id != read_session_token(planted).session_id
        assert browser(opened).get(ME).json()["user"]["email"] == "new@example.com"

    def test_changing_the_password_leaves_none_that_was_known_before(self, victim):
        known = session_cookie(victim)
        change = {"currentPassword": PASSWORD, "newPassword": "another good passphrase"}
        response = browser(known).post("/api/v1/auth/change-password", change)
        opened = response.cookies["auth_token"].value
        live = Session.objects.filter(user=victim, revoked_at__isnull=True)
        assert [session.id for session in live] == [read_session_token(opened).session_id]
        assert browser(known).get(ME).status_code == 401


class TestATossedCookie:
    """A page on a sister domain sets a second cookie with the service's cookie name. Browsers send both."""

    @pytest.mark.parametrize(
        "header",
        [
            "auth_token={theirs}; auth_token={ours}",
            "auth_token={ours};auth_token={theirs}",
            "auth_token={ours}; auth_token=",
            "auth_token=; auth_token={ours}",
            "auth_token ={theirs}; auth_token={ours}",
            'auth_token="{theirs}"; auth_token={ours}',
            "auth_token; auth_token={ours}",
        ],
    )
    def test_is_never_taken_for_the_session(self, cast, header):
        client = JSONClient()
        client.credentials(
            HTTP_COOKIE=header.format(
                ours=session_cookie(cast.owner), theirs=session_cookie(cast.stranger)
            )
        )
        assert client.get(ME).status_code == 401

    @pytest.mark.parametrize("name", ["Auth_Token", "auth-token", "xauth_token", "auth_token2"])
    def test_of_another_name_does_not_matter(self, cast, name):
        client = JSONClient()
        client.credentials(
            HTTP_COOKIE=f"{name}={session_cookie(cast.stranger)};"
            f" auth_token={session_cookie(cast.owner)}"
        )
        assert client.get(ME).json()["user"]["id"] == str(cast.owner.id)
