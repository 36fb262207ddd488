"""People sign in at a real OpenID provider, in a real browser that sends the session's cookie from no other site."""

import re
import threading
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from accounts.models import Identity
from console.tests.test_browser import look_at
from testing.processes.browser import chromium
from testing.processes.openid_issuer import CLIENT_ID, CLIENT_SECRET, SILENT, openid_issuer
from testing.processes.openid_provider import openid_provider
from testing.processes.web_process import free_port, serve
from testing.world.mails import MAIL_SERVER, invite_for_test, prove
from testing.world.users import PASSWORD, UserFactory
from workers.models import Enrollment

pytestmark = pytest.mark.long


@contextmanager
def visiting(origin):
    """Opens a page of a browser that reaches this machine alone. Our pages must complain about nothing but refusals."""
    complaints: list[str] = []

    def note(said):
        if page.url.startswith(origin) and "status of 409" not in said.text:
            complaints.append(f"{page.url}: {said.text}")

    with chromium() as browser:
        page = browser.new_page(base_url=f"{origin}/console/")
        page.set_default_timeout(60_000)  # A busy machine draws slowly.
        here = re.compile(r"http://(localhost|127\.0\.0\.1):")
        page.route(lambda url: not here.match(url), lambda route: route.abort())
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        yield page
    assert complaints == [], "\n".join(complaints)


def enter(page, provider, sub):
    """Signs in at the provider, to which the page leads, as a person does."""
    words = f"in with {urlsplit(provider.issuer).netloc}"
    page.click(f"a:has-text('{words}'), button:has-text('{words}')")
    page.wait_for_url(f"{provider.issuer}/**")
    page.fill("[name=sub]", sub)
    page.click("button:has-text('Authorize')")


def test_people_come_in_link_accept_pair_and_operate(committed_cast, own_database, tmp_path):
    cast, port = committed_cast, free_port()
    origin = f"http://127.0.0.1:{port}"
    grace = UserFactory.create(email="grace@example.com")
    prove(grace, cast.owner)
    boss = UserFactory.create(email="boss@example.com", is_staff=True)
    invited = invite_for_test(cast.environment, cast.owner, "new@example.com", "operator")
    with openid_provider(tmp_path, f"{origin}/console/sso/callback") as provider:
        for user, sub in ((cast.owner, "owner"), (boss, "boss")):
            Identity.objects.create(user=user, issuer=provider.issuer, sub=sub)
        addresses = {
            "ada": "ada@example.com",
            "grace": grace.email,
            "new": "new@example.com",
            "owner": cast.owner.email,
            "boss": boss.email,
        }
        for sub, address in addresses.items():
            provider.add_person(sub, email=address, email_verified=True, name=sub)
        provider.add_person("unverified", email="x@example.com", email_verified=False)
        environment = provider.settings(
            PORT=str(port),
            COOKIE_SAMESITE="Strict",
            OIDC_ONLY="true",
            REGISTRATION="invited",
            EMAIL_URL=MAIL_SERVER,
        )
        log = tmp_path / "web.log"
        with (
            serve(own_database, log=log, **environment) as server,
            visiting(origin) as page,
        ):

            def afresh(path):
                page.goto("about:blank")
                page.context.clear_cookies()
                page.goto(f"{origin}{path}")

            afresh("/console/sign-in?next=/console/account")
            look_at(page, "sign-in-only")
            enter(page, provider, "ada")
            page.wait_for_url(f"{origin}/console/account")
            assert "ada@example.com" in page.inner_text("main")
            look_at(page, "account-of-issuer")

            afresh("/console/sign-in")
            enter(page, provider, "grace")
            page.wait_for_selector("h1:has-text('Link your account')")
            look_at(page, "link-account")
            page.fill("[name=password]", PASSWORD)
            page.click("button:has-text('Link the account')")
            page.wait_for_url(re.compile(f"{origin}/console/(?!sso)"))

            afresh(f"/account/invitation#token={invited}")
            page.wait_for_selector("dl")
            look_at(page, "invitation-by-issuer")
            enter(page, provider, "new")
            page.wait_for_selector("button:has-text('Accept')")
            page.click("button:has-text('Accept')")
            page.wait_for_url(f"**/environments/{cast.environment.id}/**")

            # A command line signs in on the page for pairing.
            begun = httpx.post(f"{server.api}/enrollments/device", json={"for": "command_line"})
            afresh("/pair")
            enter(page, provider, "owner")
            page.wait_for_url(f"{origin}/console/pair")
            page.fill("[name=userCode]", begun.json()["userCode"])
            page.click("main button")
            page.select_option("[name=environmentId]", str(cast.environment.id))
            page.click("button[value=approve]")
            page.wait_for_selector(".done")
            given = httpx.post(
                f"{server.api}/enrollments/key", json={"deviceCode": begun.json()["deviceCode"]}
            )
            assert given.status_code == 201, given.text

            afresh("/admin/")
            enter(page, provider, "boss")
            page.wait_for_url(f"{origin}/admin/")
            assert "What is wrong now" in page.inner_text("body")

            afresh("/console/sign-in")
            enter(page, provider, "unverified")
            page.wait_for_selector(".error")
            look_at(page, "sign-in-failed")
            page.goto("about:blank")
        said = log.read_text()
        assert "code=" not in said
        assert "state=" not in said
    assert Enrollment.objects.filter(consumed_at__isnull=False).count() == 1


def test_fifty_at_once_at_an_issuer_that_hangs_hold_two_threads(own_database, tmp_path):
    port = free_port()
    with openid_issuer() as issuer:
        issuer.pages["/token"] = (200, SILENT)
        environment = {
            "OIDC_ISSUER": issuer.origin,
            "OIDC_CLIENT_ID": CLIENT_ID,
            "OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "PORT": str(port),
            "TRUSTED_PROXIES": "127.0.0.0/8",
        }
        answers = []
        with serve(own_database, log=tmp_path / "web.log", **environment) as server:

            def asking(number):
                return httpx.Client(
                    base_url=f"{server.api}/auth/sso",
                    headers={"X-Forwarded-For": f"192.0.2.{number}"},
                    timeout=60,
                )

            def begin(number):
                with asking(number) as client:
                    answer = client.post("/begin", json={})
                state = parse_qs(urlsplit(answer.json()["url"]).query)["state"][0]
                body, cookie = {"state": state, "code": "a-code"}, answer.cookies["sso"]

                def finish():
                    with asking(number) as client:
                        sent = {"Cookie": f"sso={cookie}"}
                        answers.append(client.post("/finish", json=body, headers=sent))

                return finish

            threads = [threading.Thread(target=finish) for finish in map(begin, range(50))]
            for thread in threads:
                thread.start()
            # Others are answered meanwhile, by the threads that are left.
            assert httpx.get(f"{server.api}/health", timeout=60).status_code == 200
            for thread in threads:
                thread.join()
        assert {answer.status_code for answer in answers} == {503}
        told = [answer.json()["code"] for answer in answers]
        assert told.count("overloaded") + told.count("issuer_unavailable") == 50
        assert told.count("issuer_unavailable") == issuer.asked.count("/token") >= 2
        assert issuer.most_at_once == 2
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
