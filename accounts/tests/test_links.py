"""The pages `/account/…`, to which the links in mails lead, without their script (SPEC §15)."""

import pytest
from django.test import Client

from accounts.models import User
from testing.world.cast import session_cookie
from testing.world.mails import MAIL_SERVER, invite_for_test, issue_token, prove
from testing.world.users import PASSWORD, UserFactory
from workspaces.models import Membership

HOME = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _mail_server(settings):
    settings.EMAIL_URL = MAIL_SERVER
    settings.PUBLIC_URL = HOME["origin"]


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com")


@pytest.fixture
def visitor():
    return Client(headers=HOME)


def signed_in(user):
    client = Client(headers=HOME)
    client.cookies["auth_token"] = session_cookie(user)
    return client


def text_of(page):
    return page.content.decode()


@pytest.mark.parametrize("page", ["verify", "reset", "register", "invitation"])
def test_a_page_asks_for_the_token_and_may_be_kept_by_nobody(visitor, page):
    answer = visitor.get(f"/account/{page}")
    assert answer.status_code == 200
    assert 'name="token"' in text_of(answer)
    assert "no-store" in answer["Cache-Control"]
    assert answer["Referrer-Policy"] == "same-origin"
    posted = visitor.post(f"/account/{page}", {"token": "acc_" + "0" * 49, "step": "look"})
    assert posted.status_code in (400, 409)


@pytest.mark.parametrize("page", ["verify", "reset", "register", "invitation"])
def test_a_form_of_another_site_is_refused(page, ada):
    answer = signed_in(ada).post(
        f"/account/{page}", {"token": "x"}, headers={"origin": "https://evil.example"}
    )
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "page",
    ["/account/verify", "/account/reset", "/account/register", "/account/invitation", "/pair"],
)
def test_a_form_with_a_nul_is_refused(visitor, page):
    answer = visitor.post(page, {"token": "acc_x\0", "email": "ada\0@example.com", "step": "look"})
    assert answer.status_code == 400
    assert "Null characters are not allowed." in text_of(answer)
    assert "\0" not in text_of(answer)


@pytest.mark.parametrize(("page", "step"), [("verify", ""), ("invitation", "accept")])
def test_a_user_has_as_many_tries_as_in_the_api(ada, page, step):
    client = signed_in(ada)
    statuses = [
        client.post(f"/account/{page}", {"token": "x", "step": step}).status_code for _ in range(31)
    ]
    assert statuses == [409] * 30 + [429]


class TestVerify:
    def test_one_signs_in_and_confirms_in_one_step(self, visitor, ada):
        form = {
            "token": issue_token("verify", ada.email, ada),
            "email": ada.email,
            "password": PASSWORD,
        }
        wrong = visitor.post("/account/verify", {**form, "password": "wrong password"})
        assert wrong.status_code == 401
        assert form["token"] in text_of(wrong)
        done = visitor.post("/account/verify", form)
        assert (done.status_code, "ada@example.com is confirmed." in text_of(done)) == (200, True)
        assert "auth_token" in visitor.cookies
        ada.refresh_from_db()
        assert ada.has_proved_email

    def test_another_account_can_sign_out_first(self, ada):
        other = signed_in(UserFactory.create())
        form = {"token": issue_token("verify", ada.email, ada)}
        assert other.post("/account/verify", form).status_code == 409
        page = text_of(other.post("/account/verify", {**form, "step": "sign-out"}))
        assert 'name="password"' in page
        assert other.cookies["auth_token"].value == ""


class TestReset:
    def test_the_form_sets_a_new_password(self, visitor, ada):
        prove(ada)
        form = {"token": issue_token("reset", ada.email, ada), "password": "short"}
        weak = visitor.post("/account/reset", form)
        assert (weak.status_code, "too short" in text_of(weak)) == (400, True)
        assert (
            visitor.post("/account/reset", {**form, "password": "a fresh horse"}).status_code == 200
        )
        ada.refresh_from_db()
        assert ada.check_password("a fresh horse")


class TestRegister:
    def test_the_owner_of_an_address_gets_an_account_of_their_own(self, visitor, ada):
        form = {
            "token": issue_token("registration", ada.email, ada),
            "name": "The real Ada",
            "password": PASSWORD,
        }
        assert visitor.post("/account/register", form).status_code == 200
        user = User.objects.get(email="ada@example.com")
        assert (user.name, user.has_proved_email) == ("The real Ada", True)
        ada.refresh_from_db()
        assert not ada.is_active

    @pytest.mark.parametrize("registration", ["invited", "closed"])
    def test_who_may_not_register_reads_that_and_finds_no_form(
        self, visitor, settings, registration
    ):
        settings.REGISTRATION = registration
        page = visitor.get("/account/register")
        assert page.status_code == 403
        assert "may register with this service" in text_of(page)
        assert 'name="password"' not in text_of(page)


class TestInvitation:
    def test_while_registration_is_closed_it_says_whom_to_ask_for_an_account(
        self, cast, visitor, settings, ada
    ):
        settings.REGISTRATION = "closed"
        prove(cast.owner, ada)
        token = invite_for_test(cast.environment, cast.owner, "new@example.com")
        page = self.look(visitor, token)
        assert "ask its operator for an account" in page
        assert 'value="register"' not in page
        form = {"token": token, "step": "register", "name": "New", "password": PASSWORD}
        assert visitor.post("/account/invitation", form).status_code == 403
        theirs = invite_for_test(cast.environment, cast.owner, ada.email)
        assert 'value="sign-in"' in self.look(visitor, theirs)

    def look(self, client, token):
        return text_of(client.post("/account/invitation", {"token": token, "step": "look"}))

    def test_names_are_escaped_and_somebody_new_registers(self, cast, visitor):
        prove(cast.owner)
        cast.environment.name = "<b>prod</b>"
        cast.environment.save()
        token = invite_for_test(cast.environment, cast.owner, "new@example.com", "operator")
        page = self.look(visitor, token)
        assert "&lt;b&gt;prod" in page
        assert "<b>prod" not in page
        assert 'value="register"' in page
        assert "that one is closed" not in page
        form = {"token": token, "step": "register", "name": "New", "password": PASSWORD}
        assert "You are a member now." in text_of(visitor.post("/account/invitation", form))
        member = Membership.objects.get(user__email="new@example.com")
        assert (member.environment_id, member.role) == (cast.environment.id, "operator")

    def test_somebody_with_an_account_signs_in(self, cast, visitor, ada):
        prove(ada)
        token = invite_for_test(cast.environment, cast.owner, ada.email)
        assert 'value="sign-in"' in self.look(visitor, token)
        form = {"token": token, "step": "sign-in", "email": ada.email, "password": PASSWORD}
        assert "You are a member now." in text_of(visitor.post("/account/invitation", form))

    def test_who_is_signed_in_accepts(self, cast, ada):
        prove(ada)
        token = invite_for_test(cast.environment, cast.owner, ada.email)
        client = signed_in(ada)
        assert 'value="accept"' in self.look(client, token)
        form = {"token": token, "step": "accept"}
        assert "You are a member now." in text_of(client.post("/account/invitation", form))
        assert client.post("/account/invitation", form).status_code == 409

    def test_an_account_that_never_proved_the_address_registers_anew(self, cast, visitor, ada):
        token = invite_for_test(cast.environment, cast.owner, ada.email)
        page = self.look(visitor, token)
        assert 'value="register"' in page
        assert "that one is closed" in page
