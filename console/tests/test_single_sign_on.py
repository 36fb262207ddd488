"""People sign in at a real OpenID provider on the console's pages."""

import html
import re

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from accounts import issuer
from accounts.issuer import issuer_lets_us_in
from accounts.models import Identity, User
from console.tests.visits import text_of, visitor
from testing.processes.openid_provider import openid_provider
from testing.world.mails import MAIL_SERVER, invite_for_test, prove, token_to
from testing.world.users import PASSWORD, UserFactory

SERVICE = "http://localhost:8000"
CALLBACK = f"{SERVICE}/console/sso/callback"


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    with openid_provider(tmp_path_factory.mktemp("provider"), CALLBACK) as found:
        yield found


@pytest.fixture(autouse=True)
def _there(provider, settings):
    for name, value in provider.settings().items():
        setattr(settings, name, value)
    settings.PUBLIC_URL, settings.EMAIL_URL = SERVICE, MAIL_SERVER
    issuer.forget()


def led_to(page):
    """Returns where a page leads the browser by itself."""
    assert page.status_code == 200, text_of(page)
    where = page["Refresh"].removeprefix("0;url=")
    (link,) = re.findall(r'<a href="([^"]+)">Continue</a>', page.content.decode())
    assert html.unescape(link) == where
    return where


def come_back(client, provider, sub, begun=None):
    """Signs in there, and returns the page of ours to which the browser is sent back, from another site."""
    back = provider.agree(led_to(begun or client.get("/console/sso")), sub)
    assert back.startswith(f"{CALLBACK}?")
    return client.get(back.removeprefix(SERVICE), headers={"sec-fetch-site": "cross-site"})


@pytest.mark.django_db
def test_a_first_sign_in_leads_on_to_where_one_wanted_to_go(provider):
    provider.add_person("ada", email="ada@example.com", email_verified=True, name="Ada")
    client = visitor()
    page = client.get("/console/sign-in?next=/console/pair")
    (link,) = re.findall(r'href="(/console/sso[^"]*)"', page.content.decode())
    assert provider.issuer.removeprefix("http://") in text_of(page)
    page = come_back(client, provider, "ada", client.get(link))
    assert led_to(page) == "/console/pair"
    account = text_of(client.get("/console/account"))
    assert "ada@example.com" in account
    assert provider.issuer.removeprefix("http://") in account
    # What came back works once.
    (cookie,) = (client.cookies[name] for name in ("sso",))
    assert cookie.value == ""


@pytest.mark.django_db
def test_an_account_is_linked_by_its_password_or_a_mail(provider):
    for sub in ("by-password", "by-mail"):
        prove(UserFactory.create(email=f"{sub}@example.com"))
        provider.add_person(sub, email=f"{sub}@example.com", email_verified=True)
    client = visitor()
    page = come_back(client, provider, "by-password")
    assert "An account with the e-mail address by-password@example.com exists" in text_of(page)
    wrong = client.post("/console/sso/link", {"password": "not the password"})
    assert wrong.status_code == 401
    assert led_to(client.post("/console/sso/link", {"password": PASSWORD})) == "/console/"

    client = visitor()
    come_back(client, provider, "by-mail")
    sent = client.post("/console/sso/link", {"step": "mail"})
    assert "A mail is on its way" in text_of(sent)
    token = token_to("by-mail@example.com", "link")
    linked = client.post("/console/account/link", {"token": token, "code": ""})
    assert "Your account is linked" in text_of(linked)
    assert led_to(come_back(visitor(), provider, "by-mail")) == "/console/"
    assert Identity.objects.count() == 2


@pytest.mark.django_db
def test_an_invitation_is_accepted_by_signing_in(provider, cast, settings):
    settings.REGISTRATION, settings.OIDC_ONLY = "closed", True
    provider.add_person("grace", email="grace@example.com", email_verified=True)
    token = invite_for_test(cast.environment, cast.owner, "grace@example.com", "operator")
    client = visitor()
    page = client.post("/console/account/invitation", {"token": token})
    assert 'name="password"' not in page.content.decode()
    assert "ask its operator" not in text_of(page)
    page = come_back(client, provider, "grace", client.post("/console/sso", {"token": token}))
    assert led_to(page) == f"/console/account/invitation#token={token}"
    answer = client.post("/console/account/invitation", {"token": token, "step": "accept"})
    assert answer.status_code == 303
    member = User.objects.get(email="grace@example.com").memberships.get()
    assert (member.environment_id, member.role) == (cast.environment.id, "operator")


@pytest.mark.django_db
def test_what_fails_is_a_page_with_one_sentence(provider, monkeypatch):
    provider.add_person("unverified", email="x@example.com", email_verified=False)
    client = visitor()
    page = come_back(client, provider, "unverified")
    assert page.status_code == 409
    assert page.content.decode().count('class="error"') == 1
    assert "does not vouch for an e-mail address" in text_of(page)
    assert client.cookies["sso"].value == ""
    assert 'href="/console/sign-in"' in page.content.decode()
    strange = visitor().get("/console/sso/callback?state=x&code=y")
    assert strange.status_code == 409
    assert "was not begun in this browser" in text_of(strange)
    monkeypatch.setattr(issuer.PERMITS, "_patience", 0.01)
    with issuer.slot(), issuer.slot():
        client = visitor()
        back = provider.agree(led_to(client.get("/console/sso")), "unverified")
        busy = client.get(back.removeprefix(SERVICE))
        assert (busy.status_code, busy["Retry-After"]) == (503, "1")
        assert 'href="/console/sso/callback?' in busy.content.decode(), "it can be tried again"
    assert not User.objects.filter(email="x@example.com").exists()


@pytest.mark.django_db
def test_without_an_issuer_no_page_leads_there(settings):
    settings.OIDC_ISSUER = ""
    assert "/console/sso" not in visitor().get("/console/sign-in").content.decode()
    for path in ("sso", "sso/callback"):
        assert visitor().get(f"/console/{path}").status_code == 404


def test_check_deploy_tells_what_is_wrong_with_the_settings(provider, settings):
    found = issuer_lets_us_in()
    assert (found.is_serious(), provider.issuer in found.msg) == (False, True), found.msg
    for changes, said in (
        (
            {"PUBLIC_URL": "https://other.example.com"},
            "does not send browsers back to https://other",
        ),
        ({"OIDC_CLIENT_SECRET": "another"}, "does not know the client"),
        ({"OIDC_CLIENT_ID": "another"}, "does not know the client"),
        ({"OIDC_ISSUER": f"{provider.issuer}/realm"}, "can't be used"),
        ({"OIDC_ISSUER": "http://127.0.0.1:1"}, "can't be used"),
    ):
        before = {name: getattr(settings, name) for name in changes}
        for name, value in changes.items():
            setattr(settings, name, value)
        issuer.forget()
        found = issuer_lets_us_in()
        assert found.is_serious(), changes
        assert said in found.msg, changes
        assert found.hint
        for name, value in before.items():
            setattr(settings, name, value)


def test_staff_with_the_way_back_in_are_new(db):
    with pytest.raises(CommandError, match="is for a new user"):
        call_command("create_staff", "ada@example.com", "--promote", "--password")
