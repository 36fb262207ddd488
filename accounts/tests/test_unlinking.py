"""A link to the issuer ends: by its user, by the button of a mail, with a new password, and by staff."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.test import Client

from accounts.models import Identity, Session, User
from accounts.tests.test_single_sign_on import SSO, refusal, sign_in, there  # noqa: F401
from audit.models import AuditEntry
from testing.world.cast import browser
from testing.world.mails import issue_token, mails_to, prove, token_to
from testing.world.users import PASSWORD, UserFactory

AUTH = "/api/v1/auth"
LINK = f"{AUTH}/me/single-sign-on"
ANOTHER = f"another {PASSWORD}"

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(there):  # noqa: F811
    user = UserFactory.create(email="ada@example.com")
    prove(user)
    return user


@pytest.fixture
def linked(there, ada):  # noqa: F811
    """Ada's browser, in which she has linked her account by its password."""
    client = browser()
    assert refusal(sign_in(there, client)) == (409, "link_needed")
    assert client.post(f"{SSO}/link", {"password": PASSWORD}).status_code == 200
    return client


def by_password():
    client = browser()
    body = {"email": "ada@example.com", "password": PASSWORD}
    assert client.post(f"{AUTH}/login", body).status_code == 200
    return client


def is_in(client):
    return client.get(f"{AUTH}/me").status_code == 200


class TestByItsUser:
    def test_with_the_password(self, there, linked):  # noqa: F811
        other = by_password()
        shown = other.get(f"{AUTH}/me").json()["user"]["singleSignOn"]
        assert shown.pop("linkedAt") <= shown.pop("lastUsedAt")
        assert shown == {"issuer": there.origin, "address": "ada@example.com"}
        wrong = linked.delete(LINK, {"password": "wrong password"})
        assert wrong.json()["details"]["fieldErrors"] == {"password": ["Not your password."]}
        answer = linked.delete(LINK, {"password": PASSWORD})
        assert answer.status_code == 204
        assert answer.cookies["auth_token"].value == "", "its own session began by the link"
        assert (is_in(linked), is_in(other)) == (False, True)
        assert other.get(f"{AUTH}/me").json()["user"]["singleSignOn"] is None
        assert mails_to("ada@example.com") == ["link_notice", "unlink_notice"]
        (row,) = AuditEntry.objects.filter(action="user.unlinked")
        assert (row.actor_type, row.metadata) == ("user", {"issuer": there.origin})
        assert other.delete(LINK, {"password": PASSWORD}).status_code == 404
        assert refusal(sign_in(there)) == (409, "link_needed")

    def test_without_it_only_just_after_a_sign_in_by_other_means(self, linked):
        assert refusal(linked.delete(LINK)) == (403, "sign_in_again")
        other = by_password()
        of_other = Session.objects.filter(began="password")
        of_other.update(created_at=F("created_at") - timedelta(minutes=6))
        assert refusal(other.delete(LINK)) == (403, "sign_in_again")
        of_other.update(created_at=F("created_at") + timedelta(minutes=2))
        assert other.delete(LINK).status_code == 204
        assert not Identity.objects.exists()

    def test_not_where_passwords_are_off(self, linked, settings):
        settings.OIDC_ONLY = True
        assert refusal(linked.delete(LINK, {"password": PASSWORD})) == (403, "sso_only")
        assert Identity.objects.exists()

    def test_on_the_page_of_the_account(self, linked):
        visitor = Client(headers={"sec-fetch-site": "same-origin"})
        visitor.cookies["auth_token"] = by_password().cookies["auth_token"].value
        assert "/console/account/unlink" in visitor.get("/console/account").content.decode()
        answer = visitor.post("/console/account/unlink", {"password": PASSWORD})
        assert (answer.status_code, answer["Location"]) == (303, "/console/account")
        assert "/console/account/unlink" not in visitor.get("/console/account").content.decode()


def test_a_new_password_by_mail_ends_it(linked):
    token = issue_token("reset", "ada@example.com", User.objects.get())
    body = {"token": token, "newPassword": ANOTHER}
    assert browser().post(f"{AUTH}/reset-password", body).status_code == 204
    assert not Identity.objects.exists()
    assert not is_in(linked)


class TestByTheButtonOfTheMail:
    def test_without_signing_in_and_once(self, there, ada, linked):  # noqa: F811
        other = by_password()
        body = {"token": token_to("ada@example.com", "link_notice")}
        assert browser().post(f"{AUTH}/undo-link", body).status_code == 204
        assert (is_in(linked), is_in(other)) == (False, False)
        assert not Identity.objects.exists()
        old = {"email": "ada@example.com", "password": PASSWORD}
        assert refusal(browser().post(f"{AUTH}/login", old)) == (401, "wrong_credentials")
        assert refusal(browser().post(f"{AUTH}/undo-link", body)) == (409, "link_unusable")
        (row,) = AuditEntry.objects.filter(action="user.link-undone")
        assert row.metadata == {"issuer": there.origin, "emailChanged": False}
        token = issue_token("reset", "ada@example.com", ada)
        body = {"token": token, "newPassword": ANOTHER}
        assert browser().post(f"{AUTH}/reset-password", body).status_code == 204

    def test_gives_the_address_back_that_followed_the_issuer(self, there, ada, linked):  # noqa: F811
        assert sign_in(there, email="eve@example.com").json()["user"]["email"] == "eve@example.com"
        assert mails_to("ada@example.com")[-1] == "follow_notice"
        body = {"token": token_to("ada@example.com", "follow_notice")}
        assert browser().post(f"{AUTH}/undo-link", body).status_code == 204
        ada.refresh_from_db()
        assert (ada.email, ada.has_proved_email) == ("ada@example.com", True)
        assert not Identity.objects.exists()

    def test_not_the_address_that_another_account_has_proved_since(self, there, ada, linked):  # noqa: F811
        sign_in(there, email="eve@example.com")
        prove(UserFactory.create(email="ada@example.com"))
        body = {"token": token_to("ada@example.com", "follow_notice")}
        assert browser().post(f"{AUTH}/undo-link", body).status_code == 204
        ada.refresh_from_db()
        assert (ada.email, ada.has_proved_email) == ("eve@example.com", False)
        assert not Identity.objects.exists()

    def test_refuses_what_is_no_token_of_such_a_mail(self, linked):
        reset = issue_token("reset", "ada@example.com", User.objects.get())
        for token in ("nonsense", "acc_", reset, 7):
            answer = browser().post(f"{AUTH}/undo-link", {"token": token})
            assert answer.status_code in (400, 409), token
        assert Identity.objects.exists()

    def test_has_no_token_where_passwords_are_off(self, there, ada, settings):  # noqa: F811
        settings.OIDC_ONLY = True
        client = browser()
        sign_in(there, client)
        assert client.post(f"{SSO}/link", {"password": PASSWORD}).status_code == 200
        with pytest.raises(AssertionError, match="no token"):
            token_to("ada@example.com", "link_notice")


class TestAnAddress:
    def test_that_was_changed_here_stays_until_the_issuer_tells_another(self, there, linked):  # noqa: F811
        User.objects.update(email="changed@example.com")
        assert sign_in(there).json()["user"]["email"] == "changed@example.com"
        assert sign_in(there, email="new@example.com").json()["user"]["email"] == "new@example.com"
        assert mails_to("changed@example.com") == ["follow_notice"]

    def test_that_changes_ends_the_pending_link(self, there, ada):  # noqa: F811
        client = browser()
        assert refusal(sign_in(there, client)) == (409, "link_needed")
        assert client.post(f"{SSO}/link-mail").status_code == 202
        token = token_to("ada@example.com", "link")
        User.objects.update(email="changed@example.com")
        for path, body in (
            ("link", {"password": PASSWORD}),
            ("link-mail", {}),
            ("link-by-mail", {"token": token}),
        ):
            assert client.post(f"{SSO}/{path}", body).status_code in (401, 409), path
        assert not Identity.objects.exists()


def test_two_cookies_of_one_name_are_a_refusal(linked):
    for path, name in (("sso/finish", "sso"), ("sso/link", "sso_link"), ("me", "auth_token")):
        client = browser()
        header = {"cookie": f"{name}=one; {name}=two"}
        body = {"state": "x", "code": "y"} if path == "sso/finish" else {"password": PASSWORD}
        call = client.get if path == "me" else client.post
        answer = call(f"{AUTH}/{path}", {} if path == "me" else body, headers=header)
        assert refusal(answer) == (401, "unauthenticated"), name
        assert f"Two {name} cookies" in answer.json()["error"]
