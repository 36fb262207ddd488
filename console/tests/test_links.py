"""The screens to which the links in mails lead, without their script."""

import pytest

from accounts.models import User
from console.tests.visits import HOME, text_of, visitor
from notices.models import AskedAddress, RefusedAddress
from testing.world.channels import asked_token
from testing.world.mails import MAIL_SERVER, invite_for_test, issue_token, prove
from testing.world.users import PASSWORD, UserFactory
from workspaces.models import Membership

PAGES = ("verify", "reset", "register", "invitation", "notices")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _mail_server(settings):
    settings.EMAIL_URL = MAIL_SERVER
    settings.PUBLIC_URL = HOME["origin"]


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com")


def at(page):
    return f"/console/account/{page}"


@pytest.mark.parametrize("page", PAGES)
def test_the_paths_that_mails_had_lead_to_the_screens(page, client):
    answer = client.get(f"/account/{page}?next=//evil.example")
    # Without a fragment in it, a browser keeps that of the link.
    assert (answer.status_code, answer["Location"]) == (302, at(page))


@pytest.mark.parametrize("page", PAGES)
def test_a_token_that_is_none_or_has_a_nul_is_refused_at_the_form(page, ada):
    token = "registrationToken" if page == "register" else "token"
    form = {"email": ada.email, "password": PASSWORD, "newPassword": "a fresh horse"}
    client = visitor(ada)
    for value, status in (("acc_" + "0" * 49, 409), ("acc_\0", 400)):
        answer = client.post(at(page), {**form, token: value})
        assert answer.status_code == status, value
        assert f'name="{token}"' in answer.content.decode()
        assert "\0" not in answer.content.decode()


@pytest.mark.parametrize(("page", "tries"), [("verify", 30), ("reset", 30), ("notices", 30)])
def test_a_visitor_has_as_many_tries_as_in_the_api(ada, page, tries):
    client, form = visitor(ada), {"token": "x", "newPassword": PASSWORD}
    statuses = [client.post(at(page), form).status_code for _ in range(tries + 1)]
    assert statuses == [409] * tries + [429]


class TestVerify:
    def test_who_signs_in_first_confirms(self, ada):
        client = visitor()
        sent = client.get(at("verify"))
        assert sent["Location"] == "/console/sign-in?next=%2Fconsole%2Faccount%2Fverify"
        form = {"email": ada.email, "password": PASSWORD, "next": at("verify")}
        assert client.post("/console/sign-in", form)["Location"] == at("verify")
        form = {"token": issue_token("verify", ada.email, ada)}
        assert "ada@example.com is confirmed." in text_of(client.post(at("verify"), form))
        ada.refresh_from_db()
        assert ada.has_proved_email

    def test_who_is_signed_in_to_another_account_can_sign_in_to_the_right_one(self, ada):
        form = {"token": issue_token("verify", ada.email, ada)}
        page = visitor(UserFactory.create()).post(at("verify"), form)
        assert page.status_code == 409
        link = f"?next=%2Fconsole%2Faccount%2Fverify#token={form['token']}"
        assert f'href="/console/sign-in{link}"' in page.content.decode()


class TestReset:
    def test_the_form_sets_a_new_password(self, ada):
        prove(ada)
        form = {"token": issue_token("reset", ada.email, ada), "newPassword": "short"}
        weak = visitor().post(at("reset"), form)
        assert (weak.status_code, "too short" in text_of(weak)) == (400, True)
        done = visitor().post(at("reset"), {**form, "newPassword": "a fresh horse"})
        assert "The new password is set." in text_of(done)
        ada.refresh_from_db()
        assert ada.check_password("a fresh horse")


class TestRegister:
    def test_the_owner_of_an_address_gets_an_account_of_their_own(self, ada):
        client = visitor()
        form = {
            "registrationToken": issue_token("registration", ada.email, ada),
            "email": ada.email,
            "name": "The real Ada",
            "password": PASSWORD,
        }
        assert client.post(at("register"), form)["Location"] == "/console/"
        assert client.get("/console/account").status_code == 200
        user = User.objects.get(email="ada@example.com")
        assert (user.name, user.has_proved_email) == ("The real Ada", True)
        ada.refresh_from_db()
        assert not ada.is_active

    def test_who_may_not_register_reads_that(self, ada, settings):
        settings.REGISTRATION = "closed"
        form = {"registrationToken": "x", "email": ada.email, "password": PASSWORD}
        page = visitor().post(at("register"), form)
        assert (page.status_code, "may register with this service" in text_of(page)) == (403, True)


class TestInvitation:
    def look(self, client, token):
        return client.post(at("invitation"), {"token": token}).content.decode()

    def test_while_registration_is_closed_it_says_whom_to_ask_for_an_account(
        self, cast, settings, ada
    ):
        settings.REGISTRATION = "closed"
        prove(cast.owner, ada)
        token = invite_for_test(cast.environment, cast.owner, "new@example.com")
        page = self.look(visitor(), token)
        assert "ask its operator for an account" in page
        assert 'value="register"' not in page
        form = {"token": token, "step": "register", "name": "New", "password": PASSWORD}
        assert visitor().post(at("invitation"), form).status_code == 403

    def test_names_are_escaped_and_somebody_new_registers(self, cast):
        prove(cast.owner)
        cast.environment.name = "<b>prod</b>"
        cast.environment.save()
        token = invite_for_test(cast.environment, cast.owner, "new@example.com", "operator")
        client = visitor()
        page = self.look(client, token)
        assert "&lt;b&gt;prod" in page
        assert "<b>prod" not in page
        assert "that one is closed" not in page
        form = {"token": token, "step": "register", "name": "New", "password": "short"}
        weak = client.post(at("invitation"), form)
        assert (weak.status_code, "field-password-error" in weak.content.decode()) == (400, True)
        done = client.post(at("invitation"), {**form, "password": PASSWORD})
        assert done["Location"] == "/console/"
        opened = f"/console/environments/{cast.environment.id}"
        assert client.get("/console/")["Location"] == opened
        member = Membership.objects.get(user__email="new@example.com")
        assert (member.environment_id, member.role) == (cast.environment.id, "operator")

    def test_somebody_with_an_account_signs_in_and_accepts_once(self, cast, ada):
        prove(ada)
        token = invite_for_test(cast.environment, cast.owner, ada.email)
        link = f'href="/console/sign-in?next=%2Fconsole%2Faccount%2Finvitation#token={token}"'
        assert link in self.look(visitor(), token)
        client = visitor(ada)
        assert 'value="accept"' in self.look(client, token)
        form = {"token": token, "step": "accept"}
        opened = f"/console/environments/{cast.environment.id}"
        assert client.post(at("invitation"), form)["Location"] == opened
        assert client.post(at("invitation"), form).status_code == 409

    def test_an_account_that_never_proved_the_address_registers_anew(self, cast, ada):
        token = invite_for_test(cast.environment, cast.owner, ada.email)
        page = self.look(visitor(), token)
        assert 'value="register"' in page
        assert "that one is closed" in page


@pytest.mark.parametrize("step", ["confirm", "refuse-one", "refuse"])
def test_the_owner_of_an_address_agrees_or_refuses_and_opening_changes_nothing(cast, step):
    token = asked_token(cast, "grace@example.com")
    client = visitor()
    assert client.get(at("notices")).status_code == 200
    asked = AskedAddress.objects.get()
    assert (asked.confirmed_at, asked.refused_at) == (None, None)
    assert client.post(at("notices"), {"token": token, "step": step}).status_code == 200
    asked.refresh_from_db()
    assert (asked.confirmed_at is not None) == (step == "confirm")
    assert (asked.refused_at is not None) == (step != "confirm")
    assert RefusedAddress.objects.exists() == (step == "refuse")
