"""The right people can log in to the admin, and their sessions end in time."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.test import Client

from accounts import passwords
from accounts.emails import Email
from accounts.models import Session, User
from accounts.services import deactivate_user, promote_to_staff, reactivate_user
from audit.models import AuditEntry
from pipedai.admin.tests.conftest import LOGIN, log_in
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.events import SYSTEM
from testing.world.cast import browser, session_cookie
from testing.world.users import PASSWORD, UserFactory

START, ACCOUNT = "/admin/", "/admin/account/"
NEW_PASSWORD = "another password of the staff"
WRONG = "The e-mail address, the password or the code is wrong."


def is_in(client) -> bool:
    """Whether the start page opens. If it does not, it must redirect to the login."""
    answer = client.get(START)
    assert answer.status_code == 200 or answer.headers["Location"].startswith(LOGIN)
    return bool(answer.status_code == 200)


def rows(*actions):
    entries = AuditEntry.objects.filter(action__in=actions).order_by("created_at", "id")
    return [(each.action, each.actor_type, each.actor_id, each.target_id) for each in entries]


def test_staff_log_in_and_out_and_both_are_audited(door, staff):
    assert not is_in(door)
    assert log_in(door).headers["Location"] == START
    assert is_in(door)
    token = str(door.get(ACCOUNT).context["csrf_token"])
    kept = door.cookies["staff_session"].value
    assert door.post("/admin/logout/", {"csrfmiddlewaretoken": token}).status_code == 302
    door.cookies["staff_session"] = kept
    assert not is_in(door), "a copy of the cookie is dead too"
    assert Session.objects.get().data == {}
    assert rows("user.logged-in", "user.logged-out") == [
        ("user.logged-in", "staff", staff.id, staff.id),
        ("user.logged-out", "staff", staff.id, staff.id),
    ]


def test_the_cookies_are_for_admins_path_alone(door, staff, settings):
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    answer = log_in(door)
    for name in ("staff_session", "staff_csrf"):
        cookie = answer.cookies[name]
        assert (cookie["path"], cookie["samesite"], cookie["domain"]) == ("/admin", "Strict", "")
        assert cookie["httponly"]
        assert cookie["secure"]
    assert answer.cookies["staff_session"]["max-age"] == 8 * 3600


def test_the_database_keeps_only_a_digest_of_the_session_key(desk):
    key = desk.cookies["staff_session"].value
    kept = Session.objects.get()
    assert key.encode() not in bytes(kept.key_digest or b"")
    assert key not in str(kept.data)


@pytest.mark.parametrize(
    "change",
    [
        {"password": "wrong"},
        {"email": "nobody@example.com"},
        {"email": "user@example.com"},
        {"email": "gone@example.com"},
    ],
    ids=["wrong password", "nobody", "no staff", "deactivated"],
)
def test_all_others_are_told_the_same(door, staff, change):
    UserFactory.create(email="user@example.com")
    UserFactory.create(email="gone@example.com", is_staff=True, is_active=False)
    answer = log_in(door, **change)
    assert answer.status_code == 401
    assert WRONG in answer.content.decode()
    assert "staff_session" not in answer.cookies
    assert not Session.objects.exists()


def test_a_failed_login_of_a_known_account_is_audited_as_staff_once_a_minute(door, staff):
    for _ in range(3):
        log_in(door, password="wrong")
    assert rows("user.login-failed") == [("user.login-failed", "staff", None, staff.id)]


def test_the_login_is_throttled_with_the_apis_and_before_hashing(staff, monkeypatch):
    for _ in range(5):
        body = {"email": staff.email, "password": "wrong"}
        assert browser().post("/api/v1/auth/login", body).status_code == 401
    monkeypatch.setattr("accounts.services.is_password_of", lambda *_: False)
    assert [log_in(Client(), password="wrong").status_code for _ in range(5)] == [401] * 5
    monkeypatch.setattr("accounts.services.is_password_of", None)
    answer = log_in(Client())
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert "Too many requests" in answer.content.decode()


def test_nobody_locks_staff_out_of_where_they_log_in_from(staff, monkeypatch):
    assert log_in(Client(), REMOTE_ADDR="203.0.113.5").status_code == 302
    monkeypatch.setattr("accounts.services.is_password_of", lambda *_: False)
    wrong = {"email": staff.email, "password": "wrong", "code": ""}
    for n in range(60):
        Client().post(LOGIN, wrong, REMOTE_ADDR=f"198.51.100.{n}")
    monkeypatch.undo()
    assert log_in(Client(), REMOTE_ADDR="198.51.100.99").status_code in (302, 429)
    assert log_in(Client(), REMOTE_ADDR="203.0.113.5").status_code == 302


def test_too_many_logins_at_once_are_a_page_that_says_so(door, staff, monkeypatch):
    monkeypatch.setattr(passwords.PERMITS.free, "acquire", lambda timeout: False)
    answer = log_in(door)
    assert answer.status_code == 503
    assert "try again in a second" in answer.content.decode()


def test_a_login_without_the_forms_token_is_refused(door, staff):
    door.get(LOGIN)
    assert door.post(LOGIN, {"email": staff.email, "password": PASSWORD}).status_code == 403


def test_the_next_page_is_one_of_admins(door, staff):
    token = str(door.get(f"{LOGIN}?next=//evil.example/").context["csrf_token"])
    sent = {"email": staff.email, "password": PASSWORD, "csrfmiddlewaretoken": token}
    assert door.post(LOGIN, {**sent, "next": "//evil.example/admin/"}).headers["Location"] == START
    assert door.get(f"{LOGIN}?next=/admin/account/").headers["Location"] == ACCOUNT


def test_a_planted_session_does_not_survive_the_login(staff):
    client = Client()
    client.cookies["staff_session"] = "planted-by-somebody-else-who-knows-this-key"
    log_in(client)
    assert client.cookies["staff_session"].value != "planted-by-somebody-else-who-knows-this-key"


@pytest.mark.parametrize("name", ["staff_session", "staff_csrf"])
def test_two_cookies_of_a_name_are_refused_with_a_sentence(desk, name):
    key = desk.cookies.pop("staff_session").value
    two = f"staff_session={key}; {name}=planted; {name}={key}"
    refused = desk.get(START, HTTP_COOKIE=two)
    assert refused.status_code == 400
    assert f"Two {name} cookies were sent" in refused.content.decode()
    assert desk.get(START, HTTP_COOKIE=f"staff_session={key}").status_code == 200


@pytest.mark.parametrize("field", ["email", "password", "code"])
def test_a_nul_in_the_form_is_400(staff, field):
    client = Client()
    client.get(LOGIN)
    sent = {"email": "staff@example.com", "password": PASSWORD, "code": ""}
    assert client.post(LOGIN, {**sent, field: "a\0b@example.com"}).status_code == 400


def test_the_apis_cookie_does_not_open_admin(staff):
    client = Client()
    client.cookies[AUTH_COOKIE] = session_cookie(staff)
    assert not is_in(client)
    client.cookies["staff_session"] = session_cookie(staff)
    assert not is_in(client)


def test_admins_cookie_does_not_open_the_api(desk):
    key = desk.cookies["staff_session"].value
    for name in ("staff_session", AUTH_COOKIE):
        client = Client()
        client.cookies[name] = key
        assert client.get("/api/v1/auth/me").status_code == 401
    answer = desk.get("/api/v1/auth/me")
    assert answer.status_code == 401
    assert not answer.cookies


@pytest.mark.parametrize(
    "end",
    [
        lambda user: deactivate_user(user_id=user.id, actor=SYSTEM),
        lambda user: User.objects.filter(id=user.id).update(is_staff=False),
        lambda user: Session.objects.update(expires_at=Now() - timedelta(seconds=1)),
    ],
    ids=["deactivated", "demoted", "eight hours over"],
)
def test_a_session_dies_at_once(desk, staff, end):
    assert is_in(desk)
    end(staff)
    assert not is_in(desk)


def test_a_session_of_before_a_deactivation_stays_dead(desk, staff):
    deactivate_user(user_id=staff.id, actor=SYSTEM)
    reactivate_user(user_id=staff.id, actor=SYSTEM)
    assert not is_in(desk)


def test_changing_the_password_in_the_api_ends_the_sessions_of_admin(desk, staff):
    body = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    answer = browser(session_cookie(staff)).post("/api/v1/auth/change-password", body)
    assert answer.status_code == 204
    assert not is_in(desk)


def test_staff_change_their_password_and_stay_in_while_other_sessions_end(desk, staff):
    elsewhere = Client()
    log_in(elsewhere)
    sent = {"change-password": "1", "current": PASSWORD, "new": NEW_PASSWORD}
    assert desk.post(ACCOUNT, {**sent, "current": "wrong"}).status_code == 400
    assert desk.post(ACCOUNT, {**sent, "new": "short"}).status_code == 400
    assert desk.post(ACCOUNT, sent).status_code == 302
    assert is_in(desk)
    assert not is_in(elsewhere)
    assert log_in(Client(), password=NEW_PASSWORD).status_code == 302
    assert rows("user.password-changed") == [("user.password-changed", "staff", staff.id, staff.id)]


def test_a_new_secret_key_logs_nobody_out(desk, settings):
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-for-the-checks-0123456789"
    assert is_in(desk)
    settings.SECRET_KEY_FALLBACKS = []
    assert is_in(desk), "the session has moved to the new key"


def test_somebody_promoted_comes_in_with_the_password_they_have(db, door):
    UserFactory.create(email="staff@example.com")
    promote_to_staff(email=Email("staff@example.com"), actor=SYSTEM)
    assert log_in(door).status_code == 302


def test_the_page_has_a_policy_of_its_own_and_is_kept_nowhere(desk):
    assert "no-store" in desk.get(START).headers["Cache-Control"]
