"""Proving an address, asking for the mail again, and changing the address."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from accounts.models import AccountMail, Session, User
from testing.probes.shapes import invalid
from testing.world.cast import browser, session_cookie
from testing.world.mails import MAIL_SERVER, issue_token, mails_to, prove, token_to
from testing.world.users import PASSWORD, UserFactory

AUTH = "/api/v1/auth"
NEW = {"email": "ada@example.com", "password": PASSWORD}
CHANGE = {"newEmail": "new@example.com", "currentPassword": PASSWORD}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _mail_server(settings):
    settings.EMAIL_URL = MAIL_SERVER


@pytest.fixture
def ada():
    """A client of a user who has just registered."""
    client = browser()
    assert client.post(f"{AUTH}/register", NEW).status_code == 201
    return client


def verify(client, token):
    return client.post(f"{AUTH}/verify-email", {"token": token})


def unusable(response):
    return (response.status_code, response.json()["code"]) == (409, "link_unusable")


class TestProof:
    def test_the_mail_of_a_registration_proves_the_address_once(self, ada):
        assert not ada.get(f"{AUTH}/me").json()["user"]["emailVerified"]
        token = token_to("ada@example.com", "verify")
        assert verify(ada, token).json()["user"]["emailVerified"]
        assert ada.get(f"{AUTH}/me").json()["user"]["emailVerified"]
        assert unusable(verify(ada, token))

    def test_the_token_is_nothing_without_the_accounts_own_session(self, ada):
        token = token_to("ada@example.com", "verify")
        assert verify(browser(), token).status_code == 401
        assert unusable(verify(browser(session_cookie(UserFactory.create())), token))
        assert verify(ada, token).status_code == 200

    def test_a_token_ends_after_a_day(self, ada):
        token = token_to("ada@example.com", "verify")
        expires_at = AccountMail.objects.get().expires_at
        assert expires_at is not None
        left = expires_at - User.objects.get().created_at
        assert timedelta(hours=23) < left <= timedelta(hours=24, seconds=1)
        AccountMail.objects.update(expires_at=Now())
        assert unusable(verify(ada, token))

    @pytest.mark.parametrize("purpose", ["reset", "registration", "invitation"])
    def test_a_token_for_something_else_proves_nothing(self, ada, purpose):
        assert unusable(verify(ada, issue_token(purpose, "ada@example.com", User.objects.get())))

    @pytest.mark.parametrize("token", ["", "acc_", "wrk_x", "acc_" + "0" * 49, "\u20ac" * 9])
    def test_what_is_no_token_is_refused(self, ada, token):
        assert verify(ada, token).status_code == (409 if token else 400)

    def test_the_row_holds_no_token(self, ada):
        token = token_to("ada@example.com", "verify")
        row = AccountMail.objects.values().get()
        assert token not in str(row)
        assert len(bytes(row["token_digest"] or b"")) == 32

    def test_another_mail_is_sent_until_the_address_is_proved(self, ada):
        assert ada.post(f"{AUTH}/resend-verification").status_code == 202
        assert mails_to("ada@example.com") == ["verify", "verify"]
        verify(ada, token_to("ada@example.com", "verify"))
        assert ada.post(f"{AUTH}/resend-verification").status_code == 202
        assert mails_to("ada@example.com") == ["verify", "verify"]

    def test_an_address_gets_five_mails_an_hour(self, ada):
        answers = [ada.post(f"{AUTH}/resend-verification").status_code for _ in range(8)]
        assert answers == [202] * 8
        assert len(mails_to("ada@example.com")) == 5

    def test_no_other_kind_of_mail_keeps_away_what_gives_the_address_back(self, ada):
        for _ in range(8):
            ada.post(f"{AUTH}/resend-verification")
        assert browser().post(f"{AUTH}/register", NEW).json()["code"] == "address_unproved"
        assert mails_to("ada@example.com")[-1] == "registration"


class TestAnotherAddress:
    def test_the_new_address_confirms_and_the_old_one_is_told(self, ada):
        assert ada.post(f"{AUTH}/change-email", CHANGE).status_code == 202
        assert mails_to("ada@example.com") == ["verify", "change_notice"]
        assert ada.get(f"{AUTH}/me").json()["user"]["email"] == "ada@example.com"
        assert verify(ada, token_to("new@example.com", "change")).status_code == 200
        user = ada.get(f"{AUTH}/me").json()["user"]
        assert (user["email"], user["emailVerified"]) == ("new@example.com", True)

    def test_the_old_one_is_told_however_many_mails_it_has_had(self, ada):
        prove(User.objects.get())
        for _ in range(8):
            browser().post(f"{AUTH}/forgot-password", {"email": "ada@example.com"})
        ada.post(f"{AUTH}/change-email", CHANGE)
        assert mails_to("ada@example.com") == ["verify", *["reset"] * 5, "change_notice"]

    def test_links_that_went_to_the_old_address_are_dead_then(self, ada):
        old = [token_to("ada@example.com", "verify")]
        user = User.objects.get()
        reset = issue_token("reset", user.email, user)
        ada.post(f"{AUTH}/change-email", CHANGE)
        verify(ada, token_to("new@example.com", "change"))
        assert all(unusable(verify(ada, token)) for token in old)
        body = {"token": reset, "newPassword": "a fresh horse battery"}
        assert unusable(browser().post(f"{AUTH}/reset-password", body))

    def test_only_the_newest_change_counts(self, ada):
        ada.post(f"{AUTH}/change-email", CHANGE)
        first = token_to("new@example.com", "change")
        ada.post(f"{AUTH}/change-email", {**CHANGE, "newEmail": "newer@example.com"})
        assert unusable(verify(ada, first))
        assert verify(ada, token_to("newer@example.com", "change")).status_code == 200

    def test_a_new_password_stops_the_change(self, ada):
        ada.post(f"{AUTH}/change-email", CHANGE)
        body = {"currentPassword": PASSWORD, "newPassword": "a fresh horse battery"}
        assert ada.post(f"{AUTH}/change-password", body).status_code == 204
        assert unusable(verify(ada, token_to("new@example.com", "change")))

    def test_the_password_is_asked_for(self, ada):
        answer = ada.post(f"{AUTH}/change-email", {**CHANGE, "currentPassword": "wrong password"})
        assert answer.json() == invalid({"currentPassword": ["Not your password."]})
        answer = ada.post(f"{AUTH}/change-email", {**CHANGE, "newEmail": "ADA@example.com"})
        assert answer.json() == invalid({"newEmail": ["This is your e-mail address already."]})
        assert mails_to("new@example.com") == []

    def test_a_proved_address_of_somebody_else_is_taken(self, ada):
        other = UserFactory.create(email="new@example.com")
        prove(other)
        answer = ada.post(f"{AUTH}/change-email", CHANGE)
        assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")

    def test_an_address_that_is_proved_meanwhile_is_taken(self, ada):
        ada.post(f"{AUTH}/change-email", CHANGE)
        prove(UserFactory.create(email="new@example.com"))
        token = token_to("new@example.com", "change")
        answer = verify(ada, token)
        assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")

    def test_an_account_that_never_proved_the_address_loses_it(self, ada):
        squatter = UserFactory.create(email="new@example.com")
        session_cookie(squatter)
        ada.post(f"{AUTH}/change-email", CHANGE)
        assert verify(ada, token_to("new@example.com", "change")).status_code == 200
        squatter.refresh_from_db()
        assert not squatter.is_active
        assert squatter.email.endswith("@displaced.invalid")
        assert not Session.objects.filter(user=squatter, revoked_at__isnull=True).exists()


class TestWithoutMail:
    def test_in_production_calls_that_need_mail_say_so(self, ada, settings):
        settings.EMAIL_URL, settings.PRODUCTION = "", True
        before = AccountMail.objects.count()
        calls = [
            ada.post(f"{AUTH}/resend-verification"),
            ada.post(f"{AUTH}/change-email", CHANGE),
            browser().post(f"{AUTH}/forgot-password", {"email": "ada@example.com"}),
        ]
        assert [(each.status_code, each.json()["code"]) for each in calls] == [
            (409, "mail_off")
        ] * 3
        assert (
            browser().post(f"{AUTH}/register", {**NEW, "email": "b@example.com"}).status_code == 201
        )
        assert AccountMail.objects.count() == before

    def test_in_development_addresses_can_be_proved_and_need_not_be(self, settings):
        settings.EMAIL_URL = ""
        client = browser()
        client.post(f"{AUTH}/register", NEW)
        lookup = "/api/v1/users/lookup?email=ada@example.com"
        assert client.get(lookup).status_code == 200
        assert verify(client, token_to("ada@example.com", "verify")).status_code == 200
        answer = browser().post(f"{AUTH}/register", NEW)
        assert answer.json()["code"] == "email_taken"
