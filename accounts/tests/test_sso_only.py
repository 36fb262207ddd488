"""With OIDC_ONLY nobody uses a password, and staff have a way back in."""

from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from accounts.models import Identity, Session, User
from accounts.tests.test_single_sign_on import begin, finish, sign_in, there  # noqa: F401
from audit.models import AuditEntry
from testing.world.cast import browser
from testing.world.mails import issue_token, prove
from testing.world.users import PASSWORD, UserFactory

AUTH = "/api/v1/auth"
LOGIN = "/admin/login/"

pytestmark = pytest.mark.django_db


@pytest.fixture
def only(settings, there):  # noqa: F811
    settings.OIDC_ONLY = True


def test_passwords_are_off_and_sessions_and_keys_go_on(cast, only):
    client, key = cast.client(cast.viewer), cast.key_client()
    account = {"email": cast.viewer.email, "password": PASSWORD}
    token = issue_token("reset", cast.viewer.email, cast.viewer)
    for path, body in {
        "login": account,
        "register": {**account, "email": "new@example.com"},
        "forgot-password": {"email": cast.viewer.email},
        "reset-password": {"token": token, "newPassword": f"another {PASSWORD}"},
        "change-password": {"currentPassword": PASSWORD, "newPassword": f"another {PASSWORD}"},
        "change-email": {"newEmail": "new@example.com", "currentPassword": PASSWORD},
    }.items():
        answer = client.post(f"{AUTH}/{path}", body)
        assert (answer.status_code, answer.json()["code"]) == (403, "sso_only"), path
    change = issue_token("change", "new@example.com", cast.viewer)
    answer = client.post(f"{AUTH}/verify-email", {"token": change})
    assert (answer.status_code, answer.json()["code"]) == (403, "sso_only")
    with pytest.raises(CommandError, match="Passwords are turned off"):
        call_command("create_user", "new@example.com", "--link")
    assert client.get(f"{AUTH}/me").status_code == 200
    assert key.get("/api/v1/whoami").status_code == 200


def test_an_account_is_still_linked_by_its_password(there, only):  # noqa: F811
    user = UserFactory.create(email="ada@example.com")
    prove(user)
    client = browser()
    assert sign_in(there, client).status_code == 409
    assert client.post(f"{AUTH}/sso/link", {"password": PASSWORD}).status_code == 200


def test_the_console_has_no_forms_for_passwords(cast, only):
    visitor = Client()
    page = visitor.get("/console/sign-in").content.decode()
    assert 'name="password"' not in page
    assert "/console/sso" in page
    for path in ("register", "forgot-password", "account/password", "account/email"):
        answer = visitor.get(f"/console/{path}")
        assert (answer.status_code, answer["Location"]) == (303, "/console/sign-in"), path


class TestStaff:
    @pytest.fixture
    def boss(self, there):  # noqa: F811
        user = UserFactory.create(email="ada@example.com", is_staff=True)
        Identity.objects.create(user=user, issuer=there.origin, sub="ada-at-work")
        return user

    def test_log_in_by_a_sign_in_that_began_at_admin(self, boss, there, only):  # noqa: F811
        client = browser()
        answer = sign_in(there, client, to="/admin/runs/")
        assert answer.json()["next"] == "/admin/runs/"
        assert answer.cookies["staff_session"]["path"] == "/admin"
        visitor = Client()
        visitor.cookies["staff_session"] = answer.cookies["staff_session"].value
        assert visitor.get("/admin/").status_code == 200
        admin = Session.objects.get(user=boss, key_digest__isnull=False)
        ours = Session.objects.get(user=boss, key_digest__isnull=True)
        assert (admin.began, admin.came_from) == ("sso", ours.id)
        assert AuditEntry.objects.filter(action="user.logged-in", actor_type="staff").count() == 1
        assert client.post(f"{AUTH}/logout").status_code == 204
        assert visitor.get("/admin/").status_code == 302, "it ends with the session it came from"

    def test_by_no_cookie_of_the_api(self, boss, there):  # noqa: F811
        client = browser()
        assert "staff_session" not in sign_in(there, client).cookies
        visitor = Client()
        visitor.cookies["auth_token"] = client.cookies["auth_token"].value
        for path in ("", "login/", "login/sso/"):
            visitor.get(f"/admin/{path}", headers={"sec-fetch-site": "cross-site"})
        assert not Session.objects.filter(key_digest__isnull=False).exists()

    def test_by_no_link_of_another_site(self, boss, there):  # noqa: F811
        answer = Client().get("/console/sso?next=/admin/runs/")
        assert (answer.status_code, answer["Location"]) == (
            303,
            "/admin/login/?next=%2Fadmin%2Fruns%2F",
        )

    def test_and_nobody_else(self, boss, there):  # noqa: F811
        User.objects.filter(id=boss.id).update(is_staff=False)
        before = Session.objects.count()
        answer = sign_in(there, to="/admin/")
        assert (answer.status_code, answer.json()["code"]) == (409, "sso_failed")
        assert "Only staff get in there" in answer.json()["error"]
        assert Session.objects.count() == before

    def test_a_link_from_before_one_became_staff_opens_nothing(self, boss, there):  # noqa: F811
        User.objects.filter(id=boss.id).update(is_staff=False)
        prove(boss)
        client = browser()
        assert sign_in(there, client).status_code == 200
        call_command("create_staff", boss.email, "--promote")
        assert client.get(f"{AUTH}/me").status_code == 401
        assert not Identity.objects.exists()
        answer = sign_in(there, to="/admin/")
        assert (answer.status_code, answer.json()["code"]) == (409, "link_needed")

    def test_with_a_password_only_by_the_way_back_in(self, boss, only, monkeypatch):
        page = Client().get(LOGIN).content.decode()
        assert 'name="password"' not in page
        assert 'action="/console/sso"' in page
        form = {"email": boss.email, "password": PASSWORD}
        assert Client().post(LOGIN, form).status_code == 401
        said = StringIO()
        call_command("create_staff", "root@example.com", "--password", "--generate", stdout=said)
        password = said.getvalue().rpartition("Password: ")[2].strip()
        assert 'name="password"' in Client().get(LOGIN).content.decode()
        form = {"email": "root@example.com", "password": password}
        assert Client().post(LOGIN, form).status_code == 302
        assert browser().post(f"{AUTH}/login", form).status_code == 403


def test_an_account_without_a_usable_password_is_deleted_after_a_sign_in(there, only, cast):  # noqa: F811
    client = cast.client(cast.viewer)
    assert client.delete(f"{AUTH}/me", {}).status_code == 204
